"""Calibration items whose Dice and features go together, as those of real masks do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.trust.made_up_features import drawn_sureness, made_up_features
from builders.probabilities import LABELS
from segfw.quality.model_identity import ModelIdentity
from segfw.quality.quality_features import Features, StructurePriors
from segfw.quality.quality_fitting import FittedQuality, QualityRequest, fit_quality
from segfw.quality.quality_model import CLEAN, QualityItem

STRUCTURES = tuple(LABELS.structures)
IDENTITY = ModelIdentity(
    configuration="3d_fullres", folds={"0": "a digest", "1": "another"}, plan_digest="of a plan", structures=STRUCTURES
)


def features_of(dice: float, rng: np.random.Generator, noise: float = 0.3) -> Features:
    """Of a mask with this Dice: sure if it is good, with noise in the logit."""
    sureness = drawn_sureness(dice, noise, rng)
    volume_mm3 = float(np.exp(rng.normal(7, 0.2)))
    offset_mm = (0.0, float(rng.normal()), float(rng.normal()))
    return made_up_features(sureness, volume_mm3=volume_mm3, offset_mm=offset_mm)


def items_of(
    patients: int, seed: int = 0, *, shifts: tuple[str, ...] = (), cases_of_each: int = 1, noise: float = 0.3
) -> list[QualityItem]:
    """Two structures in every case; clean masks have a Dice of 0.85 or so, one in ten is bad, and more if spoilt."""
    rng = np.random.default_rng(seed)
    items = []
    for patient in range(patients):
        for number in range(cases_of_each):
            for shift in (CLEAN, *shifts):
                for structure in STRUCTURES:
                    is_bad = rng.random() < (0.1 if shift == CLEAN else 0.5)
                    dice = float(np.clip(rng.beta(4, 4) if is_bad else rng.beta(40, 6), 0.03, 0.97))
                    volume_ml = float(np.exp(rng.normal(0, 0.2)))
                    items.append(
                        QualityItem(
                            case=f"case_{patient:03}_{number}",
                            patient=f"patient_{patient:03}",
                            structure=structure,
                            fold=str(patient % 2),
                            shift=shift,
                            features=features_of(dice, rng, noise),
                            dice=dice,
                            true_ml=volume_ml,
                            predicted_ml=volume_ml * float(np.exp(rng.normal(0, 0.1))),
                        )
                    )
    return items


def fitted(
    items: list[QualityItem], priors: Mapping[str, StructurePriors] | None = None, **request: object
) -> FittedQuality:
    """A quality model of the items, with 0.7 as the Dice below which a mask has failed."""
    asked = QualityRequest(**{"fail_below": dict.fromkeys(STRUCTURES, 0.7), **request})
    return fit_quality(items, LABELS, IDENTITY, priors or {}, {}, asked, made="2026-01-01")
