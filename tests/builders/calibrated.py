"""Models with a quality.json of made-up items: what it says means nothing, but all of it can be read and used."""

from __future__ import annotations

from pathlib import Path

from builders.models import small_model
from builders.networks import spec
from builders.quality import STRUCTURES, items_of
from segfw.model.load import load_model
from segfw.model.source import QUALITY_FILE
from segfw.quality.model_identity import ModelIdentity
from segfw.quality.quality_features import Spread, StructurePriors
from segfw.quality.quality_fitting import QualityRequest, fit_quality
from segfw.quality.quality_model import QualityModel

PRIORS = StructurePriors(log_mm3=Spread(mean=6.0, sd=0.3, number=30), offset_mm=None, cases=30, present=30)


def calibrated_model(folder: Path, *, folds: tuple[str, ...] = ("0", "1"), patients: int = 60) -> Path:
    """A model with drawn networks for the images of ``data.blocks_case``."""
    model = small_model(folder, folds=folds, network=spec(features=(4, 8)), first_seed=3)
    calibrate_with_made_up_items(model, patients=patients)
    return model


def calibrate_with_made_up_items(model: Path, *, patients: int = 60, seed: int = 0) -> QualityModel:
    """Writes the model's quality.json."""
    loaded = load_model(model)
    labels = loaded.plan.labels
    called = dict(zip(STRUCTURES, labels.structures))
    items = [item.model_copy(update={"structure": called[item.structure]}) for item in items_of(patients, seed)]
    found = fit_quality(
        items,
        labels,
        ModelIdentity.of(loaded),
        dict.fromkeys(labels.structures, PRIORS),
        {},
        QualityRequest(fail_below=dict.fromkeys(labels.structures, 0.7)),
        made="2026-01-01",
    )
    found.model.save(model / QUALITY_FILE)
    return found.model
