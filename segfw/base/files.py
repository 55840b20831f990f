"""Files that are either whole or absent, and the removal of what dead writers left half done."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from zlib import crc32

import psutil

from segfw.base.errors import DiskFull, UserError, raise_if_full

PARTIAL = ".partial-"
PARTIAL_NAME = re.compile(rf"{PARTIAL}([0-9a-f]{{8}})-([0-9]+)-[0-9a-f]{{8}}-(.+)")  # machine, process, drawn, file
STALE_AFTER_S = 3600.0
WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
OPEN_ELSEWHERE = (5, 32, 33, 1224)  # Windows: access denied, sharing violation, lock violation, mapped into memory
# What file managers put into any folder that is looked at; a folder of nothing else is empty.
OF_FILE_MANAGERS = (".DS_Store", "Thumbs.db", "desktop.ini")


@contextmanager
def whole_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` that replaces it only when the block ends without an error.

    Without ``overwrite`` it raises UserError if something has that name at the end, made by another process meanwhile.

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
        with open(partial, "rb+") as written:  # Windows flushes only what may be written to
            os.fsync(written.fileno())
        partial.chmod(mode)  # safetensors writes files that no one else can read
        if overwrite:
            once_free(lambda: os.replace(partial, path))
        else:
            _name_it(partial, path)
    except Exception as error:
        raise_if_full(error, path)
        raise
    finally:
        with suppress(OSError):
            partial.unlink()


def once_free(rename: Callable[[], object], wait_s: tuple[float, ...] = WAITS_S) -> None:
    """Does a renaming, again after each of ``wait_s`` while the system says that somebody has the file open.

    Windows alone says so, of every file that a reader, a virus scanner or an indexer has at this moment.
    """
    for pause_s in wait_s:
        try:
            rename()
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in OPEN_ELSEWHERE:
                raise
            time.sleep(pause_s)
    rename()


def _name_it(partial: Path, path: Path) -> None:
    """Gives a finished file its name, if nothing has it."""
    try:
        os.link(partial, path)  # which replaces nothing; the first name goes with the rest
    except OSError:  # so, too, where the disk has no links
        if path.exists():
            raise UserError(f"{path}: was made by another process meanwhile; give another name") from None
        once_free(lambda: os.replace(partial, path))


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


def link_or_copy(source: Path, target: Path) -> int:
    """Gives a file a second name, in place of whatever has it; a copy where the disk knows no such names.

    Returns the bytes that were copied. Neither must be changed in place afterwards, only replaced.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
        return 0
    except OSError:  # another disk, or one without links
        with whole_file(target) as partial:
            shutil.copyfile(source, partial)
        return source.stat().st_size


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically; half characters, of names that are not UTF-8, as \\udcXX."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but what file managers put into any."""
    return all(path.name in OF_FILE_MANAGERS for path in Path(folder).iterdir())


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
        if folder.is_dir() and is_empty(folder):
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
        old = partial_path(folder)
        if overwrite:
            with suppress(FileNotFoundError):
                once_free(lambda: folder.rename(old))
        try:
            once_free(lambda: partial.rename(folder))
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


def append_line(path: Path, line: str) -> None:
    """Adds a line, in one write, so that two processes may write to one file; a line that was cut off ends before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_torn = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with open(path, "ab", buffering=0) as file:
        file.write((("\n" if is_torn else "") + line + "\n").encode())
