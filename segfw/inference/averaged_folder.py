"""A folder of masks that were averaged from stored probabilities, and that others are never mixed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from segfw.base.file_names import ENSEMBLE_SETTINGS_FILE as SETTINGS_FILE
from segfw.base.output_paths import in_file_name
from segfw.base.parallel import Outcome
from segfw.base.records import UserError
from segfw.dataset.finished_mask import FinishedMask, MaskFormat, MaskMaker
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.images.formats import write_map
from segfw.images.geometry import Geometry
from segfw.inference.averaging import merged, probability_of
from segfw.inference.ensemble_settings import EnsembleSettings as EnsembleSettings
from segfw.inference.mask_settings import require_no_strangers
from segfw.inference.probabilities import read_probabilities
from segfw.model.postprocess import apply

MAPS_FOLDER = "probability"


@dataclass(frozen=True, kw_only=True)
class MaskWriter:
    """Writes averaged masks into a folder in all ``formats``; ``series`` are the folders of DICOM series by case."""

    folder: Path
    formats: tuple[MaskFormat, ...]
    labels: LabelSet
    maker: MaskMaker
    series: Mapping[str, Path]

    def files(self, case_id: str) -> list[Path]:
        """The files of a case, in the order in which they are written."""
        return [self.folder / file for each in self.formats for file in each.files(case_id)]

    def require(self, case_id: str) -> None:
        """UserError if a mask of the case cannot be written in all formats."""
        for each in self.formats:
            each.require_kind(case_id, self.series.get(case_id))
            each.require(case_id, self.series.get(case_id))

    def write_about(self) -> None:
        """What belongs to the folder and not to a case."""
        self.labels.save(self.folder / LABELS_FILE)
        for each in self.formats:
            each.write_about(self.folder, self.labels, self.maker)

    def write(self, case_id: str, values_zyx: np.ndarray, geometry: Geometry) -> None:
        """Writes a mask (Z, Y, X) of label values."""
        finished = FinishedMask(
            case_id=case_id,
            values_zyx=values_zyx,
            geometry=geometry,
            labels=self.labels,
            maker=self.maker,
            image=self.series.get(case_id),
        )
        for each in self.formats:
            each.write(self.folder, finished)


def checked_weights(weights: Sequence[float] | None, models: int) -> tuple[float, ...]:
    """One weight per model, by default all equal; UserError unless they are numbers that a mean can be made with."""
    given = tuple(weights or (1.0,) * models)
    if len(given) != models or not all(isfinite(weight) and weight >= 0 for weight in given) or sum(given) <= 0:
        raise UserError(f"--weights are {', '.join(map(str, given))}; give one that is not negative per folder")
    return given


def map_file(output: Path, case: str, label: str) -> Path:
    """Where the mean probability of a label is written."""
    return output / MAPS_FOLDER / f"{case}_{in_file_name(label)}.nii.gz"


def is_up_to_date(made: Sequence[Path], sources: Sequence[Path]) -> bool:
    """Whether all files are there, and none was made before a source was made anew."""
    newest_source = max(path.stat().st_mtime_ns for path in sources)
    return all(path.is_file() and path.stat().st_mtime_ns >= newest_source for path in made)


def claim_folder(
    output: Path, settings: EnsembleSettings, masks: Sequence[Path], others: Sequence[Path] = (), *, overwrite: bool
) -> None:
    """Makes ``output`` a folder of these settings; UserError if it holds masks of others.

    ``others`` are the files of masks in formats that are not asked for now, which earlier calls may have written.
    """
    kept = output / SETTINGS_FILE
    if output.is_file():
        raise UserError(f"{output}: is a file; give a folder for the masks")
    require_no_strangers(output, masks, kept)
    if overwrite:
        for mask in masks:  # before the settings change, lest an old mask pass for a new one
            mask.unlink(missing_ok=True)
        for other in others if kept.is_file() else ():
            other.unlink(missing_ok=True)
        for old in (output / MAPS_FOLDER).glob("*.nii.gz"):
            old.unlink()
    elif kept.is_file():
        old_settings = EnsembleSettings.load(kept)
        if settings.completed(old_settings) != old_settings.completed(settings):
            raise UserError(
                f"{output}: holds masks of other models, weights or postprocessing, or with other --holes or --seg-type"
                "; use another folder or --overwrite"
            )
        settings = settings.completed(old_settings)
    elif not kept.is_file() and any(mask.exists() for mask in masks):
        raise UserError(f"{output}: holds masks that this verb did not write; use another folder or --overwrite")
    settings.save(kept)


def lacking_cases(
    folders: Sequence[Path], files: Sequence[Mapping[str, Path]], common: Sequence[str]
) -> list[Outcome[str, None]]:
    """A failure for every case that some folder lacks."""
    failures: list[Outcome[str, None]] = []
    every_case = set.union(*(set(found) for found in files))
    for case in sorted(every_case - set(common)):
        where = [str(folder) for folder, found in zip(folders, files) if case not in found]
        error = UserError(f"{case}: is missing in {', '.join(where)}; predict it there too")
        failures.append(Outcome(item=case, error=error))
    return failures


def average_case(
    case_id: str,
    sources: Sequence[Path],
    settings: EnsembleSettings,
    writer: MaskWriter,
    maps: Mapping[str, Path],
    first_case: str,
) -> None:
    """Writes the maps of one case and, last, its mask."""
    models = [read_probabilities(path) for path in sources]
    for digest, opened in zip(settings.models, models):
        if opened.info.model != digest:
            raise UserError(f"{opened.path}: was made by other weights than {first_case} beside it; predict again")
    labels = models[0].info.labels
    geometry = models[0].info.record.original
    for name, path in maps.items():
        write_map(path, probability_of(name, models, settings.weights), geometry)
    temperatures = settings.postprocessing.temperatures(labels)
    classes = apply(merged(models, settings.weights, temperatures=temperatures), settings.postprocessing)
    writer.write(case_id, labels.to_values(classes), geometry)
