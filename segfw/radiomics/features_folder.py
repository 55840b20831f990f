"""The features of each case while those of a cohort are told: in .segfw/NAME_radiomics beside NAME.csv."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from segfw.base.case_files import FolderSettings, TriedCases
from segfw.base.file_names import HIDDEN
from segfw.dataset.labels import LabelSet
from segfw.radiomics.features_records import CaseFeatures
from segfw.radiomics.radiomics_settings import RadiomicsSettings

ENDING = "_radiomics"  # behind the name of the table of measures


class FeaturesJob(FolderSettings):
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
