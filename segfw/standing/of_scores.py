"""Scores that ``segfw evaluate`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segfw.base.answers import Answer
from segfw.base.errors import UserError
from segfw.base.shell_line import shell_line
from segfw.base.words import count
from segfw.base.written_by_people import read_json


class ScoresStanding(Answer):
    """How many cases were scored, and the mean Dice, of all structures and of each; None where it is of nothing."""

    kind: Literal["scores"] = "scores"
    path: Path
    cases: int
    dice: float | None
    dice_by_label: dict[str, float | None]
    next: str

    def text(self) -> str:
        """A few lines, and the next command."""
        lines = [f"{self.path}: scores of {count(self.cases, 'case')}, mean Dice {_dice(self.dice)}"]
        lines += [f"  {name}: {_dice(dice)}" for name, dice in self.dice_by_label.items()]
        return "\n".join([*lines, f"next: {self.next}"])


def scores_standing(path: Path) -> ScoresStanding | None:
    """What a file of scores says; None if it is none."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        found = read_json(path)
        return ScoresStanding(
            path=path,
            cases=len(found["cases"]),
            dice=found["foreground_mean"]["dice"],
            dice_by_label={name: score["dice"] for name, score in found["labels"].items()},
            next=shell_line("segfw", "evaluate", "MASKS", "EXPERT_MASKS", "--report", "report.html"),
        )
    except (UserError, KeyError, TypeError, AttributeError):
        return None


def _dice(dice: float | None) -> str:
    return "unknown" if dice is None else f"{dice:.3f}"
