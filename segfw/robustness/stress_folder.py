"""What is known of each case while changes are tried: a file a case, which any number of processes write.

They lie in OUTPUT/.segfw. What is killed goes on from them, and a report of fewer changes is made of them without
predicting anything again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from segfw.base.file_names import HIDDEN
from segfw.base.files import remove_partials
from segfw.base.locks import alone, claimed
from segfw.base.printing import printable
from segfw.base.records import Record, UserError
from segfw.dataset.labels import LabelMap
from segfw.images.formats import size_and_change
from segfw.inference.mask_settings import PredictionSettings
from segfw.robustness.stress_records import CaseStress, Sources

SETTINGS_FILE = "settings.json"
FORMAT = 1  # of what is kept; raised where figures mean something else


@dataclass(frozen=True, kw_only=True)
class StressCase:
    """An image that is changed, and the expert's mask if there is one; ``label_map`` says what its values mean."""

    id: str
    images: tuple[Path, ...]
    reference: Path | None = None
    label_map: LabelMap = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All that its figures come from."""
        return self.images if self.reference is None else (*self.images, self.reference)

    @property
    def sources(self) -> Sources:
        """What tells whether one of its files has changed; not their folders, which may be moved."""
        return tuple((printable(path.name), *size_and_change(path)) for path in self.files)


class StressSettings(Record):
    """What the figures depend on besides the files."""

    format: int = FORMAT
    prediction: PredictionSettings
    has_reference: bool

    def differences(self, kept: StressSettings) -> list[str]:
        """Names of what differs."""
        names = self.prediction.differences(kept.prediction)
        names += [name for name in ("format", "has_reference") if getattr(self, name) != getattr(kept, name)]
        return [name.replace("has_", "") for name in names]


@dataclass(frozen=True, kw_only=True)
class StressFolder:
    """Where what was tried is kept. A quick call tries a part of what another one does."""

    output: Path
    is_quick: bool

    @property
    def path(self) -> Path:
        """The folder of the cases' files."""
        return self.output / HIDDEN

    def is_done(self, case: StressCase) -> bool:
        """Whether all that is asked for was tried, from the files that are there now."""
        kept = self.current(case)
        return kept is not None and (kept.tried == "all" or (self.is_quick and kept.tried == "quick"))

    def is_outdated(self, case: StressCase) -> bool:
        """Whether it was tried from other files than those that are there now."""
        kept = self.kept(case)
        return kept is not None and kept.sources != case.sources

    def current(self, case: StressCase) -> CaseStress | None:
        """What was found in the files that are there now."""
        kept = self.kept(case)
        return kept if kept is not None and kept.sources == case.sources else None

    def kept(self, case: StressCase) -> CaseStress | None:
        """What was found of a case; None if nothing was, or by another version."""
        file = self._file(case.id)
        try:
            return CaseStress.load(file) if file.is_file() else None
        except UserError:
            return None

    def keep(self, found: CaseStress) -> None:
        """Writes what was found of a case so far."""
        found.save(self._file(found.id))

    def forget(self, cases: Sequence[StressCase]) -> None:
        """Lets cases be tried again."""
        for case in cases:
            self._file(case.id).unlink(missing_ok=True)

    @contextmanager
    def claim(self, case: StressCase) -> Iterator[bool]:
        """Whether the case is ours while the block lasts; False if another process or thread has it."""
        with claimed(self.path / f"{case.id}.lock") as is_ours:
            yield is_ours

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other process writes what all share: the settings and the report."""
        with alone(self.path / ".lock"):
            yield

    def clean(self) -> None:
        """Removes what killed processes left half-written."""
        if self.path.is_dir():
            remove_partials(self.path)

    def _file(self, case_id: str) -> Path:
        return self.path / f"case_{case_id}.json"


def agree_on_settings(
    folder: StressFolder, settings: StressSettings, cases: Sequence[StressCase], *, overwrite: bool
) -> None:
    """Says what is tried here; UserError if what is there is of another model or other options."""
    file = folder.path / SETTINGS_FILE
    with folder.alone():
        old = _kept_settings(file, overwrite=overwrite)
        different = settings.differences(old) if old is not None else []
        if different and not overwrite:
            raise UserError(
                f"{folder.output}: is of another model or other options ({', '.join(different)}); give another folder, "
                "or --overwrite"
            )
        if overwrite:
            folder.forget(cases)
            if different:
                for kept in folder.path.glob("case_*.json"):
                    kept.unlink(missing_ok=True)
        if old is None or different:
            settings.save(file)


def _kept_settings(file: Path, *, overwrite: bool) -> StressSettings | None:
    """None if there are none, or, where they may be overwritten, such as cannot be read."""
    try:
        return StressSettings.load(file) if file.is_file() else None
    except UserError:
        if overwrite:
            return None
        raise
