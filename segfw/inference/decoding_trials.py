"""Of which structures the mask of largest expected Dice is better in cases that the networks did not see.

What a fold is judged by is found in the other folds: whether the structure gains, and by which temperature, 1 or the
one that makes probabilities agree best with references. (Calibrated ones are not always better: voxels are not
independent, and where a network is wrong it mostly is in many of them at once.) A structure is decoded if the lower end
of the 90 % interval of its gain over patients is above 0, all cases together choose it as well, and in the finished
masks, after postprocessing, no structure's mean falls and some structure's rises.
"""

# L levels of probability, Z Y X space

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from segfw.dataset.annotated_structures import is_annotated
from segfw.dataset.labels import LabelSet
from segfw.evaluation.confusion import Counts, dice
from segfw.evaluation.statistics import intervals, resample_means
from segfw.grid.expected_dice import HALF, LEVELS, NEVER, levels_of, log_odds_of_levels, threshold_level
from segfw.inference.averaging import canonical_crop, mixed_parts
from segfw.inference.held_out import HeldOut
from segfw.inference.held_out_counts import CaseCounts, cases_of, masks_of, opened_cases, reference_classes
from segfw.inference.postprocessing_trials import find_postprocessing, is_better
from segfw.inference.probabilities import Probabilities
from segfw.model.postprocess import DecodedStructure, Postprocessing
from segfw.model.selection import SEPARATOR, DecodingTrial, Trial

COVERAGE = 0.9  # of the interval whose lower end decides
CALIBRATED = (0.2, 5.0)  # between these the calibrated temperature is looked for
AS_THEY_ARE = 1.0  # the temperature of probabilities that stay as the network gives them
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
        return AS_THEY_ARE
    log_odds = log_odds_of_levels()[1:-1]

    def loss(scale: float) -> float:
        scaled = log_odds * scale
        return float((inside * np.logaddexp(0, -scaled) + outside * np.logaddexp(0, scaled)).sum())

    lowest, highest = CALIBRATED
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


def _cross_fitted(name: str, cases: Sequence[HeldOutCase]) -> _CrossFitted:
    temperatures: dict[str, float] = {}
    for fold in sorted({case.fold for case in cases}):
        temperature = _best_temperature(name, [case for case in cases if case.fold != fold])
        if temperature is not None:
            temperatures[fold] = temperature
    of_cases = [case.tallies[name].gain(temperatures.get(case.fold)) for case in cases]
    return _CrossFitted(temperatures=temperatures, gains=_gains_of_patients(cases, of_cases))


def _best_temperature(name: str, cases: Sequence[HeldOutCase]) -> float | None:
    """By which of two a structure's mean over patients rises more, of equals 1; None where it rises by neither."""
    best = None
    most = 0.0
    for temperature in (AS_THEY_ARE, calibrated_temperature(case.tallies[name] for case in cases)):
        gains = _gains_of_patients(cases, [case.tallies[name].gain(temperature) for case in cases])
        gain = float(gains.mean()) if len(gains) else 0.0
        if gain > most:
            most = gain
            best = temperature
    return best


def _calibrated_gains(name: str, cases: Sequence[HeldOutCase]) -> np.ndarray:
    """The gain of each patient, whether the other folds gain or not, by the temperature that is calibrated on them."""
    temperature_of = {
        fold: calibrated_temperature(case.tallies[name] for case in cases if case.fold != fold)
        for fold in {case.fold for case in cases}
    }
    return _gains_of_patients(cases, [case.tallies[name].gain(temperature_of[case.fold]) for case in cases])


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
        fitted = _cross_fitted(name, cases)
        patients = len(fitted.gains)
        if not patients:  # in no case is there a Dice
            continue
        interval = intervals(resample_means(fitted.gains[:, None]), np.array([patients]), coverage=COVERAGE)[0]
        low, high = interval or (None, None)
        temperature = _best_temperature(name, cases)
        is_kept = low is not None and low > 0 and temperature is not None
        as_they_are = _gains_of_patients(cases, [case.tallies[name].gain(AS_THEY_ARE) for case in cases])
        trials.append(
            DecodingTrial(
                name=name,
                temperature=temperature,
                gain=float(fitted.gains.mean()),
                low=low,
                high=high,
                calibrated=calibrated_temperature(case.tallies[name] for case in cases),
                gain_calibrated=float(_calibrated_gains(name, cases).mean()),
                gain_uncalibrated=float(as_they_are.mean()),
                patients=patients,
                is_kept=is_kept,
            )
        )
        if is_kept and temperature is not None:
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


@dataclass(frozen=True, kw_only=True)
class FoundRule:
    """How masks are made of a candidate's probabilities, what was tried for it, and the mean Dice of each structure."""

    postprocessing: Postprocessing
    trials: tuple[Trial, ...]
    decoding_trials: tuple[DecodingTrial, ...]
    dice_of: Mapping[str, float | None]


def find_rule(
    work: Path,
    items: Sequence[HeldOut],
    candidate: tuple[str, ...],
    labels: LabelSet,
    counted: Mapping[str, CaseCounts],
    patient_of: Mapping[str, str],
) -> FoundRule:
    """Which structures of a candidate are decoded for their expected Dice, and which postprocessing helps then.

    ``counted`` are the voxels of all candidates by case, ``patient_of`` the patient of each case.
    """
    found = try_structures(tallied_cases(work, items, candidate, counted, patient_of), labels.output_names)
    plain = _finished(work, items, candidate, labels, replace(found, decoding=(), held_out={}))
    while found.decoding:
        decoded = _finished(work, items, candidate, labels, found)
        if is_better(decoded.dice_of, plain.dice_of):
            return decoded
        found = without_the_weakest(found, labels.output_names)
    return replace(plain, decoding_trials=found.trials)


def tallied_cases(
    work: Path,
    items: Sequence[HeldOut],
    candidate: tuple[str, ...],
    counted: Mapping[str, CaseCounts],
    patient_of: Mapping[str, str],
) -> list[HeldOutCase]:
    """All cases with their tallies by one candidate."""
    cases = []
    for chosen, opened in opened_cases(work, items, candidate, "tallying"):
        case = chosen[0].case
        reference = reference_classes(case, opened[0].info.labels, opened[0].info.record.original)
        before = {name: Counts(*of) for name, of in counted[case.id].counts[SEPARATOR.join(candidate)].items()}
        tallies = tally_case(opened, reference, before)
        # Where nobody drew a structure, its voxels tell nothing of its probabilities.
        tallies |= {name: StructureTally(before=before[name]) for name in tallies if not is_annotated(case, name)}
        cases.append(HeldOutCase(patient=patient_of[case.id], fold=chosen[0].fold, tallies=tallies))
    return cases


def _finished(
    work: Path, items: Sequence[HeldOut], candidate: tuple[str, ...], labels: LabelSet, found: FoundDecoding
) -> FoundRule:
    """With the postprocessing that helps after what was found to be decoded."""
    pairs = masks_of(work, items, candidate, labels, found.held_out)
    annotated = [case.annotated for case in cases_of(items, candidate)]
    steps, trials, dice_of = find_postprocessing(pairs, labels, annotated)
    return FoundRule(
        postprocessing=steps.model_copy(update={"decoding": found.decoding}),
        trials=tuple(trials),
        decoding_trials=found.trials,
        dice_of=dice_of,
    )
