"""Frozen records kept as strict JSON, errors a user can act on, and files that are either whole or absent."""

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
from typing import Self
from zlib import crc32

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

GIGABYTE = 1024**3
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # of a configuration or fold, as part of a path everywhere
PARTIAL, STALE_AFTER_S = ".partial-", 3600.0
PARTIAL_NAME = re.compile(rf"{PARTIAL}([0-9a-f]{{8}})-([0-9]+)-[0-9a-f]{{8}}-(.+)")  # machine, process, drawn, file


class UserError(Exception):
    """The user's input is wrong. The message is one sentence: which file, what value, what to do."""


class Record(BaseModel):
    """Base of every decision that is kept in a work folder: frozen, and no unknown or missing key passes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def save(self, path: Path) -> None:
        """Writes the record as indented JSON, atomically."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a record; raises UserError naming the file and the field that is wrong."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); is this the folder segfw wrote?") from None
        except UnicodeDecodeError:
            raise UserError(f"{path}: is not text; restore the file or make it again") from None
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str | bytes, source: Path | str) -> Self:
        """The record in a text of JSON; raises UserError naming ``source`` and the field that is wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the file"
            raise UserError(f"{source}: field {field!r}: {first['msg']}; restore the file or make it again") from None


def count(number: int, noun: str) -> str:
    """'1 case', '2 cases'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` that replaces it only when the block ends without an error.

    What a process that died while it wrote the same file left behind is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(path.parent, name=path.name)
    partial = partial_path(path)
    try:
        yield partial
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
    """Writes a UTF-8 text file atomically."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
