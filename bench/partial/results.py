"""A line for each training: scores of kept-out patients, and volumes in images that were trained on."""

from __future__ import annotations

from segfw.base.records import Record

Key = tuple[str, str, int, float]


class Figures(Record):
    """One label in one case; ``dice`` is None where neither mask has it."""

    dice: float | None
    reference_ml: float
    predicted_ml: float


class PartialResult(Record):
    """What one arm reached with one seed. ``drawn_in`` is the half of each training case."""

    data_set: str
    arm: str
    seed: int
    minutes: float
    processor: str
    steps: int | None
    seconds: float | None
    drawn_in: dict[str, str]
    kept: dict[str, dict[str, Figures]]
    trained: dict[str, dict[str, Figures]]

    @property
    def key(self) -> Key:
        """What tells trainings apart."""
        return self.data_set, self.arm, self.seed, self.minutes
