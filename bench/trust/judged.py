"""What quality models say of the masks of kept-out patients, and what is true of them.

Legend: S quality models, each fitted on drawn patients of the calibration; J masks (a structure in an image).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from segfw.quality.calibrated_quality import quality_of_cases
from segfw.quality.calibration_pass import CalibratedCase, CalibrationPass
from segfw.quality.quality_fitting import QualityRequest

from bench.trust.kept_cases import KeptCase, TrustedModel
from segfw.quality.input_gate import GateVerdict
from segfw.quality.quality_features import Priors
from segfw.quality.quality_model import CLEAN, QualityModel, StructureQuality

SPLITS = 20
SHARE = 0.8  # of the calibration's patients, on which each model is fitted
FAIL_BELOW = 0.7
SHIPPED = "shipped ranking"
PREDICTED = "predicted Dice"
PAIR = "pairwise fold Dice"
CONSTANT = "mean Dice of the structure (constant)"
ARE_DICE = (SHIPPED, PREDICTED, PAIR, CONSTANT, "soft Dice")
# Baselines by a feature, as means over the folds; the sign makes more of it better.
OF_FEATURES = {
    "soft Dice": ("soft", 1),
    "entropy inside": ("entropy", -1),
    "mean entropy of the image (MONAI Label)": ("image_entropy", -1),
    "doubtful voxels (AbdomenAtlas)": ("doubtful_voxels", -1),
    "volume z alone": ("volume_z", -1),
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


def fitted_splits(model: TrustedModel, calibration: Sequence[CalibratedCase], splits: int = SPLITS) -> list[Split]:
    """Quality models of SHARE of the calibration's patients each, drawn anew."""
    request = QualityRequest(fail_below=dict.fromkeys(model.labels.structures, FAIL_BELOW))
    patients = sorted({model.patient_of[case.case] for case in calibration})
    number = max(2, round(SHARE * len(patients)))
    found = []
    for seed in range(splits):
        chosen = set(np.random.default_rng(seed).choice(patients, number, replace=False).tolist())
        cases = [case for case in calibration if model.patient_of[case.case] in chosen]
        without = {}
        for shift in model.shifts:
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

    case: KeptCase
    found: CalibrationPass
    folds: tuple[str, ...]
    structure: str
    dice: float


def kept_masks(model: TrustedModel, kept: Sequence[KeptCase], splits: Sequence[Split]) -> KeptMasks:
    """The masks of the mean of all folds."""
    masks = []
    for case in kept:
        for one in case.found.passes:
            for structure in model.labels.structures:
                if len(one.folds) > 1:
                    dice = one.mean_dice[structure]
                else:
                    dice = next(iter(one.folds.values()))[structure].dice
                if dice is not None:
                    masks.append(_Mask(case=case, found=one, folds=tuple(one.folds), structure=structure, dice=dice))
    return _judged(model, masks, splits)


def masks_of_one_fold(model: TrustedModel, kept: Sequence[KeptCase], splits: Sequence[Split]) -> KeptMasks:
    """The masks of every fold by itself, as of a model with one fold."""
    masks = []
    for case in kept:
        for one in case.found.passes:
            for fold, structures in one.folds.items():
                for structure, measured in structures.items():
                    if measured.dice is not None:
                        masks.append(
                            _Mask(case=case, found=one, folds=(fold,), structure=structure, dice=measured.dice)
                        )
    return _judged(model, masks, splits)


def _judged(model: TrustedModel, masks: Sequence[_Mask], splits: Sequence[Split]) -> KeptMasks:
    has_pair = any(len(mask.folds) > 1 for mask in masks)
    scores = {
        SHIPPED: np.full((len(splits), len(masks)), np.nan),
        PREDICTED: np.full((len(splits), len(masks)), np.nan),
        CONSTANT: np.array([[split.clean_dice[mask.structure] for mask in masks] for split in splits]),
    }
    if has_pair:
        scores[PAIR] = np.array([[mask.found.pair[mask.structure] for mask in masks]])
    priors = splits[0].model.priors  # of 80 % of the patients; between splits they hardly differ
    for title, (feature, sign) in OF_FEATURES.items():
        scores[title] = sign * np.array([[_feature(mask, feature, priors) for mask in masks]])
    lower = np.full((len(splits), len(masks)), np.nan)
    unseen_lower = lower.copy()
    unseen_predicted = lower.copy()
    used = np.zeros(lower.shape, bool)
    for row, split in enumerate(splits):
        gate = {
            (id(mask.case), mask.found.shift): split.model.gate.look(mask.case.fingerprints[mask.found.shift])
            for mask in masks
            if split.model.gate is not None
        }
        for place, mask in enumerate(masks):
            said = _say(split.model, mask, gate.get((id(mask.case), mask.found.shift)))
            scores[SHIPPED][row, place] = said.ranking
            used[row, place] = said.verdict == "use"
            if said.predicted_dice is not None:
                scores[PREDICTED][row, place] = said.predicted_dice
            if said.lower_bound is not None:
                lower[row, place] = said.lower_bound
            if mask.found.shift in split.without:
                unseen = _say(split.without[mask.found.shift], mask, None)
                if unseen.predicted_dice is not None:
                    unseen_predicted[row, place] = unseen.predicted_dice
                if unseen.lower_bound is not None:
                    unseen_lower[row, place] = unseen.lower_bound
    dice = np.array([mask.dice for mask in masks])
    return KeptMasks(
        shift=np.array([mask.found.shift for mask in masks]),
        structure=np.array([mask.structure for mask in masks]),
        patient=np.array([model.kept_patient_of[mask.case.found.case] for mask in masks]),
        dice=dice,
        is_wrong=dice < FAIL_BELOW,
        scores=scores,
        lower=lower,
        unseen_lower=unseen_lower,
        unseen_predicted=unseen_predicted,
        used=used,
    )


def _say(model: QualityModel, mask: _Mask, gate: GateVerdict | None) -> StructureQuality:
    """What a model says of one structure's mask, as ``predict`` would."""
    alone = model.model_copy(update={"values": {mask.structure: model.values[mask.structure]}})
    features = [{mask.structure: mask.found.folds[fold][mask.structure].features} for fold in mask.folds]
    pair = {mask.structure: mask.found.pair[mask.structure]} if len(mask.folds) > 1 else None
    return alone.judge(features, pair, gate)[0]


def _feature(mask: _Mask, name: str, priors: Priors) -> float:
    """Mean of a feature over the folds that have it; NaN if none has."""
    prior = priors.get(mask.structure)
    values = [getattr(mask.found.folds[fold][mask.structure].features.against(prior), name) for fold in mask.folds]
    present = [float(value) for value in values if value is not None]
    return float(np.mean(present)) if present else np.nan
