"""One case under all changes: the image is changed, predicted anew, and its mask brought back and compared."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from segfw.base.case_files import work_once
from segfw.base.device import gpu_has_bf16
from segfw.base.errors import UserError
from segfw.base.options import Precision
from segfw.base.shared_work import CaseResult, Note
from segfw.dataset.cases import Case
from segfw.dataset.labels import LabelSet
from segfw.dataset.verify import check_case
from segfw.evaluation.confusion import ratio
from segfw.evaluation.masks import classes_of, read_stored_mask, require_same_grid
from segfw.grid.preprocess import stack_channels
from segfw.images.formats import read_volume
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume, stored_like
from segfw.inference.prediction_job import PredictionJob
from segfw.inference.selected_predictor import SelectedPredictor
from segfw.model.load import Model
from segfw.perturbations.perturbation import Perturbation
from segfw.perturbations.perturbing import SERIES, other_scale_inside, perturbed
from segfw.perturbations.placing import moved
from segfw.perturbations.regridding import covered, labels_on_grid
from segfw.perturbations.stored_forms import FORMS, in_axis_order, in_steps, reread
from segfw.planning.plan import Configuration
from segfw.robustness.stress_folder import StressCase, StressFolder
from segfw.robustness.stress_options import StressOptions
from segfw.robustness.stress_records import CaseStress, Effect, StructureEffect
from segfw.robustness.trials import AGAIN, AXES, ORIGIN, PRECISION, drawn_order, generator, trials_of

PLAIN_FORM = "nii.gz"  # in which other orders of axes and another origin are stored


@dataclass(frozen=True, kw_only=True)
class Changed:
    """An image after a change, on which grid its mask comes back, and what was drawn.

    ``before`` is the image that it is compared with, where that is not the file's own: one of values that can be
    stored otherwise.
    """

    volume: Volume
    geometry: Geometry
    detail: str = ""
    before: Volume | None = None


@dataclass(frozen=True, kw_only=True)
class StressJob:
    """All that a case needs. ``other`` predicts in another precision; None if there is none to compare with."""

    predictor: SelectedPredictor
    other: SelectedPredictor | None
    structures: Mapping[str, tuple[int, ...]]
    folder: StressFolder
    is_quick: bool

    @property
    def labels(self) -> LabelSet:
        return self.predictor.plan.labels

    @property
    def configurations(self) -> Sequence[Configuration]:
        return [member.configuration for member in self.predictor.members]

    def __call__(self, case: StressCase) -> CaseResult:
        """Tries what is not tried yet of a case, and keeps every trial when it is done."""
        return work_once(self.folder, case, self._work)

    def _work(self, case: StressCase) -> tuple[Note, ...]:
        sources = case.sources
        image = read_image(case, len(self.predictor.plan.channels))
        trials = self.trials(image)
        kept = self.folder.current(case)
        effects = [] if kept is None else [effect for effect in kept.effects if effect.perturbation in trials]
        others = [] if kept is None else [effect for effect in kept.effects if effect.perturbation not in trials]
        tried = {effect.perturbation for effect in effects}
        before = self.mask(image)
        expert = self.expert_mask(case, image)
        voxels = int(np.prod(image.geometry.shape))
        found = CaseStress(id=case.id, sources=sources, voxels=voxels, tried="some", effects=(*effects, *others))
        for trial in trials:
            if trial not in tried:
                effects.append(self._effect(case, image, before, expert, trial))
                found = found.model_copy(update={"effects": (*effects, *others)})
                self.folder.keep(found)
        self.folder.keep(found.model_copy(update={"tried": "quick" if self.is_quick else "all"}))
        return ()

    def trials(self, image: Volume) -> list[Perturbation]:
        """What is tried on this image."""
        return trials_of(image, self.configurations, is_quick=self.is_quick, has_other_precision=self.other is not None)

    def mask(self, volume: Volume, predictor: SelectedPredictor | None = None) -> np.ndarray:
        """Class indices (Z, Y, X) on the grid of the image."""
        predictor = predictor or self.predictor
        return predictor.classes(predictor.prepare(volume))

    def expert_mask(self, case: StressCase, image: Volume) -> np.ndarray | None:
        """The expert's classes (Z, Y, X) on the grid of the image, as that is stored; None if there is none."""
        if case.reference is None:
            return None
        stored = stored_like(read_stored_mask(case.reference, self.labels, image), image)
        require_same_grid(case.reference, stored.geometry, case.files[0], image.geometry, "its image")
        return classes_of(stored, self.labels, case.reference, case.label_map)

    def _effect(
        self, case: StressCase, image: Volume, before: np.ndarray, expert: np.ndarray | None, trial: Perturbation
    ) -> Effect:
        try:
            changed, after = self.tried(case, image, trial)
        except UserError as error:  # of this change alone, such as an image that is too small now
            return Effect(perturbation=trial, problem=str(error))
        if changed.before is not None:
            before = self.mask(changed.before)
        inside = covered(changed.geometry, image.geometry)
        if expert is not None and self.labels.ignored_class is not None:
            inside &= expert != self.labels.ignored_class
        changed_voxels = int(np.count_nonzero((after != before) & inside))
        ceiling = None
        if trial.name in SERIES and SERIES[trial.name].moves:
            rng = generator(case.id, f"{trial.name} ceiling")
            there = labels_on_grid(before, image.geometry, changed.geometry, rng)
            ceiling = labels_on_grid(there, changed.geometry, image.geometry, rng)
        stored = len(self.labels.stored_values)
        compared = Compared.of(stored, inside, before=before, after=after, ceiling=ceiling, expert=expert)
        return Effect(
            perturbation=trial,
            detail=changed.detail,
            changed_voxels=changed_voxels,
            structures=tuple(
                compared.effect(name, classes, is_drawn=case.annotated is None or name in case.annotated)
                for name, classes in self.structures.items()
            ),
        )

    def tried(self, case: StressCase, image: Volume, trial: Perturbation) -> tuple[Changed, np.ndarray]:
        """The image after a change, and its mask on the grid of the image before."""
        changed = self._changed(case, image, trial)
        mask = self.mask(changed.volume, self.other if trial.name == PRECISION else None)
        if changed.geometry == image.geometry:
            return changed, mask
        rng = generator(case.id, f"{trial.name} back")
        return changed, labels_on_grid(mask, changed.geometry, image.geometry, rng)

    def _changed(self, case: StressCase, image: Volume, trial: Perturbation) -> Changed:
        """The image after a change; files go through a folder that is removed."""
        if trial.name == AGAIN:
            return Changed(volume=image, geometry=image.geometry)
        if trial.name == PRECISION and self.other is not None:
            first = self.predictor.members[0].precision
            second = self.other.members[0].precision
            detail = f"{_plain(second)} instead of {_plain(first)}"
            return Changed(volume=image, geometry=image.geometry, detail=detail)
        with tempfile.TemporaryDirectory(prefix="segfw-") as name:
            folder = Path(name)
            if trial.name.startswith(AXES):
                order = drawn_order(image, case.id, trial)
                stored = reread(in_axis_order(image, order), PLAIN_FORM, folder)
                return Changed(volume=stored, geometry=stored.geometry, detail=f"stored as {order}")
            if trial.name == ORIGIN:
                return Changed(volume=reread(moved(image), PLAIN_FORM, folder), geometry=image.geometry)
            if trial.name in FORMS:
                before = in_steps(image) if trial.name == "scaled integers" else image
                stored = reread(before, trial.name, folder)
                is_own = before is image
                return Changed(volume=stored, geometry=image.geometry, before=None if is_own else before)
        rng = generator(case.id, trial.name)
        if trial.name == "other scale" and self._looks_inside_masks:
            volume = other_scale_inside(image)
        else:
            volume = perturbed(image, trial, rng)
        return Changed(volume=volume, geometry=volume.geometry)

    @property
    def _looks_inside_masks(self) -> bool:
        """Whether voxels of exactly 0 mean that nothing was scanned there."""
        rules = [rule for one in self.configurations for rule in one.preprocessing.normalization]
        return any(rule.inside_mask for rule in rules)


def other_predictor(
    job: PredictionJob, loaded: Sequence[Model], predictor: SelectedPredictor, options: StressOptions
) -> SelectedPredictor:
    """The same networks in another precision: 32 bit where it is 16, else the 16 bit of this device."""
    precision: Precision = "fp32"
    if predictor.members[0].precision == torch.float32:
        precision = "bf16" if predictor.device.type != "cuda" or gpu_has_bf16(predictor.device) else "fp16"
    return replace(job, options=options.of_prediction(precision)).predictor(loaded, options.device, cases=1)


def read_image(case: StressCase, channels: int) -> Volume:
    """All channels of a case on the grid of the first; UserError if they do not belong together."""
    volumes = [read_volume(path) for path in case.images]
    problems = check_case(Case(id=case.id, images=case.images), volumes, None, channel_count=channels, labels=None)
    if problems:
        raise UserError("; ".join(str(problem) for problem in problems))
    return stack_channels(volumes)


def _plain(dtype: object) -> str:
    return {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}.get(str(dtype), str(dtype))


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Voxels by the classes that two masks of one grid give them, (K, K) each: all that Dice and volumes need."""

    before_after: np.ndarray
    before_ceiling: np.ndarray | None
    expert_before: np.ndarray | None
    expert_after: np.ndarray | None

    @staticmethod
    def of(
        classes: int,
        inside: np.ndarray,
        *,
        before: np.ndarray,
        after: np.ndarray,
        ceiling: np.ndarray | None,
        expert: np.ndarray | None,
    ) -> Compared:
        """Of masks (Z, Y, X) of class indices, in the voxels that count."""

        def pairs(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
            return None if first is None or second is None else joint_counts(first[inside], second[inside], classes)

        return Compared(
            before_after=joint_counts(before[inside], after[inside], classes),
            before_ceiling=pairs(before, ceiling),
            expert_before=pairs(expert, before),
            expert_after=pairs(expert, after),
        )

    def effect(self, name: str, classes: Sequence[int], *, is_drawn: bool = True) -> StructureEffect:
        """One structure, of its classes; one that the expert did not draw is held against the mask before alone."""
        if not is_drawn:
            return replace(self, expert_before=None, expert_after=None).effect(name, classes)
        before, after, both = _sizes(self.before_after, classes)
        agreement = ratio(2 * both, before + after)
        yardstick = before
        touched_before = before
        touched_after = both
        if self.expert_before is not None and self.expert_after is not None:
            yardstick, _, touched_before = _sizes(self.expert_before, classes)
            touched_after = _sizes(self.expert_after, classes)[2]
        return StructureEffect(
            structure=name,
            voxels_before=before,
            voxels_after=after,
            agreement=agreement,
            ceiling=None if agreement is None else _dice(self.before_ceiling, classes),
            dice_before=_dice(self.expert_before, classes),
            dice_after=_dice(self.expert_after, classes),
            expected=yardstick > 0,
            found_before=touched_before > 0,
            found_after=touched_after > 0,
        )


def joint_counts(first: np.ndarray, second: np.ndarray, classes: int) -> np.ndarray:
    """How many voxels are of class i in the first mask and of j in the second, (K, K)."""
    pair = first.astype(np.int64) * classes + second
    return np.bincount(pair, minlength=classes * classes).reshape(classes, classes)


def _sizes(counts: np.ndarray, classes: Sequence[int]) -> tuple[int, int, int]:
    """Voxels of a structure in the first mask, in the second, and in both."""
    chosen = list(classes)
    both = counts[np.ix_(chosen, chosen)].sum()
    return int(counts[chosen].sum()), int(counts[:, chosen].sum()), int(both)


def _dice(counts: np.ndarray | None, classes: Sequence[int]) -> float | None:
    """None where there is no such pair of masks, or where both are empty."""
    if counts is None:
        return None
    first, second, both = _sizes(counts, classes)
    return ratio(2 * both, first + second)
