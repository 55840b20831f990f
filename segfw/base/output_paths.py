"""Where results may go: never inside a folder that is read, and never in the place of a file that is something else."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

from segfw.base.records import UserError

PAGE_ENDINGS = (".html", ".htm")
LARGEST_LOOK = 1 << 26  # bytes of a JSON file that is looked into


def require_outside(output: Path | None, inputs: Iterable[Path | None]) -> None:
    """UserError if a result would lie in a folder that is read, or inside of one, however deep."""
    if output is None:
        return
    place = Path(output).resolve()
    for folder in inputs:
        if folder is not None and Path(folder).is_dir() and Path(folder).resolve() in (place, *place.parents):
            raise UserError(f"{output}: lies inside {folder}, which is only read; give a place outside of it")


def require_distinct(names: Iterable[str], folder: Path, ignores_case: Callable[[Path], bool] | None = None) -> None:
    """UserError if two names would be one file in ``folder``, on a disk that does not tell A from a.

    Such are those of Windows and mostly those of the Mac; the second file would take the place of the first. Asked of
    the disk (or of ``ignores_case``) only where two names differ in capital letters alone.
    """
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(name.casefold(), name)
        if other == name:
            continue
        if not (ignores_case or _ignores_case)(Path(folder)):
            return
        raise UserError(
            f"{folder}: the cases {other} and {name} would be one file, because this disk takes capital letters for "
            "small ones; rename one of them"
        )


def nearest_folder(path: Path) -> Path:
    """The folder, or the nearest one above it that is there: what is asked of its disk needs no new one."""
    path = path.absolute()
    return path if path.is_dir() else next(parent for parent in path.parents if parent.is_dir())


def _ignores_case(folder: Path) -> bool:
    with tempfile.NamedTemporaryFile(dir=nearest_folder(folder), prefix=".case-") as probe:
        path = Path(probe.name)
        return path.with_name(path.name.swapcase()).exists()


def require_replaceable(output: Path | None, endings: tuple[str, ...], is_own: Callable[[Path], bool]) -> None:
    """UserError unless ``output`` has one of the ``endings``, and what is there already is a file that ``is_own``."""
    if output is None:
        return
    path = Path(output)
    if path.suffix.lower() not in endings:
        raise UserError(f"{output}: does not end in {' or '.join(endings)}; give such a name")
    if path.is_dir():
        raise UserError(f"{output}: is a folder; give the name of a file")
    if path.exists() and not is_own(path):
        raise UserError(f"{output}: is there already and not written by this command; give another name, or remove it")


def is_page(path: Path) -> bool:
    """Whether a file is HTML."""
    with open(path, "rb") as file:
        return file.read(64).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def is_json_with(*keys: str) -> Callable[[Path], bool]:
    """Whether a file is a JSON object that has these keys; an empty one passes too."""

    def is_such(path: Path) -> bool:
        if path.stat().st_size > LARGEST_LOOK:
            return False
        try:
            content = json.loads(path.read_bytes() or b"{}")
        except (ValueError, RecursionError):
            return False
        return isinstance(content, dict) and (not content or set(keys) <= content.keys())

    return is_such


def is_table_of(*columns: str) -> Callable[[Path], bool]:
    """Whether a CSV file begins with these columns."""

    def is_such(path: Path) -> bool:
        with open(path, "rb") as file:
            head = file.readline().decode("utf-8-sig", "replace").rstrip("\r\n")
        return head.split(",")[: len(columns)] == list(columns)

    return is_such


def in_file_name(label: str) -> str:
    """The label without what would make a folder or no file name; no two labels become one."""
    return re.sub(r'[/\\:*?"<>|%]', lambda found: quote(found[0], safe=""), label)
