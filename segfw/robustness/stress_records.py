"""What became of masks under changes of their images: of one case, and of all."""

from __future__ import annotations

from typing import Literal

from segfw.base.case_files import CaseRecord
from segfw.base.records import Record
from segfw.perturbations.perturbation import Perturbation


class StructureEffect(Record):
    """One structure of one case under one change, counted where the changed image still shows something.

    ``agreement`` is the Dice of the mask after the change with the mask before, None if both are empty. ``ceiling`` is
    what agreement would be if the network changed nothing and the mask alone went to the other grid and back.
    ``dice_before`` and ``dice_after`` are with the expert's mask. ``expected`` tells whether the yardstick (that of the
    expert, else the mask before) has the structure, ``found`` whether the mask touches it there.
    """

    structure: str
    voxels_before: int
    voxels_after: int
    agreement: float | None
    ceiling: float | None
    dice_before: float | None = None
    dice_after: float | None = None
    expected: bool
    found_before: bool
    found_after: bool


class Effect(Record):
    """One case under one change. ``detail`` says what was drawn, ``problem`` why it could not be tried."""

    perturbation: Perturbation
    detail: str = ""
    changed_voxels: int = 0
    structures: tuple[StructureEffect, ...] = ()
    problem: str = ""


class CaseStress(CaseRecord):
    """What was tried of a case; ``tried`` says whether that is all that a call asks for."""

    voxels: int
    tried: Literal["some", "quick", "all"]
    effects: tuple[Effect, ...]

    def effect_of(self, perturbation: Perturbation) -> Effect | None:
        """What became of it under a change; None if that was not tried."""
        return next((effect for effect in self.effects if effect.perturbation == perturbation), None)


class StructureSummary(Record):
    """One structure under one change over all cases; means are over the cases in which they exist.

    ``change_of_dice`` is the mean of after - before. Volumes are those after over before, in percent of before.
    """

    structure: str
    cases: int
    agreement: float | None
    worst_agreement: float | None
    worst_case: str
    ceiling: float | None
    dice_before: float | None
    dice_after: float | None
    change_of_dice: float | None
    change_of_volume_percent: float | None
    expected: int
    found_before: int
    found_after: int
    invented: int


class ChangeSummary(Record):
    """One change over all cases. ``holds`` is None for what is a curve and has no pass mark."""

    perturbation: Perturbation
    cases: int
    changed_voxels: int
    changed_cases: tuple[str, ...]
    details: dict[str, str]
    structures: tuple[StructureSummary, ...]
    holds: bool | None
    problems: dict[str, str]


class LevelOfLoss(Record):
    """At which level of a change a structure has lost 0.05: of Dice with the expert's masks, else of agreement.

    ``level`` is interpolated between the levels that were tried, None where ``reached`` is False: then the loss at the
    strongest one was ``largest_loss``.
    """

    change: str
    unit: str
    structure: str
    of: Literal["Dice", "agreement"]
    reached: bool
    level: float | None
    strongest_level: float
    largest_loss: float


class StressReport(Record):
    """All that ``stress`` found."""

    kind: Literal["stress"] = "stress"
    version: str
    model: str
    images: str
    reference: str
    quick: bool
    configuration: str
    folds: tuple[str, ...]
    orientation: str
    precision: str
    weights_digest: str
    cases: tuple[str, ...]
    missing: tuple[str, ...]
    failed: dict[str, str]
    structures: tuple[str, ...]
    changes: tuple[ChangeSummary, ...]
    levels: tuple[LevelOfLoss, ...]
    notes: tuple[str, ...]

    @property
    def broken(self) -> tuple[ChangeSummary, ...]:
        """The changes that should have changed nothing, and did."""
        return tuple(change for change in self.changes if change.holds is False and change.perturbation.kind == "exact")
