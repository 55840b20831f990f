"""What is known of each case while a cohort is measured: a file a case, which any number of processes write.

They lie in .segfw/NAME beside NAME.csv. What is killed goes on from them, and a table of another form, or a page, is
made of them without measuring anything again.
"""

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
from segfw.measurements.structure_measures import CaseMeasures

FORMAT = 1  # of what is kept; raised where figures mean something else


class MeasuringSettings(Record):
    """What the measures depend on besides the files."""

    format: int = FORMAT
    labels: LabelSet
    channels: tuple[str, ...]
    only: tuple[str, ...] | None
    per_component: bool

    def differences(self, kept: MeasuringSettings) -> list[str]:
        """Names of what differs."""
        names = [name for name in MeasuringSettings.model_fields if getattr(self, name) != getattr(kept, name)]
        return [name.replace("_", " ") for name in names]


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


def agree_on_settings(
    folder: MeasuresFolder,
    settings: MeasuringSettings,
    output: Path,
    cases: Sequence[MaskCase],
    *,
    own: Sequence[MaskCase],
    overwrite: bool,
) -> None:
    """Says what is measured here; UserError if what is there was measured otherwise, unless it may be overwritten.

    What is overwritten are the caller's ``own`` cases, because other parts may have measured theirs; all ``cases``
    where the kept ones were measured otherwise.
    """
    with folder.alone():
        old = folder.settings(MeasuringSettings, overwrite=overwrite)
        different = settings.differences(old) if old is not None else []
        if different and not overwrite:
            raise UserError(
                f"{output}: was measured with other options ({', '.join(different)}); give another name, or --overwrite"
            )
        is_same = old is not None and not different
        if overwrite:
            folder.forget(own if is_same else cases)
        if not is_same:
            folder.keep_settings(settings)
