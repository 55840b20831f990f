"""Names of structures in pictures, where not every computer has every letter."""

from __future__ import annotations

from segfw.base.figures import can_be_drawn, shortened
from segfw.dataset.anatomy import anatomy
from segfw.dataset.structure_names import readings


def drawn_name(name: str, index: int, most: int = 28) -> str:
    """The name of class ``index``, cut with an ellipsis where it has more than ``most`` characters.

    Where no installed font has its letters, the English one of the table of anatomy stands for it, or 'label 3'.
    """
    if can_be_drawn(name):
        return shortened(name, most)
    means = readings(name)
    if len(means) != 1:
        return f"label {index}"
    return shortened(anatomy()[means[0].id].name_of(means[0].side), most)
