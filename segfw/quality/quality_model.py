"""What a calibrated model says of its own masks: ``quality.json``, made by ``segfw calibrate``, read by ``predict``.

A predicted Dice (``quality_score``), a lower bound that holds for a stated share of new cases (``conformal``), the
chance that the mask has failed, and a verdict: 'use', 'look' or 'do-not-use'. All of it is promised for images like the
training images, and of single networks: the mean of several is better, so that what is said of it is on the safe side.
"""

# N items

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from segfw.base.records import Record, UserError
from segfw.base.words import count
from segfw.dataset.labels import LabelSet
from segfw.planning.published import TILE_STEP
from segfw.quality.conformal import coverage_spread, one_of_each_patient
from segfw.quality.input_gate import Gate
from segfw.quality.isotonic import IsotonicMap, fit_isotonic
from segfw.quality.model_identity import ModelIdentity
from segfw.quality.patient_quantile import patient_quantile
from segfw.quality.plausible_thresholds import PlausibleThresholds
from segfw.quality.quality_features import Features, Priors, StructurePriors
from segfw.quality.quality_reasons import UsualRange, reasons_for, usual_ranges
from segfw.quality.quality_score import QualityScore, fit_score, inputs_of, without_own_patients
from segfw.quality.selective_rule import UseRule, use_rule
from segfw.quality.volume_intervals import VolumeInterval, fit_volume_interval

CLEAN = "clean"  # the shift of images as they are
LEAST_CASES = 5  # fewer tell nothing
PATIENTS_OF_A_STRUCTURE = 30  # from which on a structure has a bound of its own
SELDOM_ABSENT = 0.05  # share of training masks without a structure, beyond which an empty mask may well be right
LEAST_MARGIN_SCALE = 0.01  # of Dice: no mask is so good that its bound lies closer for certain

Verdict = Literal["use", "look", "do-not-use"]
VERDICTS: tuple[Verdict, ...] = ("use", "look", "do-not-use")


class QualityItem(Record):
    """One structure in one calibration case, as one network that never saw the case found it, with its true Dice.

    ``shift`` is CLEAN or what the image was spoilt by. ``dice`` is None where the structure is in neither mask.
    """

    case: str
    patient: str
    structure: str
    fold: str
    shift: str
    features: Features
    dice: float | None
    true_ml: float
    predicted_ml: float


class LowerBound(Record):
    """How far below the predicted Dice the true one lies at most, for all but a share ``alpha`` of new cases.

    The margin is ``factor`` times what ``margin_scale`` says of the predicted Dice: good masks are foretold more
    closely than bad ones. ``structure`` is None of all structures together. ``patients`` count once each, whatever
    they have; by chance the share itself has a standard deviation of ``spread``. Without ``factor`` there are too few
    patients.
    """

    structure: str | None
    patients: int
    factor: float | None
    spread: float | None


class EmptyMasks(Record):
    """Calibration cases in which nothing was found of a structure, and in how many of them there was nothing."""

    found_nothing: int
    rightly: int


class CalibrationCounts(Record):
    """What a quality model was fitted on; ``items`` are structures in cases, clean and spoilt."""

    cases: int
    patients: int
    items: int
    clean_items: int
    shifts: tuple[str, ...]


class GateSaid(Protocol):
    """What the input gate says of an image."""

    @property
    def verdict(self) -> str: ...
    @property
    def reasons(self) -> Sequence[str]: ...


class StructureQuality(Record):
    """How far the mask of one structure in one case may be trusted.

    ``value`` is that of the label in masks, of a region the one that it is painted as. ``predicted_dice`` and
    ``lower_bound`` are None where nothing was found, and the bound where there were too few patients. ``ranking`` puts
    the worst first: the folds' agreement where there are two or more, else the predicted Dice.
    """

    label: str
    value: int
    predicted_dice: float | None
    lower_bound: float | None
    alpha: float
    p_fail: float
    verdict: Verdict
    ranking: float
    features: dict[str, float | None]
    reasons: tuple[str, ...]
    volume_ml: float
    volume_interval_ml: tuple[float, float] | None = None


class QualityModel(Record):
    """Everything that is needed to judge masks of one configuration of a model."""

    format: Literal["segfw quality 1"] = "segfw quality 1"
    made: str  # day, ISO 8601
    identity: ModelIdentity
    values: dict[str, int]  # of each structure in masks
    counts: CalibrationCounts
    alpha: float
    fail_below: dict[str, float]
    use_target: float
    score: QualityScore
    margin_scale: IsotonicMap
    bounds: tuple[LowerBound, ...]  # of structures, and last of all together
    failure: IsotonicMap
    use_rule: UseRule
    priors: dict[str, StructurePriors]
    usual: dict[str, dict[str, UsualRange]]  # structure -> what its clean masks show
    empty: dict[str, EmptyMasks]
    gate: Gate | None = None
    volumes: dict[str, VolumeInterval] = {}
    plausible: dict[str, PlausibleThresholds] = {}
    notes: tuple[str, ...] = ()
    step: float = TILE_STEP  # of tiles, in calibration
    mirroring: bool = True

    def bound_of(self, structure: str) -> LowerBound:
        """The structure's own bound, or that of all together."""
        own = [bound for bound in self.bounds if bound.structure == structure]
        return own[0] if own else self.bounds[-1]

    def margin(self, structure: str, predicted: float) -> float | None:
        """How far below a predicted Dice the true one lies at most; None of too few patients."""
        factor = self.bound_of(structure).factor
        return None if factor is None else factor * float(self.margin_scale(np.array([predicted]))[0])

    def predicted_dice(self, structure: str, of_members: Sequence[Features], pair: float | None = None) -> float:
        """The mean over members of what each one's features say, and not more than the members agree by pairs."""
        prior = self.priors.get(structure)
        found = [self.score.of(features.against(prior), structure) for features in of_members]
        predicted = sum(found) / len(found)
        return predicted if pair is None else min(predicted, pair)

    def judge(
        self,
        features_by_member: Sequence[Mapping[str, Features]],
        pair: Mapping[str, float] | None = None,
        gate_verdict: GateSaid | None = None,
        *,
        volumes_ml: Mapping[str, float] | None = None,
    ) -> list[StructureQuality]:
        """What is to be thought of each structure's mask in one case.

        Parameters
        ----------
        features_by_member
            Of ``structure_features``, for every network that predicted.
        pair
            Of ``pairwise_dice``; None or empty of a single network.
        gate_verdict
            What the input gate says of the image; anything but 'usual' withdraws 'use'.
        volumes_ml
            Of the mask that was written; by default the mean of the members'.

        Returns
        -------
        list
            In the order of the labels.
        """
        result = []
        for structure, value in self.values.items():
            members = [features[structure].against(self.priors.get(structure)) for features in features_by_member]
            agreement = pair.get(structure) if pair else None
            if volumes_ml is not None and structure in volumes_ml:
                volume_ml = volumes_ml[structure]
            else:
                volume_ml = sum(features.volume_mm3 for features in members) / len(members) / 1000
            if all(features.voxels == 0 for features in members):
                judged = self._empty(structure, members, gate_verdict)
            else:
                judged = self._found(structure, members, agreement, gate_verdict)
            result.append(
                StructureQuality(
                    label=structure,
                    value=value,
                    predicted_dice=judged.predicted,
                    lower_bound=judged.lower,
                    alpha=self.alpha,
                    p_fail=judged.p_fail,
                    verdict=judged.verdict,
                    ranking=judged.ranking,
                    features=_told(members, agreement),
                    reasons=judged.reasons,
                    volume_ml=volume_ml,
                    volume_interval_ml=self.volumes[structure].of(volume_ml) if structure in self.volumes else None,
                )
            )
        return result

    def _found(self, structure: str, members: Sequence[Features], pair: float | None, gate: GateSaid | None) -> _Judged:
        predicted = self.predicted_dice(structure, members, pair)
        margin = self.margin(structure, predicted)
        p_fail = float(self.failure(np.array([predicted]))[0])
        is_odd = gate is not None and gate.verdict != "usual"
        verdict: Verdict = "look"
        threshold = self.use_rule.threshold
        if p_fail > 0.5:
            verdict = "do-not-use"
        elif threshold is not None and predicted >= threshold and not is_odd:
            verdict = "use"
        reasons = reasons_for(members, pair, self.usual.get(structure, {}), self.priors.get(structure))
        if is_odd and gate is not None:
            reasons = [*(f"the image is {gate.verdict}: {reason}" for reason in gate.reasons), *reasons]
        if not reasons and verdict == "look":
            if threshold is None:
                reasons = [f"no mask is released unseen: {self.use_rule.why}"]
            else:
                reasons = [f"its predicted Dice of {predicted:.2f} is below {threshold:.2f}, the least of 'use'"]
        if not reasons and verdict == "do-not-use":
            reasons = [f"its predicted Dice is {predicted:.2f}"]
        return _Judged(
            predicted=predicted,
            lower=None if margin is None else max(0.0, predicted - margin),
            p_fail=p_fail,
            verdict=verdict,
            ranking=predicted if pair is None else pair,
            reasons=tuple(reasons),
        )

    def _empty(self, structure: str, members: Sequence[Features], gate: GateSaid | None) -> _Judged:
        """Of a mask that holds nothing: whether that may be right is all that can be told."""
        prior = self.priors.get(structure)
        seen = self.empty.get(structure, EmptyMasks(found_nothing=0, rightly=0))
        may_be_absent = prior is not None and prior.absent_share > SELDOM_ABSENT
        # One case of either kind is added, so that few cases say little.
        p_fail = 1 - (seen.rightly + 1) / (seen.found_nothing + 2) if may_be_absent else 1.0
        if not may_be_absent:
            reason = "nothing was found of it, and it is in nearly all training masks"
        else:
            nothing = count(seen.found_nothing, "calibration case")
            reason = f"nothing was found of it; so it was in {nothing}, rightly in {seen.rightly} of them"
        reasons = [reason]
        if gate is not None and gate.verdict != "usual":
            reasons += [f"the image is {gate.verdict}: {text}" for text in gate.reasons]
        return _Judged(
            predicted=None,
            lower=None,
            p_fail=p_fail,
            verdict="do-not-use" if p_fail > 0.5 else "look",
            ranking=1 - p_fail,
            reasons=tuple(reasons),
        )


@dataclass(frozen=True, kw_only=True)
class _Judged:
    predicted: float | None
    lower: float | None
    p_fail: float
    verdict: Verdict
    ranking: float
    reasons: tuple[str, ...]


def _told(members: Sequence[Features], pair: float | None) -> dict[str, float | None]:
    """Means of features over members, for the record of the case."""
    told: dict[str, float | None] = {"pair": pair}
    for name in Features.model_fields:
        if name in ("voxels", "volume_mm3", "offset_mm"):
            continue
        values = [getattr(features, name) for features in members]
        present = [float(value) for value in values if value is not None]
        told[name] = sum(present) / len(present) if present else None
    return told


# ---- fitting ----


@dataclass(frozen=True, kw_only=True)
class QualityRequest:
    """What a quality model shall say: the share of cases that its bounds may miss, what counts as failed, the largest
    share of failed masks among those of verdict 'use'."""

    alpha: float = 0.1
    fail_below: Mapping[str, float]
    use_target: float = 0.05
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class FittedQuality:
    """A quality model, and what it says of its own calibration items without having seen their patients.

    ``items`` are those with a Dice; ``predicted`` (N,) their predicted Dice and ``lower`` (N,) its bound, NaN where
    there is none, both by what was learned of other patients.
    """

    model: QualityModel
    items: tuple[QualityItem, ...]
    predicted: np.ndarray
    lower: np.ndarray
    is_wrong: np.ndarray


def fit_quality(
    items: Sequence[QualityItem],
    labels: LabelSet,
    identity: ModelIdentity,
    priors: Priors,
    priors_without: Mapping[str, Priors],
    request: QualityRequest,
    *,
    made: str,
    shifts: Sequence[str] = (),
    gate: Gate | None = None,
    plausible: Mapping[str, PlausibleThresholds] | None = None,
    notes: Sequence[str] = (),
) -> FittedQuality:
    """Learns everything that a quality model says.

    Parameters
    ----------
    items
        Clean and spoilt, each by networks that did not see the case.
    labels
        Of the model.
    identity
        Of the model, by which others are told apart.
    priors
        Of all training masks.
    priors_without
        By patient, of the masks of all others: a mask is not measured against itself.
    request
        What is to be said.
    made
        The day.
    shifts
        By which images were spoilt.
    gate
        Of the training images.
    plausible
        By structure, thresholds of its inner and outer mask.
    notes
        What a reader should know.

    Returns
    -------
    FittedQuality
        The model and what it says of the items.

    Raises
    ------
    UserError
        If there are fewer than LEAST_CASES cases with any structure.
    """
    measured = [
        item.model_copy(
            update={"features": item.features.against(priors_without.get(item.patient, priors).get(item.structure))}
        )
        for item in items
    ]
    scored = [item for item in measured if item.dice is not None and item.features.voxels]
    require_enough(scored)

    # The predicted Dice, of each item without its patient
    inputs = inputs_of([item.features for item in scored])
    structures = [item.structure for item in scored]
    patients = [item.patient for item in scored]
    dice = np.array([item.dice for item in scored], dtype=float)
    is_clean = np.array([item.shift == CLEAN for item in scored])
    weights = _weights(is_clean)
    score = fit_score(inputs, structures, dice, weights, patients, request.seed)
    predicted, groups = without_own_patients(inputs, structures, dice, weights, patients, request.seed)

    # Bounds, from clean items
    scale = _margin_scale(predicted, dice, weights)
    scaled = np.empty(len(dice))
    for group in range(groups.max() + 1):
        is_out = groups == group
        own = _margin_scale(predicted[~is_out], dice[~is_out], weights[~is_out])
        scaled[is_out] = (predicted[is_out] - dice[is_out]) / own(predicted[is_out])
    bounds = _bounds(scaled, structures, patients, is_clean, labels, request)
    lower = _lower_without_own(scaled, scored, predicted, groups, scale, labels, request)

    # Failures and the rule of use
    limits = np.array([request.fail_below[name] for name in structures])
    is_wrong = dice < limits
    failure = fit_isotonic(predicted, is_wrong.astype(float), weights, is_rising=False)
    clean = np.flatnonzero(is_clean)
    chosen = clean[one_of_each_patient([patients[index] for index in clean], request.seed)]
    rule = use_rule(predicted[chosen], is_wrong[chosen], request.use_target)

    clean_items = [item for item in scored if item.shift == CLEAN]
    model = QualityModel(
        made=made,
        identity=identity,
        values=values_in_masks(labels),
        counts=CalibrationCounts(
            cases=len({item.case for item in scored}),
            patients=len(set(patients)),
            items=len(scored),
            clean_items=len(clean_items),
            shifts=tuple(shifts),
        ),
        alpha=request.alpha,
        fail_below=dict(request.fail_below),
        use_target=request.use_target,
        score=score,
        margin_scale=scale,
        bounds=tuple(bounds),
        failure=failure,
        use_rule=rule,
        priors=dict(priors),
        usual=usual_ranges([(item.structure, item.features) for item in clean_items]),
        empty=_empty_masks(items, labels),
        gate=gate,
        volumes=_volumes(items, labels, request.alpha),
        plausible=dict(plausible or {}),
        notes=tuple(notes),
    )
    return FittedQuality(model=model, items=tuple(scored), predicted=predicted, lower=lower, is_wrong=is_wrong)


def require_enough(items: Sequence[QualityItem]) -> None:
    """UserError of fewer than LEAST_CASES cases, or of one patient, who cannot be left out."""
    cases = len({item.case for item in items})
    patients = len({item.patient for item in items})
    if cases < LEAST_CASES:
        raise UserError(
            f"{count(cases, 'calibration case')} with a mask of any structure {'is' if cases == 1 else 'are'} too few "
            f"to learn quality from; at least {LEAST_CASES} are needed: train more folds, or give more with --cases"
        )
    if patients < 2:
        raise UserError("all calibration cases are of one patient, who tells nothing of others; give cases of more")


def values_in_masks(labels: LabelSet) -> dict[str, int]:
    """The value of every structure in masks; of a region the one that it is painted as."""
    if labels.regions:
        return {region.name: region.painted for region in labels.regions}
    return {name: labels.values[index] for name, index in labels.foreground.items()}


def _weights(is_clean_n: np.ndarray) -> np.ndarray:
    """Spoilt items together count as much as the clean ones: they are there for what clean ones do not show."""
    spoilt = int((~is_clean_n).sum())
    clean = int(is_clean_n.sum())
    if not spoilt or not clean:
        return np.ones(len(is_clean_n))
    return np.where(is_clean_n, 1.0, clean / spoilt)


def _margin_scale(predicted_n: np.ndarray, dice_n: np.ndarray, weights_n: np.ndarray) -> IsotonicMap:
    """By how much predictions of a Dice miss, on average: less where more is predicted."""
    missed = np.maximum(np.abs(predicted_n - dice_n), LEAST_MARGIN_SCALE)
    return fit_isotonic(predicted_n, missed, weights_n, is_rising=False)


def _bounds(
    scaled_n: np.ndarray,
    structures: Sequence[str],
    patients: Sequence[str],
    is_clean_n: np.ndarray,
    labels: LabelSet,
    request: QualityRequest,
) -> list[LowerBound]:
    """Of each structure that enough patients have, and of all together."""
    bounds = []
    for structure in (*labels.structures, None):
        rows = [
            index
            for index in np.flatnonzero(is_clean_n).tolist()
            if structure is None or structures[index] == structure
        ]
        of = [patients[row] for row in rows]
        number = len(set(of))
        if structure is not None and number < PATIENTS_OF_A_STRUCTURE:
            continue
        quantile = patient_quantile(scaled_n[rows], of, 1 - request.alpha)
        factor = quantile if np.isfinite(quantile) else None
        bounds.append(
            LowerBound(
                structure=structure,
                patients=number,
                factor=factor,
                spread=None if factor is None else coverage_spread(number, request.alpha),
            )
        )
    return bounds


def _lower_without_own(
    scaled_n: np.ndarray,
    items: Sequence[QualityItem],
    predicted_n: np.ndarray,
    groups_n: np.ndarray,
    scale: IsotonicMap,
    labels: LabelSet,
    request: QualityRequest,
) -> np.ndarray:
    """The bound (N,) of every item by the residuals of other patients; NaN where these are too few."""
    structures = [item.structure for item in items]
    patients = [item.patient for item in items]
    is_clean = np.array([item.shift == CLEAN for item in items])
    lower = np.full(len(items), np.nan)
    for group in range(groups_n.max() + 1):
        is_out = groups_n == group
        bounds = _bounds(scaled_n, structures, patients, is_clean & ~is_out, labels, request)
        factor_of = {bound.structure: bound.factor for bound in bounds}
        for index in np.flatnonzero(is_out).tolist():
            factor = factor_of.get(structures[index], factor_of[None])
            if factor is not None:
                margin = factor * float(scale(predicted_n[[index]])[0])
                lower[index] = max(0.0, predicted_n[index] - margin)
    return lower


def _empty_masks(items: Sequence[QualityItem], labels: LabelSet) -> dict[str, EmptyMasks]:
    found = {}
    for structure in labels.structures:
        empty = [
            item for item in items if item.structure == structure and item.shift == CLEAN and not item.features.voxels
        ]
        found[structure] = EmptyMasks(found_nothing=len(empty), rightly=sum(item.dice is None for item in empty))
    return found


def _volumes(items: Sequence[QualityItem], labels: LabelSet, alpha: float) -> dict[str, VolumeInterval]:
    intervals = {}
    for structure in labels.structures:
        own = [item for item in items if item.structure == structure and item.shift == CLEAN]
        intervals[structure] = fit_volume_interval(
            [item.true_ml for item in own],
            [item.predicted_ml for item in own],
            [item.patient for item in own],
            alpha,
        )
    return intervals
