"""What the masks in a folder were made with, and that those of another model or other options are never mixed in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from segfw.base.file_names import MASK_SETTINGS_FILE as SETTINGS_FILE
from segfw.base.records import UserError
from segfw.dataset.cases import Case
from segfw.images.formats import split_ending
from segfw.inference.output_folder import OutputFolder
from segfw.inference.prediction_settings import PredictionSettings as PredictionSettings
from segfw.model.load import Model
from segfw.model.weights import add_tensors

# Of a configuration, what is of its training alone, or only told.
NOT_FOR_MASKS = {"median_shape", "batch_size", "batch_dice", "estimate", "reasons"}
NOT_FOR_VALUES = {"also_called", "codes"}  # of labels: what they are called besides


def agree_on_settings(
    folder: OutputFolder,
    settings: PredictionSettings,
    found: Sequence[Case],
    cases: Sequence[Case],
    *,
    overwrite: bool,
) -> None:
    """Says in the folder what its masks are made with; UserError if masks of another model, or of others, are there."""
    kept = folder.path / SETTINGS_FILE
    require_own_masks(folder, found, overwrite=overwrite)
    with folder.alone():
        old = _kept_settings(kept, overwrite=overwrite)
        different = settings.differences(old) if old else []
        is_same = old is not None and not different
        if overwrite:
            # Before the settings change, lest a mask of another model pass for one of this. Other parts may be at work
            # with the same settings: theirs are left alone.
            forgotten = {case.id for case in cases}
            if not is_same:
                forgotten |= {case.id for case in found} | folder.known()
            for case_id in forgotten:
                folder.forget(case_id)
        else:
            _require_none(different, folder.path)
        told = settings
        if old is not None and is_same:
            told = settings.completed(old)
            if old.quality is not None and old.quality != told.quality:  # by another calibration
                for case_id in {case.id for case in found} | folder.known():
                    folder.forget_quality(case_id)
        if told != old:
            told.save(kept)


def require_agreement(
    folder: OutputFolder, settings: PredictionSettings, found: Sequence[Case], *, overwrite: bool
) -> None:
    """Refuses what ``agree_on_settings`` would refuse, and writes nothing."""
    require_own_masks(folder, found, overwrite=overwrite)
    old = _kept_settings(folder.path / SETTINGS_FILE, overwrite=overwrite)
    if old is not None and not overwrite:
        _require_none(settings.differences(old), folder.path)


def _require_none(different: Sequence[str], folder: Path) -> None:
    if different:
        raise UserError(
            f"{folder}: holds masks of another model or other options ({', '.join(different)}); use another folder or "
            "--overwrite"
        )


def require_own_masks(folder: OutputFolder, found: Sequence[Case], *, overwrite: bool) -> None:
    """UserError if the folder holds masks that segfw did not write, or images of other names."""
    kept = folder.path / SETTINGS_FILE
    masks = [file for case in found for file in folder.masks(case.id)]
    require_no_strangers(folder.path, masks, kept)
    # In this order: another process that has just begun in this folder has said so before its first mask.
    has_masks = any(mask.exists() for mask in masks)
    if has_masks and not overwrite and not kept.is_file():
        raise UserError(f"{folder.path}: holds masks that segfw did not write; use another folder or --overwrite")


def require_no_strangers(output: Path, masks: Sequence[Path], settings: Path) -> None:
    """UserError if a folder that segfw's masks were not written to before holds images or masks of other names.

    Among those, masks would pass for images, or for what an expert drew.
    """
    if settings.is_file() or not output.is_dir():
        return
    expected = {mask.name for mask in masks}
    for path in sorted(output.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.name not in expected and split_ending(path)[1]:
            raise UserError(
                f"{output}: holds {path.name} and is no folder of segfw's masks; give a folder of their own"
            )


def _kept_settings(path: Path, *, overwrite: bool) -> PredictionSettings | None:
    """What is there was made with; None if nothing is, or if it cannot be read and shall be overwritten."""
    try:
        return PredictionSettings.load(path) if path.is_file() else None
    except UserError:
        if not overwrite:
            raise
        return None


def weights_digest(models: Sequence[Model]) -> str:
    """Of all weights, those of first stages included."""
    digest = hashlib.sha256()
    for model in models:
        for stage in _stages(model):
            for weights in stage.weights.values():
                add_tensors(digest, weights)
    return digest.hexdigest()


def plan_digest(models: Sequence[Model]) -> str:
    """Of what the plans say that decides masks: preprocessing, network, tiles, mirroring, labels, precision."""
    digest = hashlib.sha256()
    for model in models:
        for stage in _stages(model):
            # Without defaults, so that a field which later versions add changes nothing until it is used.
            configuration = stage.configuration.model_dump_json(exclude=NOT_FOR_MASKS, exclude_defaults=True)
            labels = stage.plan.labels.model_dump_json(exclude=NOT_FOR_VALUES, exclude_defaults=True)
            digest.update(configuration.encode())
            digest.update(labels.encode())
            digest.update(repr((stage.mirror_axes, stage.plan.is_imported)).encode())
    return digest.hexdigest()


def _stages(model: Model) -> list[Model]:
    """The model, and its first stage where it is a cascade."""
    return [model] if model.previous is None else [model, model.previous]
