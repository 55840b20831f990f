"""What quality models say of the masks of kept-out patients, and what is true of them.

Legend: S quality models, each fitted on drawn patients of the calibration; J masks (a structure in an image).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.trust.kept_cases import KeptCase, TrustedModel
from segfw.quality.calibrated_quality import quality_of_cases
from segfw.quality.calibration_pass import CalibratedCase, CalibrationPass
from segfw.quality.quality_features import Features, Priors
from segfw.quality.quality_fitting import QualityRequest
from segfw.quality.quality_model import CLEAN, QualityModel
from segfw.quality.quality_score import inputs_of

SPLITS = 20
SHARE = 0.8  # of the calibration's patients, on which each model is fitted
FAIL_BELOW = 0.7
SHIPPED = "shipped ranking"
PREDICTED = "predicted Dice"
PAIR = "pairwise fold Dice"
VOLUME_Z = "volume z alone"
CONSTANT = "mean Dice of the structure (constant)"
ARE_DICE = (SHIPPED, PREDICTED, PAIR, CONSTANT, "soft Dice")
# Baselines by a feature, as means over the folds; the sign makes more of it better.
OF_FEATURES = {
    "soft Dice": ("soft", 1),
    "entropy inside": ("entropy", -1),
    "mean entropy of the image (MONAI Label)": ("image_entropy", -1),
    "doubtful voxels (AbdomenAtlas)": ("doubtful_voxels", -1),
    VOLUME_Z: ("volume_z", -1),
}


@dataclass(frozen=True, kw_only=True)
class Split:
    """A quality model of drawn patients, and one for each shift that never saw that shift."""

    model: QualityModel
    without: Mapping[str, QualityModel]
    clean_dice: Mapping[str, float]  # mean of each structure in the calibration's clean masks


@dataclass(frozen=True, kw_only=True)
class KeptMasks:
    """Masks of kept-out patients, (J,); what S models say of them, (S, J), or (1, J) where it does not depend on them.

    NaN is what a model does not say. ``used`` are of verdict 'use'; ``unseen_lower`` is the bound by the model that
    never saw the mask's shift, NaN of clean ones.
    """

    shift: np.ndarray
    structure: np.ndarray
    patient: np.ndarray
    dice: np.ndarray
    is_wrong: np.ndarray
    scores: Mapping[str, np.ndarray]
    lower: np.ndarray
    unseen_lower: np.ndarray
    unseen_predicted: np.ndarray
    used: np.ndarray

    def of(self, is_chosen: np.ndarray) -> KeptMasks:
        """Some of them."""
        return KeptMasks(
            shift=self.shift[is_chosen],
            structure=self.structure[is_chosen],
            patient=self.patient[is_chosen],
            dice=self.dice[is_chosen],
            is_wrong=self.is_wrong[is_chosen],
            scores={name: values[:, is_chosen] for name, values in self.scores.items()},
            lower=self.lower[:, is_chosen],
            unseen_lower=self.unseen_lower[:, is_chosen],
            unseen_predicted=self.unseen_predicted[:, is_chosen],
            used=self.used[:, is_chosen],
        )


def fitted_splits(
    model: TrustedModel,
    calibration: Sequence[CalibratedCase],
    splits: int = SPLITS,
    *,
    fail_below: float = FAIL_BELOW,
    leaves_shifts_out: bool = True,
) -> list[Split]:
    """Quality models of SHARE of the calibration's patients each, drawn anew; also of such that never saw one shift."""
    request = QualityRequest(fail_below=dict.fromkeys(model.labels.structures, fail_below))
    patients = sorted({model.patient_of[case.case] for case in calibration})
    number = max(2, round(SHARE * len(patients)))
    found = []
    for seed in range(splits):
        chosen = set(np.random.default_rng(seed).choice(patients, number, replace=False).tolist())
        cases = [case for case in calibration if model.patient_of[case.case] in chosen]
        without = {}
        for shift in model.shifts if leaves_shifts_out else ():
            seen = [_without(case, shift) for case in cases]
            without[shift] = _fit(model, seen, request)
        found.append(Split(model=_fit(model, cases, request), without=without, clean_dice=_clean_dice(model, cases)))
    return found


def _fit(model: TrustedModel, cases: Sequence[CalibratedCase], request: QualityRequest) -> QualityModel:
    fitted = quality_of_cases(cases, model.patient_of, model.labels, model.identity, request, made="2026-01-01")
    return fitted.model


def _without(case: CalibratedCase, shift: str) -> CalibratedCase:
    passes = tuple(one for one in case.passes if one.shift != shift)
    return case.model_copy(update={"passes": passes})


def _clean_dice(model: TrustedModel, cases: Sequence[CalibratedCase]) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in model.labels.structures}
    for case in cases:
        for one in case.passes:
            if one.shift == CLEAN:
                for structures in one.folds.values():
                    for name, measured in structures.items():
                        if measured.dice is not None:
                            found[name].append(measured.dice)
    return {name: float(np.mean(values)) if values else np.nan for name, values in found.items()}


@dataclass(frozen=True, kw_only=True)
class _Mask:
    """A mask of the mean of some folds, or of one, before any model says something of it."""

    case: str
    found: CalibrationPass
    folds: tuple[str, ...]
    structure: str
    dice: float


def gate_scores(kept: Sequence[KeptCase], splits: Sequence[Split]) -> dict[tuple[str, str], np.ndarray]:
    """Score (S,) of every image, by case and shift, by each model's gate: above 1 it is odd; NaN without a gate."""
    places = [(case.found.case, shift) for case in kept for shift in case.fingerprints]
    fingerprints = [fingerprint for case in kept for fingerprint in case.fingerprints.values()]
    rows = []
    for split in splits:
        gate = split.model.gate
        said = [] if gate is None else gate.look_at(fingerprints)
        rows.append([verdict.score for verdict in said] or [np.nan] * len(places))
    return dict(zip(places, np.array(rows).T))


def kept_masks(
    model: TrustedModel,
    kept: Sequence[KeptCase],
    splits: Sequence[Split],
    gates: Mapping[tuple[str, str], np.ndarray],
) -> KeptMasks:
    """The masks of the mean of all folds."""
    masks = []
    for case in kept:
        for one in case.found.passes:
            for structure in model.labels.structures:
                folds = tuple(one.folds)
                dice = one.mean_dice[structure] if len(folds) > 1 else one.folds[folds[0]][structure].dice
                if dice is not None:
                    masks.append(_Mask(case=case.found.case, found=one, folds=folds, structure=structure, dice=dice))
    return _judged(model, masks, splits, gates)


def masks_of_one_fold(
    model: TrustedModel,
    kept: Sequence[KeptCase],
    splits: Sequence[Split],
    gates: Mapping[tuple[str, str], np.ndarray],
) -> KeptMasks:
    """The masks of every fold by itself, as of a model with one fold."""
    masks = []
    for case in kept:
        for one in case.found.passes:
            for fold, structures in one.folds.items():
                for structure, measured in structures.items():
                    if measured.dice is not None:
                        masks.append(
                            _Mask(
                                case=case.found.case,
                                found=one,
                                folds=(fold,),
                                structure=structure,
                                dice=measured.dice,
                            )
                        )
    return _judged(model, masks, splits, gates)


def _judged(
    model: TrustedModel,
    masks: Sequence[_Mask],
    splits: Sequence[Split],
    gates: Mapping[tuple[str, str], np.ndarray],
) -> KeptMasks:
    """What every model says, as ``QualityModel.judge`` does; all masks at once, since there are thousands."""
    shift = np.array([mask.found.shift for mask in masks])
    structures = [mask.structure for mask in masks]
    has_pair = any(len(mask.folds) > 1 for mask in masks)
    pair = np.array([mask.found.pair[mask.structure] if has_pair else np.nan for mask in masks])
    nothing = np.full((len(splits), len(masks)), np.nan)
    scores = {
        SHIPPED: nothing.copy(),
        PREDICTED: nothing.copy(),
        CONSTANT: np.array([[split.clean_dice[structure] for structure in structures] for split in splits]),
    }
    lower = nothing.copy()
    unseen_lower = nothing.copy()
    unseen_predicted = nothing.copy()
    used = np.zeros(nothing.shape, bool)
    of_features: dict[str, list[np.ndarray]] = {title: [] for title in OF_FEATURES}
    for row, split in enumerate(splits):
        members = _Members.of(masks, split.model.priors)
        for title, (feature, sign) in OF_FEATURES.items():
            of_features[title].append(sign * members.mean_of(feature))
        is_odd = np.array([gates[(mask.case, mask.found.shift)][row] > 1 for mask in masks])
        predicted = np.where(members.is_empty, np.nan, np.fmin(members.predicted(split.model), pair))
        scores[PREDICTED][row] = predicted
        scores[SHIPPED][row] = predicted
        lower[row] = _lower(split.model, structures, predicted)
        threshold = split.model.use_rule.threshold
        if threshold is not None:
            with np.errstate(invalid="ignore"):
                used[row] = (predicted >= threshold) & ~is_odd & (split.model.failure(predicted) <= 0.5)
        for place in np.flatnonzero(members.is_empty).tolist():
            mask = masks[place]
            features = [{name: one.features for name, one in mask.found.folds[fold].items()} for fold in mask.folds]
            said = split.model.judge(features, mask.found.pair or None)
            scores[SHIPPED][row, place] = said[list(split.model.values).index(mask.structure)].ranking
        for name, unseen in split.without.items():
            is_own = shift == name
            found = np.where(members.is_empty, np.nan, np.fmin(members.predicted(unseen), pair))
            unseen_predicted[row, is_own] = found[is_own]
            unseen_lower[row, is_own] = _lower(unseen, structures, found)[is_own]
    if has_pair:
        scores[PAIR] = pair[None]
    for title, rows in of_features.items():
        own_sj = np.array(rows)
        scores[title] = own_sj if title == VOLUME_Z else own_sj[:1]  # of which others do not depend on the model
    dice = np.array([mask.dice for mask in masks])
    return KeptMasks(
        shift=shift,
        structure=np.array(structures),
        patient=np.array([model.kept_patient_of[mask.case] for mask in masks]),
        dice=dice,
        is_wrong=dice < splits[0].model.fail_below[structures[0]],
        scores=scores,
        lower=lower,
        unseen_lower=unseen_lower,
        unseen_predicted=unseen_predicted,
        used=used,
    )


@dataclass(frozen=True, kw_only=True)
class _Members:
    """The networks behind J masks: features of all in one list, and whose each is."""

    features: Sequence[Features]
    structures: Sequence[str]
    owner: np.ndarray
    inputs: np.ndarray
    is_empty: np.ndarray  # (J,) whether no network finds anything

    @classmethod
    def of(cls, masks: Sequence[_Mask], priors: Priors) -> _Members:
        features = []
        structures = []
        owner = []
        for place, mask in enumerate(masks):
            for fold in mask.folds:
                own = mask.found.folds[fold][mask.structure].features
                features.append(own.against(priors.get(mask.structure)))
                structures.append(mask.structure)
                owner.append(place)
        owner_n = np.array(owner)
        voxels = np.bincount(owner_n, [one.voxels for one in features])
        return cls(
            features=features,
            structures=structures,
            owner=owner_n,
            inputs=inputs_of(features),
            is_empty=voxels == 0,
        )

    def predicted(self, model: QualityModel) -> np.ndarray:
        """Mean over the networks of the Dice (J,) that a model predicts of each."""
        found = model.score.predict(self.inputs, self.structures)
        return np.bincount(self.owner, found) / np.bincount(self.owner)

    def mean_of(self, name: str) -> np.ndarray:
        """Mean of a feature (J,) over the networks that have it; NaN if none has."""
        values = np.array([np.nan if (one := getattr(each, name)) is None else one for each in self.features], float)
        exists = np.isfinite(values)
        number = np.bincount(self.owner, exists)
        with np.errstate(invalid="ignore"):
            return np.bincount(self.owner, np.where(exists, values, 0.0)) / number


def _lower(model: QualityModel, structures: Sequence[str], predicted_j: np.ndarray) -> np.ndarray:
    """The bound (J,) below each predicted Dice; NaN where there is none."""
    factors = {name: model.bound_of(name).factor for name in set(structures)}
    factor_j = np.array([np.nan if (factor := factors[name]) is None else factor for name in structures])
    known = np.isfinite(predicted_j)
    margin_j = np.full(len(predicted_j), np.nan)
    margin_j[known] = factor_j[known] * model.margin_scale(predicted_j[known])
    return np.where(known, np.maximum(0.0, predicted_j - margin_j), np.nan)
