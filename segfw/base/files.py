"""Files that are either whole or absent, and the removal of what dead writers left half done."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from zlib import crc32

import psutil

from segfw.base.errors import DiskFull, UserError, raise_if_full

PARTIAL = ".partial-"
PARTIAL_NAME = re.compile(rf"{PARTIAL}([0-9a-f]{{8}})-([0-9]+)-[0-9a-f]{{8}}-(.+)")  # machine, process, drawn, file
STALE_AFTER_S = 3600.0


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` that replaces it only when the block ends without an error.

    It gets the mode that the umask gives new files, whatever its writer gave it. What a process that died while it
    wrote the same file left behind is removed. Raises DiskFull where the disk is full, whatever the writer's error.
    """
    path = Path(path)
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partials(path.parent, name=path.name)
        mode = _mode_of_new_files(partial)
        yield partial
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        partial.chmod(mode)  # safetensors writes files that no one else can read
        os.replace(partial, path)
    except Exception as error:
        raise_if_full(error, path)
        raise
    finally:
        with suppress(OSError):
            partial.unlink()


def _mode_of_new_files(path: Path) -> int:
    """The mode of a new file at ``path``, by the umask and the folder's rules; the file is gone again."""
    number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(number).st_mode & 0o777
    finally:
        os.close(number)
        path.unlink()


def partial_path(path: Path) -> Path:
    """A name beside ``path`` for what is not finished, which no other thread, process or machine uses.

    It keeps the ending, because image writers choose the format by it, and tells which process writes.
    """
    return path.with_name(f"{PARTIAL}{_this_machine()}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def remove_partials(folder: Path, *, name: str | None = None) -> None:
    """Removes unfinished files and folders in ``folder``, of one ``name`` or of all, whose writers are dead.

    Those are processes of this machine that are gone; and of others if nobody has written to the file for an hour.
    """
    for partial in Path(folder).glob(f"{PARTIAL}*"):
        match = PARTIAL_NAME.fullmatch(partial.name)
        if match is None or (name is not None and match[3] != name):
            continue
        with suppress(OSError):  # another process was faster
            is_here = match[1] == _this_machine()
            is_stale = time.time() - partial.stat().st_mtime >= STALE_AFTER_S
            if _is_dead(int(match[2])) if is_here else is_stale:
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()


def _is_dead(pid: int) -> bool:
    """True for zombies too, which have ended but keep their number until their parent asks for them."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:  # another user's
        return False


@cache
def _this_machine() -> str:
    try:
        numbering = os.stat("/proc/self/ns/pid").st_ino  # containers of one machine number their processes apart
    except OSError:
        numbering = 0
    return f"{crc32(f'{socket.gethostname()} {numbering}'.encode()):08x}"


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically; half characters, of names that are not UTF-8, as \\udcXX."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def new_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside ``folder`` that becomes it when the block ends without an error.

    ``folder`` must not be there or be empty; with ``overwrite`` it goes when the new one is in its place. What a
    process that died while it made the same folder left behind is removed. Raises UserError if something is there at
    the end, which another process may have made meanwhile, and DiskFull where the disk is full.
    """
    folder = Path(folder).resolve()
    missing = [parent for parent in folder.parents if not parent.exists()]
    partial = partial_path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_partials(folder.parent, name=folder.name)
        partial.mkdir()
        yield partial
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        old = partial_path(folder)
        if overwrite:
            with suppress(FileNotFoundError):
                folder.rename(old)
        try:
            partial.rename(folder)
        except OSError:
            if folder.exists():
                raise UserError(f"{folder}: was made by another process meanwhile; give another folder") from None
            if old.exists():
                old.rename(folder)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):  # another process uses it
                parent.rmdir()
        if isinstance(error, DiskFull):  # of a file in the temporary folder, whose name tells nobody anything
            raise DiskFull(str(error).replace(str(partial), str(folder))) from error
        if isinstance(error, Exception):
            raise_if_full(error, folder)
        raise
