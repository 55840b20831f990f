"""Masks for a folder of new images: resumable, and never mixed with masks of another model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from segfw.data.formats import check_mask_ending
from segfw.data.manifest import LABELS_FILE
from segfw.data.parallel import FAILURES_FILE, CasesFailed
from segfw.inference.cohort import SETTINGS_FILE as PREDICTION_FILE
from segfw.inference.cohort import PredictionSettings, predict_cases
from segfw.inference.images import find_images
from segfw.inference.predictor import Predictor
from segfw.model import Model, load_model
from segfw.networks import BuildNetwork, build_network
from segfw.records import UserError


def predict(
    model: Path,
    source: Path,
    output: Path,
    *,
    configuration: str | None = None,
    folds: tuple[str, ...] | None = None,
    step: float = 0.5,
    mirroring: bool = True,
    precision: str = "auto",
    device: str = "auto",
    ending: str = ".nii.gz",
    best: bool = False,
    overwrite: bool = False,
    build: BuildNetwork = build_network,
) -> None:
    """Writes a mask for every image in ``source`` into ``output``, on each image's own grid.

    Masks already there from the same model and options are kept. Raises CasesFailed, at the end, if images could not
    be predicted; the others are done.
    """
    source, output = Path(source), Path(output)
    if output.is_file() or output.resolve() in (source.resolve(), source.resolve().parent):
        raise UserError(f"{output}: is a file or the folder of the images; give a folder of its own for the masks")
    check_mask_ending(ending)
    loaded = load_model(Path(model), configuration, folds, best=best)
    cases = find_images(source, loaded.plan.channels)
    predictor = Predictor.of(loaded, device=device, precision=precision, step=step, mirroring=mirroring, build=build)
    settings = PredictionSettings(
        configuration=loaded.configuration.name,
        folds=tuple(loaded.weights),
        weights_digest=_weights_digest(loaded),
        step=step,
        mirroring=mirroring,
    )
    kept, masks = output / PREDICTION_FILE, [output / f"{case.id}{ending}" for case in cases]
    if overwrite:
        for mask in masks:  # before the settings change, lest a mask of another model pass for one of this
            mask.unlink(missing_ok=True)
    elif kept.is_file() and PredictionSettings.load(kept) != settings:
        raise UserError(f"{output}: holds masks of another model or other options; use another folder or --overwrite")
    elif not kept.is_file() and any(mask.exists() for mask in masks):
        raise UserError(f"{output}: holds masks that segfw did not write; use another folder or --overwrite")
    settings.save(kept)
    loaded.plan.labels.save(output / LABELS_FILE)
    print(f"predicting {len(cases)} cases with {settings.configuration}, folds {', '.join(settings.folds)}")
    failures = predict_cases(predictor, cases, output, ending=ending)
    if failures:
        raise CasesFailed("in prediction", failures, output)
    (output / FAILURES_FILE).unlink(missing_ok=True)


def _weights_digest(model: Model) -> str:
    digest = hashlib.sha256()
    both = [*model.weights.values(), *(model.previous.weights.values() if model.previous else ())]
    for weights in both:
        for name, tensor in sorted(weights.items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
