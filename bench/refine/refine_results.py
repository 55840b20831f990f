"""A line for each arm with each kind of clicks and each seed: what every click did to every kept-out structure."""

from __future__ import annotations

from segfw.base.records import Record

Key = tuple[str, int, str, str, float]


class ClickedItem(Record):
    """One structure of one case. ``dice`` is that before any click and after each; where no click was left to make, the
    last value goes on."""

    case: str
    structure: str
    dice: tuple[float, ...]
    lowered: int  # clicks that lowered Dice
    obeyed: int  # clicks after which the clicked voxel was as the click said
    asked: int  # clicks inside another structure, for which the simulated person allowed to overwrite that
    seconds: tuple[float, ...]  # of each click that was made
    missed: int | None = None  # clicks that say of their own voxel what the expert does not; None: not counted
    lowered_by_misses: int | None = None  # of these, those that lowered Dice


class RefineResult(Record):
    """What one arm made of one kind of clicks. ``minutes`` are those of the refiner's training.

    ``untouched`` says whether every mask was, before the first click, the automatic one bit for bit.
    """

    data_set: str
    seed: int
    arm: str
    clicks: str
    minutes: float
    steps: int | None
    base_minutes_per_fold: float | None
    processor: str
    cores: int
    version: str
    patient_of: dict[str, str]
    untouched: bool
    items: tuple[ClickedItem, ...]

    @property
    def key(self) -> Key:
        """What tells lines apart."""
        return self.data_set, self.seed, self.arm, self.clicks, self.minutes
