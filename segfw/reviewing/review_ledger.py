"""``review/ledger.csv``: how long people worked on what, a line for each thing that was decided."""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from segfw.base.file_names import REVIEW_FOLDER
from segfw.base.locks import alone
from segfw.base.printing import csv_text
from segfw.base.records import Record
from segfw.reviewing.review_log import LOCKS_FOLDER

LEDGER_FILE = "ledger.csv"
LEDGER_LOCK = "ledger.lock"


class LedgerRow(Record):
    """What was worked on, since the line before of the same case and user.

    ``structure`` is '' for the rest of a case: the time between the last decision and its end. ``decision`` is that of
    the structure, or the event that ended the case: finish, release, reject, lease-over.
    """

    case: str
    structure: str
    region: int | None
    user: str
    opened: str
    active_s: float
    idle_s: float
    slices_viewed: int
    slices_edited: int
    edited_voxels: int
    decision: str


COLUMNS = tuple(LedgerRow.model_fields)


def ledger_file(folder: Path) -> Path:
    """Where it lies in a folder of masks."""
    return folder / REVIEW_FOLDER / LEDGER_FILE


def add_rows(folder: Path, rows: list[LedgerRow]) -> None:
    """Adds lines at the end. What cannot be written is left out: the log alone counts."""
    path = ledger_file(folder)
    with suppress(OSError), alone(path.parent / LOCKS_FOLDER / LEDGER_LOCK):
        text = csv_text(COLUMNS, [[_cell(getattr(row, name)) for name in COLUMNS] for row in rows])
        if path.is_file() and path.stat().st_size:
            text = text.partition("\n")[2]
        with open(path, "ab", buffering=0) as file:
            size = file.tell()
            try:
                content = text.encode()
                if size and not _ends_line(path):
                    content = b"\n" + content
                if file.write(content) != len(content):
                    raise OSError("not all was written")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)


def read_ledger(folder: Path) -> list[LedgerRow]:
    """All lines; those that are damaged are passed over."""
    path = ledger_file(folder)
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        lines = list(csv.reader(file))
    rows = []
    for line in lines[1:]:
        with suppress(ValidationError, ValueError):
            rows.append(_row(dict(zip(COLUMNS, line, strict=True))))
    return rows


def _row(cells: dict[str, str]) -> LedgerRow:
    return LedgerRow(
        case=_text(cells["case"]),
        structure=_text(cells["structure"]),
        region=int(cells["region"]) if cells["region"] else None,
        user=_text(cells["user"]),
        opened=cells["opened"],
        active_s=float(cells["active_s"]),
        idle_s=float(cells["idle_s"]),
        slices_viewed=int(cells["slices_viewed"]),
        slices_edited=int(cells["slices_edited"]),
        edited_voxels=int(cells["edited_voxels"]),
        decision=cells["decision"],
    )


def _cell(value: object) -> object:
    return round(value, 1) if isinstance(value, float) else "" if value is None else value


def _text(cell: str) -> str:
    """Without the quote that keeps spreadsheets from taking a text for a formula."""
    return cell[1:] if cell[:2] in ("'=", "'+", "'-", "'@") else cell


def _ends_line(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
