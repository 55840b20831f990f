"""A folder of what was found of each case: a file a case, which any number of processes write at the same time.

What is killed goes on from them. A record tells from which files it was found, so that a changed case is done again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from segfw.base.errors import UserError
from segfw.base.files import remove_partials
from segfw.base.locks import alone, claimed
from segfw.base.records import Record

SETTINGS_FILE = "settings.json"
Sources = tuple[tuple[str, int, int], ...]  # of each file: name, bytes, last change in ns


class CaseRecord(Record):
    """What was found of a case, and from which files."""

    id: str
    sources: Sources


class CaseWithFiles(Protocol):
    """A case, and what tells whether one of its files has changed."""

    @property
    def id(self) -> str: ...

    @property
    def sources(self) -> Sources: ...


RecordT = TypeVar("RecordT", bound=CaseRecord)
SettingsT = TypeVar("SettingsT", bound=Record)


class CaseFiles(Generic[RecordT]):
    """The files of records of one ``kind``, which a class beneath this one tells, and where they are."""

    kind: ClassVar[type[CaseRecord]]

    @property
    def folder(self) -> Path:
        """Where the files are."""
        raise NotImplementedError

    def current(self, case: CaseWithFiles) -> RecordT | None:
        """What was found of a case in the files that are there now; None if they have changed since, too."""
        kept = self.kept(case)
        return kept if kept is not None and kept.sources == case.sources else None

    def kept(self, case: CaseWithFiles) -> RecordT | None:
        """What was found of a case; None if nothing was, or by another version."""
        file = self._file(case.id)
        try:
            return self.kind.load(file) if file.is_file() else None  # type: ignore[return-value]
        except UserError:
            return None

    def keep(self, found: RecordT) -> None:
        """Writes what was found of a case."""
        found.save(self._file(found.id))

    def forget(self, cases: Sequence[CaseWithFiles]) -> None:
        """Lets cases be done again."""
        for case in cases:
            self._file(case.id).unlink(missing_ok=True)

    def forget_all(self) -> None:
        """Lets whatever is there be done again."""
        for file in self.folder.glob("case_*.json"):
            file.unlink(missing_ok=True)

    @contextmanager
    def claim(self, case: CaseWithFiles) -> Iterator[bool]:
        """Whether the case is ours while the block lasts; False if another process or thread has it."""
        with claimed(self.folder / f"{case.id}.lock") as is_ours:
            yield is_ours

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other process writes what all share: the settings and what is told of all cases."""
        with alone(self.folder / ".lock"):
            yield

    def clean(self) -> None:
        """Removes what killed processes left half-written."""
        if self.folder.is_dir():
            remove_partials(self.folder)

    def settings(self, kind: type[SettingsT], *, overwrite: bool) -> SettingsT | None:
        """What the folder was begun with; None if nothing is there, or nothing that can be read and ``overwrite``."""
        file = self.folder / SETTINGS_FILE
        try:
            return kind.load(file) if file.is_file() else None
        except UserError:
            if overwrite:
                return None
            raise

    def keep_settings(self, settings: Record) -> None:
        """Writes what the folder is begun with."""
        settings.save(self.folder / SETTINGS_FILE)

    def _file(self, case_id: str) -> Path:
        return self.folder / f"case_{case_id}.json"
