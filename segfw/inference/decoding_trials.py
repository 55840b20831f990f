"""Of which structures the mask of largest expected Dice is better in cases that the networks did not see.

What a fold is scored by is found in the other folds: the temperature that makes probabilities agree with references,
and whether the structure gains by it there. A structure is decoded if the lower end of the 90 % interval of its gain
over patients is above 0, all cases together choose it as the other folds do, and no structure's mean falls.
"""

# L levels of probability, Z Y X space

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from segfw.evaluation.confusion import Counts, dice
from segfw.evaluation.statistics import intervals, resample_means
from segfw.grid.expected_dice import HALF, LEVELS, NEVER, levels_of, log_odds_of_levels, threshold_level
from segfw.inference.averaging import canonical_crop, mixed_parts
from segfw.inference.held_out import HeldOut
from segfw.inference.held_out_counts import CaseCounts, joint_counts, masks_of, opened_cases, reference_classes
from segfw.inference.postprocessing_trials import ROUNDING, mean_dice
from segfw.inference.probabilities import Probabilities
from segfw.model.postprocess import DecodedStructure
from segfw.model.selection import SEPARATOR, DecodingTrial

COVERAGE = 0.9  # of the interval whose lower end decides
TEMPERATURES = (0.2, 5.0)  # what is looked for lies between
DIGITS = 4  # of a temperature; more say nothing
# Of a voxel and a structure: where the voxel counts nowhere, and inside and outside of the structure in the reference.
NOWHERE = 0
INSIDE = 1
OUTSIDE = 2
NO_VOXELS = np.zeros(LEVELS, np.int64)


@dataclass(frozen=True, kw_only=True)
class StructureTally:
    """Voxels of one case by their level (L,) of one structure, from which its counts at any threshold are known.

    ``everywhere`` are all voxels; ``inside`` and ``outside`` lie in the structure's reference and outside it, without
    those that count nowhere. The ``open_`` ones of these are the structure's from the threshold on; ``fixed_tp`` and
    ``fixed_fp`` voxels it has at any. ``before`` is counted without decoding.
    """

    before: Counts
    everywhere: np.ndarray = field(default_factory=lambda: NO_VOXELS)
    inside: np.ndarray = field(default_factory=lambda: NO_VOXELS)
    outside: np.ndarray = field(default_factory=lambda: NO_VOXELS)
    open_inside: np.ndarray = field(default_factory=lambda: NO_VOXELS)
    open_outside: np.ndarray = field(default_factory=lambda: NO_VOXELS)
    fixed_tp: int = 0
    fixed_fp: int = 0

    def counts(self, temperature: float) -> Counts:
        """After decoding this structure alone."""
        threshold = threshold_level(self.everywhere, temperature)
        if threshold == NEVER:
            return self.before
        tp = self.fixed_tp + int(self.open_inside[threshold:].sum())
        fp = self.fixed_fp + int(self.open_outside[threshold:].sum())
        return Counts(tp=tp, fp=fp, fn=self.before.tp + self.before.fn - tp)

    def gain(self, temperature: float | None) -> float | None:
        """Change of the Dice; 0 without a temperature, None where there is no Dice."""
        before = dice(self.before)
        after = before if temperature is None else dice(self.counts(temperature))
        return None if before is None or after is None else after - before


def tally_case(
    models: Sequence[Probabilities], reference_zyx: np.ndarray, before: Mapping[str, Counts]
) -> dict[str, StructureTally]:
    """Tallies of all structures by the mean of ``models``, against the reference's classes on the file's own grid."""
    labels = models[0].info.labels
    names = labels.output_names
    reference = canonical_crop(reference_zyx, models[0])
    is_member = {name: np.isin(np.arange(labels.classes), classes) for name, classes in labels.structures.items()}
    # Whether the class of a winner is the structure's; that of no winner is not.
    painted = np.array([*(labels.painted_classes or range(labels.outputs)), 0])
    has = {name: members[painted] & (np.arange(len(painted)) < labels.outputs) for name, members in is_member.items()}
    adding = {name: _Adding() for name in labels.structures}
    for part in mixed_parts(models, dict.fromkeys(range(len(models)), 1.0)):
        reference_part = reference[part.place]
        is_counted = reference_part != labels.ignored_class
        rows = {names[output]: row for row, output in enumerate(part.outputs)}
        for name in is_member if labels.regions else rows.keys() & is_member.keys():
            is_won = has[name][part.winners]
            levels = np.zeros(reference_part.shape, np.uint8)
            if name in rows:
                levels = levels_of(part.log_odds([rows[name]])[0])
            if not levels.any() and not is_won.any():
                continue
            if labels.regions:
                # A region that is found is painted over the earlier ones, and under the later ones.
                is_paintable = (part.winners < names.index(name)) | (part.winners == labels.outputs)
                is_open = (levels > 0) & is_paintable & ~is_won
            else:
                is_open = (levels > 0) & ((part.winners == 0) | is_won)
            side = np.where(is_counted, np.where(is_member[name][reference_part], INSIDE, OUTSIDE), NOWHERE)
            adding[name].add(levels, side, is_open, is_won)
    return {name: adding[name].tally(Counts(*before[name])) for name in labels.structures}


class _Adding:
    """A tally while parts of the case are added."""

    def __init__(self) -> None:
        self._voxels = np.zeros((2, 3, LEVELS), np.int64)  # fixed or open; counted nowhere, inside or outside; level
        self._fixed = np.zeros(2, np.int64)

    def add(self, levels_zyx: np.ndarray, side_zyx: np.ndarray, is_open: np.ndarray, is_won: np.ndarray) -> None:
        """Adds a part; ``side`` is NOWHERE, INSIDE or OUTSIDE of the reference."""
        kind = (3 * is_open + side_zyx) * LEVELS + levels_zyx
        self._voxels += np.bincount(kind.reshape(-1), minlength=6 * LEVELS).reshape(2, 3, LEVELS)
        is_fixed = is_won & ~is_open
        self._fixed += ((is_fixed & (side_zyx == INSIDE)).sum(), (is_fixed & (side_zyx == OUTSIDE)).sum())

    def tally(self, before: Counts) -> StructureTally:
        everywhere = self._voxels.sum((0, 1))
        if not everywhere[HALF:].any():  # decoding leaves such a case as it is
            return StructureTally(before=before)
        fixed_tp, fixed_fp = self._fixed.tolist()
        return StructureTally(
            before=before,
            everywhere=everywhere,
            inside=self._voxels[:, INSIDE].sum(0),
            outside=self._voxels[:, OUTSIDE].sum(0),
            open_inside=self._voxels[1, INSIDE],
            open_outside=self._voxels[1, OUTSIDE],
            fixed_tp=fixed_tp,
            fixed_fp=fixed_fp,
        )


def calibrated_temperature(tallies: Iterable[StructureTally]) -> float:
    """By which log-odds are to be divided so that they fit the references best, by their likelihood; 1 without any.

    Of voxels that are in doubt: those of the lowest and of the highest level may be of any log-odds beyond.
    """
    every_tally = list(tallies)
    inside = sum((tally.inside for tally in every_tally), start=NO_VOXELS)[1:-1]
    outside = sum((tally.outside for tally in every_tally), start=NO_VOXELS)[1:-1]
    if not inside.any() or not outside.any():
        return 1.0
    log_odds = log_odds_of_levels()[1:-1]

    def loss(scale: float) -> float:
        scaled = log_odds * scale
        return float((inside * np.logaddexp(0, -scaled) + outside * np.logaddexp(0, scaled)).sum())

    lowest, highest = TEMPERATURES
    found = minimize_scalar(loss, bounds=(1 / highest, 1 / lowest), method="bounded")
    return round(1 / float(found.x), DIGITS)


@dataclass(frozen=True, kw_only=True)
class HeldOutCase:
    """Whose case it is, the fold that holds it out, and its tallies by structure."""

    patient: str
    fold: str
    tallies: Mapping[str, StructureTally]


@dataclass(frozen=True, kw_only=True)
class _CrossFitted:
    """The temperature for each fold by the other ones, where these gain by it, and the gain of each patient."""

    temperatures: dict[str, float]
    gains: np.ndarray


def _cross_fitted(
    name: str, cases: Sequence[HeldOutCase], temperature_of: Callable[[Iterable[StructureTally]], float]
) -> _CrossFitted:
    temperatures: dict[str, float] = {}
    for fold in sorted({case.fold for case in cases}):
        others = [case for case in cases if case.fold != fold]
        temperature = temperature_of(case.tallies[name] for case in others)
        if _gain_by(name, others, temperature):
            temperatures[fold] = temperature
    of_cases = [case.tallies[name].gain(temperatures.get(case.fold)) for case in cases]
    return _CrossFitted(temperatures=temperatures, gains=_gains_of_patients(cases, of_cases))


def _gain_by(name: str, cases: Sequence[HeldOutCase], temperature: float) -> bool:
    """Whether a structure's mean over patients rises."""
    gains = _gains_of_patients(cases, [case.tallies[name].gain(temperature) for case in cases])
    return len(gains) > 0 and float(gains.mean()) > 0


def _gains_of_patients(cases: Sequence[HeldOutCase], gains: Sequence[float | None]) -> np.ndarray:
    """Mean gain of each patient that has one, (N,)."""
    of_patient: dict[str, list[float]] = {}
    for case, gain in zip(cases, gains):
        if gain is not None:
            of_patient.setdefault(case.patient, []).append(gain)
    return np.array([np.mean(values) for values in of_patient.values()])


@dataclass(frozen=True, kw_only=True)
class FoundDecoding:
    """What is decoded from now on, what was tried, and the temperatures {fold: {output: T}} that judge each fold."""

    decoding: tuple[DecodedStructure, ...] = ()
    trials: tuple[DecodingTrial, ...] = ()
    held_out: Mapping[str, Mapping[int, float]] = field(default_factory=dict)


def try_structures(cases: Sequence[HeldOutCase], output_names: Sequence[str]) -> FoundDecoding:
    """Each structure by itself; nothing is tried of a single fold, which no other one can judge."""
    if len({case.fold for case in cases}) < 2:
        return FoundDecoding()
    trials = []
    decoding = []
    held_out: dict[str, dict[int, float]] = {case.fold: {} for case in cases}
    for name in cases[0].tallies:
        fitted = _cross_fitted(name, cases, calibrated_temperature)
        uncalibrated = _cross_fitted(name, cases, lambda _: 1.0)
        patients = len(fitted.gains)
        if not patients:  # in no case is there a Dice
            continue
        interval = intervals(resample_means(fitted.gains[:, None]), np.array([patients]), coverage=COVERAGE)[0]
        low, high = interval or (None, None)
        temperature = calibrated_temperature(case.tallies[name] for case in cases)
        is_kept = low is not None and low > 0 and _gain_by(name, cases, temperature)
        trials.append(
            DecodingTrial(
                name=name,
                temperature=temperature,
                gain=float(fitted.gains.mean()),
                low=low,
                high=high,
                gain_uncalibrated=float(uncalibrated.gains.mean()),
                patients=patients,
                is_kept=is_kept,
            )
        )
        if is_kept:
            decoding.append(DecodedStructure(name=name, temperature=temperature))
            for fold, of_fold in fitted.temperatures.items():
                held_out[fold][output_names.index(name)] = of_fold
    return FoundDecoding(decoding=tuple(decoding), trials=tuple(trials), held_out=held_out)


def without_the_weakest(found: FoundDecoding, output_names: Sequence[str]) -> FoundDecoding:
    """The same but for the decoded structure that gains least."""
    kept = [trial for trial in found.trials if trial.is_kept]
    weakest = min(kept, key=lambda trial: trial.gain).name
    output = output_names.index(weakest)
    held_out = {
        fold: {number: value for number, value in of_fold.items() if number != output}
        for fold, of_fold in found.held_out.items()
    }
    trials = [trial.model_copy(update={"is_kept": trial.is_kept and trial.name != weakest}) for trial in found.trials]
    decoding = [decoded for decoded in found.decoding if decoded.name != weakest]
    return FoundDecoding(decoding=tuple(decoding), trials=tuple(trials), held_out=held_out)


def find_decoding(
    work: Path,
    items: Sequence[HeldOut],
    candidate: tuple[str, ...],
    counted: Mapping[str, CaseCounts],
    before: Mapping[str, float | None],
    patient_of: Mapping[str, str],
) -> FoundDecoding:
    """What to decode of the masks of ``candidate``, whose mean Dice of each structure is ``before``.

    ``counted`` are the voxels of all candidates by case, ``patient_of`` the patient of each case.
    """
    cases = []
    labels = None
    for chosen, opened in opened_cases(work, items, candidate, "tallying"):
        case = chosen[0].case
        labels = opened[0].info.labels
        reference = reference_classes(case, labels, opened[0].info.record.original)
        of_case = {name: Counts(*of) for name, of in counted[case.id].counts[SEPARATOR.join(candidate)].items()}
        tallies = tally_case(opened, reference, of_case)
        cases.append(HeldOutCase(patient=patient_of[case.id], fold=chosen[0].fold, tallies=tallies))
    if labels is None:
        return FoundDecoding()
    found = try_structures(cases, labels.output_names)
    # Together, where they claim the same voxels, and with what they paint over.
    while found.decoding:
        pairs = masks_of(work, items, candidate, labels, found.held_out)
        after = mean_dice([joint_counts(reference, classes, labels) for reference, classes in pairs], labels)
        if not _any_falls(before, after):
            break
        found = without_the_weakest(found, labels.output_names)
    return found


def _any_falls(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> bool:
    changes = []
    for name, value in before.items():
        changed = after[name]
        if value is not None and changed is not None:
            changes.append(changed - value)
    return min(changes, default=0) < -ROUNDING
