"""How a quality model is learned from calibration items, and what it says of them without having seen the patient."""

# N items, F inputs

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.labels import LabelSet
from segfw.quality.conformal import coverage_spread, one_of_each_patient
from segfw.quality.input_gate import Gate
from segfw.quality.isotonic import IsotonicMap, fit_isotonic
from segfw.quality.model_identity import ModelIdentity
from segfw.quality.patient_quantile import patient_quantile
from segfw.quality.plausible_thresholds import PlausibleThresholds
from segfw.quality.quality_features import Priors
from segfw.quality.quality_model import CLEAN, CalibrationCounts, EmptyMasks, LowerBound, QualityItem, QualityModel
from segfw.quality.quality_reasons import usual_ranges
from segfw.quality.quality_score import LearnedFrom, fit_score, inputs_of, without_own_patients
from segfw.quality.selective_rule import use_rule
from segfw.quality.volume_intervals import VolumeInterval, fit_volume_interval

LEAST_CASES = 5  # fewer tell nothing
PATIENTS_OF_A_STRUCTURE = 30  # from which on a structure has a bound of its own
LEAST_MISS = 0.01  # of Dice: no mask is foretold more closely


class TooFewCases(UserError):
    """Too little to learn quality from."""


@dataclass(frozen=True, kw_only=True)
class QualityRequest:
    """What a quality model shall say.

    ``alpha`` is the share of masks that its bounds may miss, ``fail_below`` the Dice of each structure that counts as
    failed, ``use_target`` the largest share of failed masks among those of verdict 'use'.
    """

    alpha: float = 0.1
    fail_below: Mapping[str, float]
    use_target: float = 0.05
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ScoredItems:
    """Calibration items with a mask and a Dice, and what is learned from of each, (N,) or (N, F)."""

    items: tuple[QualityItem, ...]
    inputs: np.ndarray
    dice: np.ndarray
    is_clean: np.ndarray
    is_wrong: np.ndarray

    @staticmethod
    def of(items: Sequence[QualityItem], fail_below: Mapping[str, float]) -> ScoredItems:
        """Of the items that have both."""
        scored = tuple(item for item in items if item.dice is not None and item.features.voxels)
        dice = np.array([item.dice for item in scored], dtype=float)
        limits = np.array([fail_below[item.structure] for item in scored])
        return ScoredItems(
            items=scored,
            inputs=inputs_of([item.features for item in scored]),
            dice=dice,
            is_clean=np.array([item.shift == CLEAN for item in scored], dtype=bool),
            is_wrong=dice < limits,
        )

    @property
    def structures(self) -> list[str]:
        """Of each item."""
        return [item.structure for item in self.items]

    @property
    def patients(self) -> list[str]:
        """Of each item."""
        return [item.patient for item in self.items]

    @property
    def learned_from(self) -> LearnedFrom:
        """What the predicted Dice is learned from."""
        return LearnedFrom(
            inputs=self.inputs,
            structures=self.structures,
            patients=self.patients,
            dice=self.dice,
            weights=self.weights,
            is_clean=self.is_clean,
        )

    @property
    def weights(self) -> np.ndarray:
        """Spoilt items together count as much as the clean ones: they are there for what clean ones do not show."""
        spoilt = int((~self.is_clean).sum())
        clean = int(self.is_clean.sum())
        if not spoilt or not clean:
            return np.ones(len(self.items))
        return np.where(self.is_clean, 1.0, clean / spoilt)


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """What is said of every item by what was learned of other patients, (N,).

    ``groups`` number the patients that were left out together. ``misses`` are predicted less true Dice, in units of how
    far predictions like it miss on average; ``lower`` is the bound, NaN where other patients are too few for one.
    """

    predicted: np.ndarray
    groups: np.ndarray
    misses: np.ndarray
    lower: np.ndarray


@dataclass(frozen=True, kw_only=True)
class FittedQuality:
    """A quality model, the items that it was learned from, and what is said of them without their own patients."""

    model: QualityModel
    scored: ScoredItems
    foretold: Foretold
    request: QualityRequest


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
    TooFewCases
        If fewer than LEAST_CASES cases have any structure, all are of one patient, or only spoilt images have masks.
    """
    measured = []
    for item in items:
        prior = priors_without.get(item.patient, priors).get(item.structure)
        measured.append(item.model_copy(update={"features": item.features.against(prior)}))
    scored = ScoredItems.of(measured, request.fail_below)
    require_cases(len({item.case for item in scored.items}), len(set(scored.patients)))
    if not scored.is_clean.any():
        raise TooFewCases("nothing was found in any calibration image as it is, so that there is no mask to learn from")
    foretold = foretell(scored, request)

    # Bounds and failures
    weights = scored.weights
    failure = fit_isotonic(foretold.predicted, scored.is_wrong.astype(float), weights, is_rising=False)
    # The rule of use, of one clean item of each patient
    clean = np.flatnonzero(scored.is_clean)
    patients = scored.patients
    chosen = clean[one_of_each_patient([patients[index] for index in clean], request.seed)]
    rule = use_rule(foretold.predicted[chosen], scored.is_wrong[chosen], request.use_target)

    clean_items = [item for item in scored.items if item.shift == CLEAN]
    model = QualityModel(
        made=made,
        identity=identity,
        values=values_in_masks(labels),
        counts=CalibrationCounts(
            cases=len({item.case for item in scored.items}),
            patients=len(set(patients)),
            items=len(scored.items),
            clean_items=len(clean_items),
            shifts=tuple(shifts),
        ),
        alpha=request.alpha,
        fail_below=dict(request.fail_below),
        use_target=request.use_target,
        score=fit_score(scored.learned_from, request.seed),
        margin_scale=_margin_scale(foretold.predicted, scored.dice, weights),
        bounds=tuple(_bounds(foretold.misses, scored, scored.is_clean, request.alpha)),
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
    return FittedQuality(model=model, scored=scored, foretold=foretold, request=request)


def foretell(scored: ScoredItems, request: QualityRequest, without_shift: str | None = None) -> Foretold:
    """What is said of every item by what is learned of the others.

    Parameters
    ----------
    scored
        All items.
    request
        What is to be said.
    without_shift
        A shift of which nothing is learned: what is said of its items is said of something never seen.

    Returns
    -------
    Foretold
        Of all items, those of that shift too.
    """
    learns = np.array([item.shift != without_shift for item in scored.items])
    weights = scored.weights
    predicted, groups = without_own_patients(scored.learned_from, request.seed, learns_n=learns)
    # By how much predictions like it miss, and how often they miss by more, both of other patients
    misses = np.empty(len(predicted))
    lower = np.full(len(predicted), np.nan)
    for group in range(groups.max() + 1):
        is_out = groups == group
        others = learns & ~is_out
        scale = _margin_scale(predicted[others], scored.dice[others], weights[others])
        misses[is_out] = (predicted[is_out] - scored.dice[is_out]) / scale(predicted[is_out])
    for group in range(groups.max() + 1):
        is_out = groups == group
        others = learns & ~is_out
        scale = _margin_scale(predicted[others], scored.dice[others], weights[others])
        bounds = _bounds(misses, scored, scored.is_clean & ~is_out, request.alpha)
        factor_of = {bound.structure: bound.factor for bound in bounds}
        for index in np.flatnonzero(is_out).tolist():
            factor = factor_of.get(scored.items[index].structure, factor_of[None])
            if factor is not None:
                margin = factor * float(scale(predicted[[index]])[0])
                lower[index] = max(0.0, predicted[index] - margin)
    return Foretold(predicted=predicted, groups=groups, misses=misses, lower=lower)


def require_cases(cases: int, patients: int) -> None:
    """TooFewCases of fewer than LEAST_CASES, or of one patient, who cannot be left out."""
    if cases < LEAST_CASES:
        raise TooFewCases(
            f"{count(cases, 'calibration case')} {'is' if cases == 1 else 'are'} too few to learn quality from; at "
            f"least {LEAST_CASES} are needed: train more folds, or give more with --cases"
        )
    if patients < 2:
        raise TooFewCases("all calibration cases are of one patient, who tells nothing of others; give cases of more")


def values_in_masks(labels: LabelSet) -> dict[str, int]:
    """The value of every structure in masks; of a region the one that it is painted as."""
    if labels.regions:
        return {region.name: region.painted for region in labels.regions}
    return {name: labels.values[index] for name, index in labels.foreground.items()}


def _margin_scale(predicted_n: np.ndarray, dice_n: np.ndarray, weights_n: np.ndarray) -> IsotonicMap:
    """By how much predictions of a Dice miss, on average: less where more is predicted."""
    missed = np.maximum(np.abs(predicted_n - dice_n), LEAST_MISS)
    return fit_isotonic(predicted_n, missed, weights_n, is_rising=False)


def _bounds(misses_n: np.ndarray, scored: ScoredItems, counts_n: np.ndarray, alpha: float) -> list[LowerBound]:
    """Of each structure that enough patients have, and last of all together, from the items that count."""
    structures = scored.structures
    patients = scored.patients
    bounds = []
    for structure in (*sorted(set(structures)), None):
        is_own = np.array([structure is None or name == structure for name in structures])
        rows = np.flatnonzero(counts_n & is_own).tolist()
        of = [patients[row] for row in rows]
        number = len(set(of))
        if structure is not None and number < PATIENTS_OF_A_STRUCTURE:
            continue
        quantile = patient_quantile(misses_n[rows], of, 1 - alpha) if rows else np.inf
        factor = float(quantile) if np.isfinite(quantile) else None
        bounds.append(
            LowerBound(
                structure=structure,
                patients=number,
                factor=factor,
                spread=None if factor is None else coverage_spread(number, alpha),
            )
        )
    return bounds


def _empty_masks(items: Sequence[QualityItem], labels: LabelSet) -> dict[str, EmptyMasks]:
    found = {}
    for structure in labels.structures:
        empty = [
            item for item in items if item.structure == structure and item.shift == CLEAN and not item.features.voxels
        ]
        # Of a case that several folds predicted there is one, as in the words that tell of it.
        found[structure] = EmptyMasks(
            found_nothing=len({item.case for item in empty}),
            rightly=len({item.case for item in empty if item.dice is None}),
        )
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
