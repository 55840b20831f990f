"""Left and right in the names of structures: which names are a pair, and which say a side without a counterpart.

The one parser of sides: planning exchanges the pairs where it mirrors, and the check of a data set looks whether the
left one lies on the left. A number behind the letter is no side: L1 and R1 are levels or places in a row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from segfw.dataset.anatomy import anatomy
from segfw.dataset.labels import LabelSet
from segfw.dataset.side_words import ABBREVIATIONS, CHINESE, FEWEST_GLUED, WORDS, words_of
from segfw.dataset.structure_names import readings

# Left and right of the heart name chambers and vessels that are no mirror images of each other.
HEART = ("heart", "cardi", "atri", "ventric", "coronar", "auric", "append")
BRAIN = ("lateral", "lat", "brain", "horn", "cereb")  # whose ventricles are pairs


def pairs_by_name(names: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """(Left, right) names that differ only by the side that they say, and names that say one without a counterpart."""
    by_words = {words_of(name): name for name in names}
    pairs: dict[str, str] = {}
    for words, name in by_words.items():
        for other in _mirrored(words):
            if other in by_words and by_words[other] not in pairs.values():
                pairs.setdefault(name, by_words[other])
    paired = {*pairs.keys(), *pairs.values()}
    return list(pairs.items()), [name for name in names if name not in paired and _says_side(words_of(name))]


def _mirrored(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What the right counterpart of a left structure may be called; nothing for what is not called left."""
    found = []
    for left, right in (*WORDS, *ABBREVIATIONS):
        if left in words and right not in words:
            found.append(tuple(right if word == left else word for word in words))
        for index, word in enumerate(words):
            found += [(*words[:index], mirrored, *words[index + 1 :]) for mirrored in _glued(word, left, right)]
    for index, word in enumerate(words):
        found += [(*words[:index], mirrored, *words[index + 1 :]) for mirrored in _mirrored_chinese(word)]
    return found


def _mirrored_chinese(word: str) -> list[str]:
    """'左肾' -> '右肾', '肾左侧' -> '肾右侧'; nothing for what says no left, or says it within."""
    found = []
    for left, right in CHINESE:
        if word.startswith(left):
            found.append(right + word.removeprefix(left))
        if word.endswith(left):
            found.append(word.removesuffix(left) + right)
    return found


def _glued(word: str, left: str, right: str) -> list[str]:
    """'lkidney' -> 'rkidney', 'kidneyleft' -> 'kidneyright', 'al' (anterior left) -> 'ar'."""
    found = []
    if left in ("l", "left") and word.startswith(left) and len(word) - len(left) >= FEWEST_GLUED:
        found.append(right + word[len(left) :])
    if left in ("l", "left") and word.endswith(left) and len(word) > len(left):
        found.append(word[: -len(left)] + right)
    return found


def _says_side(words: tuple[str, ...]) -> bool:
    """True if the words name one side of the body, and not both."""
    says_left = any(_says(word, "left", [left for left, _ in WORDS]) for word in words)
    says_right = any(_says(word, "right", [right for _, right in WORDS]) for word in words)
    return says_left != says_right


def _says(word: str, english: str, side_words: Sequence[str]) -> bool:
    """True for 'left', 'links', ... and for 'leftlung' and '左肺'."""
    chinese = tuple(pair[english == "right"] for pair in CHINESE)
    if word.startswith(chinese) or word.endswith(chinese):
        return True
    return word in side_words or (word.startswith(english) and len(word) >= len(english) + FEWEST_GLUED)


def is_of_heart(name: str) -> bool:
    """True for chambers and vessels of the heart, of which left and right do not look alike.

    As the table of structures says, and by words where a name is not in it.
    """
    known = [anatomy()[reading.id] for reading in readings(name)]
    if known and all(structure.paired == known[0].paired for structure in known):
        return known[0].paired == "unlike"
    words = words_of(name)
    return any(word.startswith(HEART) for word in words) and not any(word.startswith(BRAIN) for word in words)


def stem_of(name: str) -> tuple[str, ...]:
    """The name without numbers and single letters: names of one stem do not say what tells them apart."""
    words = (re.sub(r"\d+", "", word) for word in words_of(name))
    return tuple(word for word in words if len(word) > 1)


def may_be_paired(labels: LabelSet) -> bool:
    """True if some names of labels or regions say sides, or do not say what tells them apart."""
    names = list(dict.fromkeys((*labels.foreground, *labels.structures)))
    pairs, alone = pairs_by_name(names)
    return bool(pairs or alone) or len({stem_of(name) for name in names}) < len(names)
