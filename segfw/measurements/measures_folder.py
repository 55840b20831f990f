"""What is known of each case while a cohort is measured: a file a case, which any number of processes write.

They lie in .segfw/NAME beside NAME.csv. What is killed goes on from them, and a table of another form, or a page, is
made of them without measuring anything again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from segfw.base.case_files import FolderSettings, TriedCases
from segfw.base.file_names import HIDDEN
from segfw.dataset.labels import LabelSet
from segfw.measurements.structure_measures import CaseMeasures

FORMAT = 1  # of what is kept; raised where figures mean something else


class MeasuringSettings(FolderSettings):
    """What the measures depend on besides the files."""

    format: int = FORMAT
    labels: LabelSet
    channels: tuple[str, ...]
    only: tuple[str, ...] | None
    per_component: bool


@dataclass(frozen=True, kw_only=True)
class MeasuresFolder(TriedCases[CaseMeasures]):
    """Where the measures of each case are kept."""

    path: Path
    kind: ClassVar = CaseMeasures

    @property
    def folder(self) -> Path:
        return self.path

    @staticmethod
    def beside(output: Path) -> MeasuresFolder:
        """Of a table."""
        return MeasuresFolder(path=output.parent / HIDDEN / output.stem)
