"""What is known of each case while changes are tried: a file a case, which any number of processes write.

They lie in OUTPUT/.segfw. What is killed goes on from them, and a report of fewer changes is made of them without
predicting anything again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from segfw.base.case_files import CaseFiles, CaseWithFiles, FolderSettings, Sources
from segfw.base.file_names import HIDDEN
from segfw.dataset.annotated_structures import sources_with
from segfw.dataset.labels import LabelMap
from segfw.inference.mask_settings import PredictionSettings
from segfw.robustness.stress_records import CaseStress

FORMAT = 1  # of what is kept; raised where figures mean something else


@dataclass(frozen=True, kw_only=True)
class StressCase:
    """An image that is changed, and the expert's mask if there is one; ``label_map`` says what its values mean.

    ``annotated`` are the structures that the expert drew; None where that is all of them.
    """

    id: str
    images: tuple[Path, ...]
    reference: Path | None = None
    label_map: LabelMap = ()
    annotated: tuple[str, ...] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that its figures come from."""
        return self.images if self.reference is None else (*self.images, self.reference)

    @property
    def sources(self) -> Sources:
        """What tells whether it has changed since."""
        return sources_with(self.annotated, self.files)


class StressSettings(FolderSettings):
    """What the figures depend on besides the files."""

    format: int = FORMAT
    prediction: PredictionSettings
    has_reference: bool

    def differences(self, kept: Self) -> list[str]:
        """Names of what differs."""
        names = self.prediction.differences(kept.prediction)
        names += [name for name in ("format", "has_reference") if getattr(self, name) != getattr(kept, name)]
        return [name.replace("has_", "") for name in names]


@dataclass(frozen=True, kw_only=True)
class StressFolder(CaseFiles[CaseStress]):
    """Where what was tried is kept. A quick call tries a part of what another one does."""

    output: Path
    is_quick: bool
    kind: ClassVar = CaseStress

    @property
    def folder(self) -> Path:
        return self.output / HIDDEN

    def is_done(self, case: CaseWithFiles) -> bool:
        """Whether all that is asked for was tried, from the files that are there now."""
        kept = self.current(case)
        return kept is not None and (kept.tried == "all" or (self.is_quick and kept.tried == "quick"))

    def is_outdated(self, case: CaseWithFiles) -> bool:
        """Whether it was tried from other files than those that are there now."""
        kept = self.kept(case)
        return kept is not None and kept.sources != case.sources
