"""The features of each case while those of a cohort are told: in .segfw/NAME_radiomics beside NAME.csv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from segfw.base.case_files import TriedCases
from segfw.base.file_names import HIDDEN
from segfw.base.records import Record, UserError
from segfw.dataset.labels import LabelSet
from segfw.measurements.masks_to_measure import MaskCase
from segfw.radiomics.features_records import CaseFeatures
from segfw.radiomics.radiomics_settings import RadiomicsSettings

ENDING = "_radiomics"  # behind the name of the table of measures


class FeaturesJob(Record):
    """What the features depend on besides the files."""

    settings: RadiomicsSettings
    labels: LabelSet
    channels: tuple[str, ...]
    only: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class FeaturesFolder(TriedCases[CaseFeatures]):
    """Where the features of each case are kept; ``versions`` is how many changed ones are asked for."""

    path: Path
    versions: int = 0
    kind: ClassVar = CaseFeatures

    @property
    def folder(self) -> Path:
        return self.path

    @staticmethod
    def beside(output: Path, versions: int) -> FeaturesFolder:
        """Of a table of measures."""
        return FeaturesFolder(path=output.parent / HIDDEN / (output.stem + ENDING), versions=versions)

    def is_enough(self, kept: CaseFeatures) -> bool:
        """Whether there are as many changed versions as are asked for."""
        return self.versions in (0, kept.versions)

    def agree(
        self, job: FeaturesJob, output: Path, cases: Sequence[MaskCase], *, own: Sequence[MaskCase], overwrite: bool
    ) -> None:
        """Says what is told here; UserError if what is there was told otherwise, unless it may be overwritten."""
        with self.alone():
            old = self.settings(FeaturesJob, overwrite=overwrite)
            if old is not None and old != job and not overwrite:
                names = [name for name in FeaturesJob.model_fields if getattr(old, name) != getattr(job, name)]
                raise UserError(
                    f"{output}: its features were told with other options ({', '.join(names)}); give another name, or "
                    "--overwrite"
                )
            if overwrite:
                self.forget(own if old == job else cases)
            if old != job:
                self.keep_settings(job)
