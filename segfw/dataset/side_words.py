"""Words that say left and right, in all the ways of writing that names of structures have been seen with."""

from __future__ import annotations

import re

# Words that alone say a side, and abbreviations that do so only where the other side's name is there too: 'L' is also
# a lumbar vertebra.
WORDS = (("left", "right"), ("sinister", "dexter"), ("sinistra", "dextra"), ("links", "rechts"), ("gauche", "droite"))
ABBREVIATIONS = (("l", "r"), ("lt", "rt"), ("lh", "rh"), ("sin", "dex"), ("sin", "dx"), ("gauche", "droit"))
# Chinese ones stand before or behind the name, with nothing between; the longer ones are looked for first.
CHINESE = (("左侧", "右侧"), ("左側", "右側"), ("左", "右"))
CHINESE_BOTH = ("双侧", "两侧", "雙側", "兩側", "双", "两", "雙", "兩")
FEWEST_GLUED = 4  # letters after a glued 'l' or 'r', as in 'lkidney'; 'LV' and 'RV' are names of their own


def words_of(name: str) -> tuple[str, ...]:
    """'ParotidL' and 'parotid (L)' -> ('parotid', 'l')."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", name)
    return tuple(word for word in re.split(r"[\W_]+", apart.lower()) if word)
