"""Locks that the system frees when their process ends, however it ends, so that nothing is held by the dead."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from segfw.base.errors import UserError
from segfw.base.records import Record

HOLDER_ENDING = ".json"  # added to the lock's name: who has it


class Busy(UserError):
    """Another process is at it."""


class Holder(Record):
    """Who has a lock, and since when (ISO 8601)."""

    host: str
    process: int
    since: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since}"


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether the lock at ``path`` is ours while the block lasts; False if another process or thread has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock at ``path`` now; where that cannot be tried, whether it says so.

    It is tried for a moment, in which another process would find it taken: for those who ask, not for those who work.
    """
    if not path.is_file():
        return False
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # a folder that may only be read
        return _holder_file(path).is_file()
    lock.release()
    return False


def holder_now(path: Path) -> Holder | None:
    """Who holds the lock at ``path`` now, None if nobody does. Nothing is tried where nobody says that he does."""
    if not _holder_file(path).is_file() or not is_held(path):
        return None
    try:
        return Holder.load(_holder_file(path))
    except UserError:  # let go a moment ago
        return None


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Waits until no other process or thread is in such a block: for short decisions and files they share."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


@contextmanager
def held(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Holds the lock at ``path`` while the block lasts; raises Busy if another process has it, which it names.

    ``what`` is what the other one does, such as 'WORK/runs/2d/fold_0: is being trained'.
    """
    with claimed(path) as is_ours:
        if not is_ours:
            raise Busy(f"{what} by {_holder(path)}; {remedy}")
        _note_holder(path)
        try:
            yield
        finally:
            _holder_file(path).unlink(missing_ok=True)


@contextmanager
def in_turn(path: Path, what: str) -> Iterator[None]:
    """Holds the lock at ``path`` while the block lasts, and waits for it, saying for whom, if another one has it.

    Its folder is made, and goes again where the block leaves nothing in it.
    """
    is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{what} by {_holder(path)}; waiting until it ends", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        _note_holder(path)
        yield
    finally:
        _holder_file(path).unlink(missing_ok=True)
        if is_new and [each.name for each in path.parent.iterdir()] == [path.name]:
            with suppress(OSError):  # another process waits there
                path.unlink()
                path.parent.rmdir()
        lock.release()


def _holder_file(path: Path) -> Path:
    return path.with_name(path.name + HOLDER_ENDING)


def _note_holder(path: Path) -> None:
    since = datetime.now(UTC).astimezone().isoformat(sep=" ", timespec="seconds")
    with suppress(OSError):  # a full disk: the lock holds without it
        Holder(host=socket.gethostname(), process=os.getpid(), since=since).save(_holder_file(path))


def _holder(path: Path) -> str:
    try:
        return str(Holder.load(_holder_file(path)))
    except UserError:  # it took the lock a moment ago
        return "another process"
