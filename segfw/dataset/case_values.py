"""What a column of a table says of every case: a site, a scanner, an age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from segfw.base.errors import UserError
from segfw.base.words import count, listed
from segfw.dataset.case_tables import (
    CASE_COLUMNS,
    GROUP_COLUMNS,
    Line,
    cell_of,
    columns_called,
    shown,
    table_rows,
)


@dataclass(frozen=True, kw_only=True)
class TableColumn:
    """A column of a table, as ``FILE.csv:COLUMN`` names it."""

    path: Path
    column: str

    @property
    def text(self) -> str:
        """As it is typed."""
        return f"{self.path}:{self.column}"


def table_column(typed: str, option: str) -> TableColumn:
    """The file and column of ``FILE.csv:COLUMN``, either of which may hold colons; UserError names the ``option``."""
    places = [place for place, letter in enumerate(typed) if letter == ":" and 0 < place < len(typed) - 1]
    for place in places:
        if Path(typed[:place]).is_file():
            return TableColumn(path=Path(typed[:place]), column=typed[place + 1 :].strip())
    if Path(typed).is_file() or not places:
        raise UserError(f"{option} {typed}: names no column; give the table and its column, such as sites.csv:site")
    raise UserError(f"{option} {typed}: there is no file {typed[: places[-1]]}; give FILE.csv:COLUMN")


def values_of_cases(asked: TableColumn, patient_of: Mapping[str, str]) -> dict[str, str]:
    """What the column says of every case of ``patient_of`` (case -> patient).

    A line is of the case or of the patient that stands in the table's column for these. Lines of others are passed
    over: a table may be of a whole hospital.

    Raises UserError if the file has no such column, or no line for a case, or says two things of one.
    """
    path = asked.path
    header, *rows = table_rows(path, f"case and {asked.column}")
    value_column = _asked_column(asked, header)
    wanted = {*patient_of, *patient_of.values()}
    key_column = _key_column(path, header, rows, wanted, value_column)
    found: dict[str, str] = {}
    for number, row in rows:
        key = cell_of(row, key_column)
        if key not in wanted:
            continue
        value = cell_of(row, value_column)
        if not value:
            raise UserError(f"{path}: line {number} ({key}) has no {asked.column}; fill it in")
        if found.setdefault(key, value) != value:
            raise UserError(
                f"{path}: line {number} says that {key!r} has {asked.column} {value!r}, an earlier one {found[key]!r}; "
                "keep the right line"
            )
    values = {case: found.get(case, found.get(patient, "")) for case, patient in patient_of.items()}
    missing = sorted(case for case, value in values.items() if not value)
    if missing:
        more = f" ({len(missing)} missing)" if len(missing) > 1 else ""
        raise UserError(f"{path}: has no line for case {missing[0]!r} or its patient; add it{more}")
    return values


def values_of_patients(values: Mapping[str, str], patient_of: Mapping[str, str], asked: TableColumn) -> dict[str, str]:
    """The value of every patient; UserError for one whose cases have different values."""
    cases: dict[str, str] = {}
    for case in sorted(values):
        first = cases.setdefault(patient_of[case], case)
        if values[first] != values[case]:
            raise UserError(
                f"{asked.path}: patient {patient_of[case]!r} is in two groups, {values[first]!r} ({first}) and "
                f"{values[case]!r} ({case}) of {asked.column}; correct it, or say with --groups which cases are of one "
                "patient"
            )
    return {patient: values[case] for patient, case in cases.items()}


def _asked_column(asked: TableColumn, header: Line) -> int:
    """Where the column lies; as it is written, else with upper case, blanks and signs aside."""
    exact = [index for index, cell in enumerate(header[1]) if cell.strip() == asked.column]
    found = exact or [index for index, cell in enumerate(header[1]) if _plain(cell) == _plain(asked.column)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{asked.path}: has {count(len(found), 'column')} called {asked.column!r}; rename all but one")
    raise UserError(f"{asked.path}: has no column {asked.column!r}; name one of {listed(_names(header))}")


def _names(header: Line) -> list[str]:
    return [cell.strip() for cell in header[1] if cell.strip()]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _key_column(path: Path, header: Line, rows: Sequence[Line], wanted: Set[str], value_column: int) -> int:
    """The column that says of which case, or of which patient, a line is: the one that holds most of ``wanted``."""
    called = [*columns_called(header, CASE_COLUMNS), *columns_called(header, GROUP_COLUMNS)]
    candidates = [index for index in called if index != value_column]
    if not candidates:
        raise UserError(f"{path}: has no column for the case or the patient ({shown(header)}); call one 'case'")
    return max(candidates, key=lambda index: len({cell_of(row, index) for _, row in rows} & wanted))
