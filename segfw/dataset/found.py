"""What ``segfw find`` answers: the labels that a name means, with all that is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from segfw.base.answers import Answer
from segfw.dataset.look_up import KnownStructure

HEAD = ("value", "name", "English", "Chinese", "code")


class Found(Answer):
    """The labels that ``asked`` means in what lies at ``path``, or all of them; ``note`` says what stands for a group.

    ``values`` are those of masks, of a region the one that it is painted as. ``other_names`` and ``other_values`` are
    by label what ``--names`` asks for, without those that it does not have.
    """

    kind: Literal["structures"] = "structures"
    path: Path
    asked: str
    names: tuple[str, ...]
    values: tuple[int, ...]
    note: str = ""
    structures: tuple[KnownStructure, ...]
    other_names: Mapping[str, str] = {}
    other_values: Mapping[str, int] = {}

    def text(self) -> str:
        """A line for each label, in columns; then the note."""
        rows = [HEAD, *(self._row(each) for each in self.structures)]
        if self.other_names:
            rows = [("theirs", *rows[0]), *((self._theirs(each), *row) for each, row in zip(self.structures, rows[1:]))]
        widths = [max(map(_width, column)) for column in zip(*rows)]
        lines = [
            "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths)).rstrip() for row in rows
        ]
        return "\n".join([*lines, self.note] if self.note else lines)

    def _row(self, each: KnownStructure) -> tuple[str, ...]:
        values = "+".join(map(str, each.values))
        code = f"{each.scheme} {each.code} {each.code_meaning}".strip()
        if code and each.side:
            code += f", {each.side}"
        return values, each.name, each.english, each.chinese, code

    def _theirs(self, each: KnownStructure) -> str:
        name = self.other_names.get(each.name)
        return f"{self.other_values[each.name]} {name}" if name else "-"


def _width(text: str) -> int:
    """Columns of a terminal: Chinese characters take two."""
    return sum(2 if ord(character) > 0x2E80 else 1 for character in text)
