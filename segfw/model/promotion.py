"""Whether a retrained model may take the place of the one that it began with: promotion.json, read by all."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segfw.base.durations import duration_text
from segfw.base.records import Record, StoredPath
from segfw.base.speech import WARNING
from segfw.base.words import count

PROMOTION_FILE = "promotion.json"
MEAN = "mean of the structures"


class Gain(Record):
    """Dice of one structure, or of each case's mean over structures, by all three models in the same cases.

    ``over_control`` is the mean difference of new and control, ``over_base`` that of new and base; ``low`` and ``high``
    bound each with 95 % by a bootstrap over patients, and are None for fewer patients than it takes.
    """

    structure: str
    cases: int
    patients: int
    base: float
    control: float
    new: float
    over_control: float
    low: float | None
    high: float | None
    over_base: float
    low_over_base: float | None
    high_over_base: float | None


class Promotion(Record):
    """The verdict on a retrained model, and all that it was made from.

    The new model is promoted only if the lower bound of new minus control is above ``limit_structure`` for every
    structure and above ``limit_mean`` for the mean. ``recommended`` is the work folder to predict with.
    """

    is_promoted: bool
    why: str
    recommended: StoredPath
    base: StoredPath
    judged_on: Literal["validation", "test"]
    limit_structure: float
    limit_mean: float
    structures: tuple[Gain, ...]
    mean: Gain
    new_cases: int
    unedited_cases: int  # of them, accepted as the model drew them
    blank_cases: int  # of them, drawn without the model
    extra_steps: int  # of all folds of an arm
    expert_minutes: float | None  # None where nothing was noted
    training_minutes: float  # of the new arm
    control_minutes: float

    @property
    def text(self) -> str:
        """The verdict in a line."""
        state = "promoted" if self.is_promoted else f"NOT promoted, use {self.recommended.as_posix()} instead"
        return f"{state}: {self.why}"

    @property
    def labels_text(self) -> str:
        """What the new labels are and what they cost, in words."""
        experts = (
            "unknown minutes of experts" if self.expert_minutes is None else f"{self.expert_minutes:.0f} min of experts"
        )
        return (
            f"{count(self.new_cases, 'new case')} ({self.unedited_cases} accepted unedited, {self.blank_cases} drawn "
            f"without the model), {experts}, {duration_text(60 * self.training_minutes)} of training and "
            f"{duration_text(60 * self.control_minutes)} of the control"
        )


def read_promotion(model: Path) -> Promotion | None:
    """The verdict on the retrained model in a work folder; None for any other model. UserError if it is damaged."""
    path = Path(model) / PROMOTION_FILE
    return Promotion.load(path) if path.is_file() else None


def warn_if_not_promoted(model: Path) -> None:
    """Says so of a retrained model that nobody should use unawares."""
    promotion = read_promotion(model)
    if promotion is not None and not promotion.is_promoted:
        print(f"{WARNING}{model} is {promotion.text}")
