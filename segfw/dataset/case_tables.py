"""Tables of cases that people wrote: lines of a CSV, TSV or semicolon file, and the columns for case and patient."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence, Set
from pathlib import Path
from unicodedata import normalize

from segfw.base.records import UserError
from segfw.base.written_by_people import Unreadable, read_text

CASE_COLUMNS = frozenset({"case", "caseid", "casename", "id", "image", "imageid", "name", "identifier", "scan"})
GROUP_COLUMNS = frozenset({"group", "groupid", "patient", "patientid", "subject", "subjectid", "participantid"})

Line = tuple[int, list[str]]  # its number in the file, and its cells


def cell_of(row: Sequence[str], column: int) -> str:
    """The text in a column, '' where the line is shorter."""
    return row[column].strip() if column < len(row) else ""


def table_rows(path: Path, columns: str) -> list[Line]:
    """Line number and cells of every line that is not empty, the header first; at least one.

    Raises UserError, which says which ``columns`` such a table has ('case and patient').
    """
    try:
        text = normalize("NFC", read_text(path))  # as ids of cases, which are names of files, are taken
    except Unreadable as error:
        raise UserError(f"{path}: cannot be read as text ({error.reason}); save it as CSV in UTF-8") from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)  # spreadsheets in many countries write semicolons
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:  # a cell of more than 128 kB
        raise UserError(f"{path}: is no table with the columns {columns} ({error}); correct it") from None
    if not rows:
        raise UserError(f"{path}: is empty; give it the columns {columns}")
    return rows


def column_of(path: Path, header: Line, names: Set[str], wanted: str) -> int:
    """Where the only column lies that is called as one of ``names``; UserError without it, or where there are more."""
    found = columns_called(header, names)
    if len(found) == 1:
        return found[0]
    problem = "no column" if not found else f"{len(found)} columns"
    raise UserError(f"{path}: has {problem} for the {wanted} ({shown(header)}); name just one column {wanted!r}")


def columns_called(header: Line, names: Set[str]) -> list[int]:
    """The columns that are called as one of ``names``; upper case, blanks and signs are no difference."""
    return [index for index, cell in enumerate(header[1]) if re.sub(r"[^a-z]", "", cell.casefold()) in names]


def shown(header: Line) -> str:
    """The columns' names, with commas."""
    return ", ".join(cell.strip() for cell in header[1])
