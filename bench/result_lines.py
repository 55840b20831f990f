"""Results that are kept as lines of JSON in one file, which is committed: each is added, none is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self, TypeVar

from segfw.base import files
from segfw.base.records import Record, UserError


class Kept(Protocol):
    """A record that is told apart from others of its kind by ``key``."""

    @property
    def key(self) -> tuple[object, ...]: ...

    @classmethod
    def parse(cls, text: str | bytes, source: Path | str) -> Self: ...


K = TypeVar("K", bound=Kept)


def append_line(path: Path, result: Record) -> None:
    """Adds a line, in one write, so that two processes may write to one file; a line that was cut off ends before."""
    files.append_line(path, result.model_dump_json())


def read_lines(kind: type[K], path: Path) -> list[K]:
    """The newest result of each key, in the order of their lines; UserError names a line that is none."""
    found: dict[tuple[object, ...], K] = {}
    for source, line in sourced_lines(path):
        result = kind.parse(line, source)
        found.pop(result.key, None)  # the newest stands last
        found[result.key] = result
    return list(found.values())


def require_lines(kind: type[K], path: Path, command: str) -> list[K]:
    """As ``read_lines``; UserError where there is none, which names the command that makes some."""
    lines = read_lines(kind, path)
    if not lines:
        raise UserError(f"{path}: holds no line; python -m bench {command} makes some")
    return lines


def sourced_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """'FILE, line 3' and what stands there, of every line that is not empty; nothing without a file."""
    if path.is_file():
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if line.strip():
                yield f"{path}, line {number}", line
