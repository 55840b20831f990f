"""A folder of what was found of each case: a file a case, which any number of processes write at the same time.

What is killed goes on from them. A record tells from which files it was found, so that a changed case is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Generic, Protocol, Self, TypeVar

from segfw.base.errors import DiskFull, UserError, raise_if_full, reason_of
from segfw.base.files import remove_partials
from segfw.base.locks import alone, claimed
from segfw.base.records import Record
from segfw.base.shared_work import CaseResult, Note

SETTINGS_FILE = "settings.json"
Sources = tuple[tuple[str, int, int], ...]  # of each file: name, bytes, last change in ns


class CaseRecord(Record):
    """What was found of a case, and from which files."""

    id: str
    sources: Sources


class TriedRecord(CaseRecord):
    """The same, or why nothing could be found: ``problem``, else ''."""

    problem: str = ""


class CaseWithFiles(Protocol):
    """A case, and what tells whether one of its files has changed."""

    @property
    def id(self) -> str: ...

    @property
    def sources(self) -> Sources: ...


class FolderSettings(Record):
    """What the records of a folder depend on besides the files."""

    def differences(self, kept: Self) -> list[str]:
        """Names of what differs, in words."""
        names = [name for name in type(self).model_fields if getattr(self, name) != getattr(kept, name)]
        return [name.replace("_", " ") for name in names]


RecordT = TypeVar("RecordT", bound=CaseRecord)
TriedT = TypeVar("TriedT", bound=TriedRecord)
CaseT = TypeVar("CaseT", bound=CaseWithFiles)
SettingsT = TypeVar("SettingsT", bound=FolderSettings)


class CaseFiles(Generic[RecordT]):
    """The files of records of one ``kind``, which a class beneath this one tells, and where they are."""

    kind: ClassVar[type[CaseRecord]]

    @property
    def folder(self) -> Path:
        """Where the files are."""
        raise NotImplementedError

    def is_done(self, case: CaseWithFiles) -> bool:
        """Whether all that is asked for was found, in the files that are there now."""
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

    def agree(
        self, settings: FolderSettings, own: Sequence[CaseWithFiles], *, overwrite: bool, otherwise: str, remedy: str
    ) -> None:
        """Says by which settings cases are done here; UserError if what is there was done by others.

        ``otherwise`` says so, 'FILE: was measured with other options', and ``remedy`` is what helps besides
        --overwrite. What is overwritten are the caller's ``own`` cases, because other parts may have done theirs; all
        cases where they were done by other settings.
        """
        with self.alone():
            old = self._settings(type(settings), overwrite=overwrite)
            different = [] if old is None else settings.differences(old)
            if different and not overwrite:
                raise UserError(f"{otherwise} ({', '.join(different)}); {remedy}, or --overwrite")
            is_same = old is not None and not different
            if overwrite and is_same:
                self.forget(own)
            elif overwrite:
                self.forget_all()
            if not is_same:
                settings.save(self.folder / SETTINGS_FILE)

    def _settings(self, kind: type[SettingsT], *, overwrite: bool) -> SettingsT | None:
        """What the folder was begun with; None if nothing is there, or nothing that can be read and ``overwrite``."""
        file = self.folder / SETTINGS_FILE
        try:
            return kind.load(file) if file.is_file() else None
        except UserError:
            if overwrite:
                return None
            raise

    def _file(self, case_id: str) -> Path:
        return self.folder / f"case_{case_id}.json"


class TriedCases(CaseFiles[TriedT]):
    """The same of records that may say why a case has failed: such a case is tried again by the next call."""

    def is_done(self, case: CaseWithFiles) -> bool:
        kept = self.current(case)
        return kept is not None and not kept.problem and self.is_enough(kept)

    def is_enough(self, kept: TriedT) -> bool:
        """Whether what was found of a case is all that is asked for."""
        return True

    def is_outdated(self, case: CaseWithFiles) -> bool:
        """Whether something was found in other files than those that are there now."""
        kept = self.kept(case)
        return kept is not None and not kept.problem and kept.sources != case.sources

    def find(self, case: CaseT, look: Callable[[CaseT], TriedT]) -> TriedT:
        """Keeps what ``look`` finds, as of the files before they are read: what changes meanwhile is seen next time."""
        sources = case.sources
        found = look(case).model_copy(update={"sources": sources})
        self.keep(found)
        return found

    def keep_failure(self, case: CaseWithFiles, error: Exception | None) -> None:
        """Notes why a case has failed, so that it has rows that say so; not of a full disk."""
        if not isinstance(error, DiskFull):
            problem = (reason_of(error) if error is not None else None) or str(error)
            self.keep(self.kind(id=case.id, sources=case.sources, problem=problem))  # type: ignore[call-arg, arg-type]


def work_once(folder: CaseFiles[RecordT], case: CaseT, work: Callable[[CaseT], Sequence[Note]]) -> CaseResult:
    """Does ``work``, which keeps what it finds and gives notes, unless that is there or another process is at it.

    Raises DiskFull where nothing can be kept.
    """
    try:
        with folder.claim(case) as is_ours:
            if not is_ours:
                return CaseResult(state="elsewhere")
            if folder.is_done(case):
                return CaseResult(state="there")
            return CaseResult(state="done", notes=tuple(work(case)))
    except Exception as error:
        raise_if_full(error, folder.folder / case.id)
        raise
