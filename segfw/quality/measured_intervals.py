"""``measure --model``: the interval in which each measured volume lies, of masks that a calibrated model made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segfw.base.file_names import MASK_SETTINGS_FILE
from segfw.base.records import UserError
from segfw.base.shell_line import shell_line
from segfw.base.words import count, listed
from segfw.inference.mask_settings import PredictionSettings, plan_digest, weights_digest
from segfw.measurements.cohort_measures import Measures
from segfw.measurements.structure_measures import StructureMeasures
from segfw.model.load import load_model
from segfw.model.source import QUALITY_FILE, ModelSource
from segfw.quality.case_quality import EXCHANGEABLE, CaseQuality, quality_file
from segfw.quality.quality_model import QualityModel
from segfw.quality.volume_intervals import VolumeInterval


@dataclass(frozen=True, kw_only=True)
class CalibratedVolumes:
    """Intervals of a model's structures, and how sure it is that masks are this model's."""

    intervals: Mapping[str, VolumeInterval]
    notes: tuple[str, ...]


def calibrated_volumes(model: Path, masks: Path) -> CalibratedVolumes:
    """Of a calibrated ``model`` for the ``masks`` in a folder.

    Raises
    ------
    UserError
        If the model is not calibrated or has no interval of any structure, or the masks are of another model.
    """
    path = Path(model) / QUALITY_FILE
    with ModelSource.open(model) as source:
        content = source.read_if_there(QUALITY_FILE)
    if content is None:
        raise UserError(
            f"{model}: --model needs intervals from held-out cases, and this model is not calibrated; run "
            f"{shell_line('segfw', 'calibrate', model)} first"
        )
    quality = QualityModel.parse(content, path)
    intervals = {name: found for name, found in quality.volumes.items() if found.factor is not None}
    if not intervals:
        raise UserError(
            f"{path}: holds no intervals of volumes, for which too few patients were calibrated; calibrate with more "
            "cases, or leave out --model"
        )
    notes = [
        f"no interval of the volume of {name}: only {count(found.patients, 'patient')} in whom it is and was found"
        for name, found in quality.volumes.items()
        if found.factor is None
    ]
    folder = masks if masks.is_dir() else masks.parent
    settings_file = folder / MASK_SETTINGS_FILE
    if settings_file.is_file():
        _require_own(quality, content, Path(model), PredictionSettings.load(settings_file), masks)
    else:
        notes.append(f"{masks}: do not say which model made them; that it is {model} is taken on trust")
    return CalibratedVolumes(intervals=intervals, notes=tuple(notes))


def _require_own(quality: QualityModel, content: bytes, model: Path, settings: PredictionSettings, masks: Path) -> None:
    """UserError if the masks were made by other networks, or by others than were calibrated."""
    if settings.quality == hashlib.sha256(content).hexdigest():  # judged by this very file
        return
    calibrated = quality.identity.configuration
    remedy = "give the model that made them, or leave out --model"
    if settings.configuration != calibrated:
        raise UserError(
            f"{masks}: were made by {settings.configuration}, and {model / QUALITY_FILE} is of {calibrated}; {remedy}"
        )
    try:
        used = load_model(model, calibrated, settings.folds)
    except UserError as error:
        raise UserError(f"{masks}: were made by other folds than {model} has ({error}); {remedy}") from None
    is_same = settings.weights_digest == weights_digest([used]) and settings.plan_digest == plan_digest([used])
    if not is_same:
        raise UserError(f"{masks}: were made by another model than {model}, or by other weights of it; {remedy}")


def with_intervals(measures: Measures, found: CalibratedVolumes, model: Path, masks: Path) -> Measures:
    """The measures with the interval of each volume.

    None of a structure without a volume, of one that was not calibrated, and of a case whose image was unlike the
    training images. UserError if none of the structures was calibrated.
    """
    names = list(measures.labels.structures)
    known = [name for name in names if name in found.intervals]
    if not known:
        raise UserError(
            f"{model}: has intervals of {listed(found.intervals, 'and')}, but the masks hold {listed(names, 'and')}; "
            "give the model that made them, or leave out --model"
        )
    folder = masks if masks.is_dir() else masks.parent
    withdrawn: list[str] = []
    untold: list[str] = []
    cases = {}
    for case, measured in measures.cases.items():
        guarantee = _guarantee_of(folder, case)
        if guarantee is None:
            untold.append(case)
        if guarantee not in (None, EXCHANGEABLE):
            withdrawn.append(case)
            cases[case] = measured
            continue
        rows = tuple(_with_interval(row, found.intervals.get(row.structure)) for row in measured.structures)
        cases[case] = measured.model_copy(update={"structures": rows})
    least = min(1 - found.intervals[name].alpha for name in known)
    notes = [
        f"volume_low_ml to volume_high_ml hold the true volume of {least:.0%} of images like the training images",
        *found.notes,
    ]
    if withdrawn:
        notes.append(
            f"no intervals in {count(len(withdrawn), 'case')} of which nothing is promised: {_some(withdrawn)}"
        )
    if untold:
        notes.append(
            f"of {count(len(untold), 'case')} nobody has looked whether the image is like the training images: "
            f"{_some(untold)}"
        )
    return measures.model_copy(
        update={"model": str(model), "cases": cases, "notes": (*measures.notes, *notes)},
    )


def _with_interval(row: StructureMeasures, interval: VolumeInterval | None) -> StructureMeasures:
    if interval is None or row.volume_ml is None:
        return row
    bounds = interval.of(row.volume_ml)
    if bounds is None:
        return row
    return row.model_copy(update={"volume_low_ml": bounds[0], "volume_high_ml": bounds[1]})


def _guarantee_of(folder: Path, case: str) -> str | None:
    """What ``predict`` said of a case; None where it said nothing that can be read."""
    try:
        return CaseQuality.load(quality_file(folder, case)).guarantee
    except UserError:
        return None


def _some(cases: list[str], most: int = 5) -> str:
    return f"{', '.join(cases[:most])}{' ...' if len(cases) > most else ''}"
