"""The table of outcomes: what became of each patient, and what is known of him anyway."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segfw.base.records import Record, UserError
from segfw.base.words import count, did_you_mean, listed
from segfw.dataset.case_tables import CASE_COLUMNS, GROUP_COLUMNS, Line, cell_of, columns_called, shown, table_rows
from segfw.outcomes.feature_table import DECIMAL_COMMA, MISSING, number_of

# Said of an outcome, with what is said where it did not happen
WORDS = {"1": "0", "yes": "no", "true": "false", "是": "否"}


class Covariate(Record):
    """A column of the table. Of one that holds two texts the second counts 1, the first 0."""

    column: str
    texts: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """As it is called in a model."""
        return self.column if self.texts is None else f"{self.column} = {self.texts[1]}"


@dataclass(frozen=True, kw_only=True)
class OutcomeRow:
    """A line of the table; ``case`` or ``patient`` is '' where it has no such column, other cells where they miss."""

    line: int
    case: str
    patient: str
    outcome: str
    covariates: tuple[str, ...]

    @property
    def has_outcome(self) -> bool:
        """Whether it is known."""
        return self.outcome != ""


@dataclass(frozen=True, kw_only=True)
class OutcomeTable:
    """All lines of a table."""

    path: Path
    target: str
    columns: tuple[str, ...]  # of the covariates
    rows: tuple[OutcomeRow, ...]


def read_outcomes(path: Path, target: str, covariates: Sequence[str]) -> OutcomeTable:
    """The lines, with texts as they are; UserError without a column that is asked for, or one of cases or patients."""
    header, *lines = table_rows(path, "case or patient, and the outcome")
    named = {name: _column(path, header, name) for name in (target, *covariates)}
    twice = next((name for name, times in Counter([target, *covariates]).items() if times > 1), None)
    if twice is not None:
        what = "target and covariate at once" if twice == target else "named twice as a covariate"
        raise UserError(f"{path}: column {twice!r} is {what}; leave one out")
    case_column = _key_column(path, header, CASE_COLUMNS, named, "case")
    patient_column = _key_column(path, header, GROUP_COLUMNS, named, "patient")
    if case_column is None and patient_column is None:
        raise UserError(f"{path}: has no column for the case or the patient ({shown(header)}); name one column 'case'")
    cells_of = {name: _known(cell_of(cells, column) for _, cells in lines) for name, column in named.items()}
    rows = []
    for place, (number, cells) in enumerate(lines):
        row = OutcomeRow(
            line=number,
            case="" if case_column is None else cell_of(cells, case_column),
            patient="" if patient_column is None else cell_of(cells, patient_column),
            outcome=cells_of[target][place],
            covariates=tuple(cells_of[name][place] for name in covariates),
        )
        for what, column, found in (("case", case_column, row.case), ("patient", patient_column, row.patient)):
            if column is not None and not found:
                raise UserError(f"{path}: line {number} has no {what}; fill it in")
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: has no line but its head; add the patients")
    return OutcomeTable(path=path, target=target, columns=tuple(covariates), rows=tuple(rows))


def _known(cells: Iterable[str]) -> list[str]:
    """The cells of a column, '' where they say that there is no value.

    'none' says so among numbers. Among texts it is one of them: complications that are none, leak or bleeding.
    """
    cells = list(cells)
    is_of_numbers = all(_is_number(cell) for cell in cells)
    missing = MISSING if is_of_numbers else MISSING - {"none"}
    return ["" if cell.casefold() in missing else cell for cell in cells]


def _column(path: Path, header: Line, name: str) -> int:
    names = [cell.strip() for cell in header[1]]
    if names.count(name) != 1:
        problem = "has no column" if name not in names else "has two columns"
        raise UserError(f"{path}: {problem} {name!r} ({shown(header)}){did_you_mean(name, names) or '; correct it'}")
    return names.index(name)


def _key_column(path: Path, header: Line, called: frozenset[str], named: Mapping[str, int], wanted: str) -> int | None:
    """The column of the case or the patient, which is neither target nor covariate."""
    found = [index for index in columns_called(header, called) if index not in named.values()]
    exact = [index for index in found if header[1][index].strip().casefold() == wanted]
    if len(exact) == 1:
        return exact[0]
    if len(found) > 1:
        raise UserError(
            f"{path}: has {len(found)} columns for the {wanted} ({shown(header)}); call just one {wanted!r}"
        )
    return found[0] if found else None


def event_of(table: OutcomeTable, event: str | None) -> str:
    """The value that is the event: the one that is asked for, else 1, yes, true or 是 of two that mean yes and no."""
    distinct: dict[str, str] = {}  # 1 and 1.0 are one value
    for value in sorted({row.outcome for row in table.rows if row.has_outcome}):
        distinct.setdefault(_plain(value), value)
    values = list(distinct.values())
    shown_values = listed(values[:6], "and") + (", ..." if len(values) > 6 else "")
    if event is not None:
        same = [value for value in values if same_value(value, event)]
        if not same:
            raise UserError(f"{table.path}: no patient has {event!r} in column {table.target!r} ({shown_values})")
        return same[0]
    if not values:
        raise UserError(f"{table.path}: column {table.target!r} is empty; fill in the outcome of each patient")
    if any(DECIMAL_COMMA.fullmatch(value) for value in values):
        raise UserError(f"{table.path}: column {table.target!r} has {shown_values}; write 1 and 0")
    for value in values:
        against = WORDS.get(_plain(value))
        others = {_plain(other) for other in values if other != value}
        if against is not None and others <= {against}:
            return value
    if len(values) == 1:
        raise UserError(
            f"{table.path}: all patients have {values[0]!r} in column {table.target!r}; a model needs both outcomes"
        )
    raise UserError(
        f"{table.path}: column {table.target!r} has the values {shown_values}; say with --event which one is "
        "the event, and all others are the rest"
    )


def same_value(first: str, second: str) -> bool:
    """Whether two cells mean the same: 1 and 1.0 do, Yes and yes too."""
    return _plain(first) == _plain(second)


def _plain(cell: str) -> str:
    try:
        return f"{float(cell):.12g}"
    except ValueError:
        return cell.casefold()


def covariates_of(table: OutcomeTable) -> tuple[Covariate, ...]:
    """What each column holds: numbers, or two texts."""
    found = []
    for index, column in enumerate(table.columns):
        cells = {row.covariates[index] for row in table.rows}
        known = cells - {""}
        texts = sorted(cell for cell in known if cell.casefold() in MISSING or not _is_number(cell))
        if not known:
            raise UserError(f"{table.path}: column {column!r} is empty; leave it out of --covariates")
        comma = next((row for row in table.rows if DECIMAL_COMMA.fullmatch(row.covariates[index])), None)
        if comma is not None:
            raise UserError(
                f"{table.path}: line {comma.line}, column {column!r} has {comma.covariates[index]!r}; write numbers "
                "with a point, not a comma"
            )
        if not texts:
            found.append(Covariate(column=column))
        elif len(known) == len(texts) == 2:
            found.append(Covariate(column=column, texts=(texts[0], texts[1])))
        else:
            line = next(row.line for row in table.rows if row.covariates[index] == texts[0])
            if len(known) == 1:
                raise UserError(
                    f"{table.path}: all patients have {texts[0]!r} in column {column!r}; leave it out of --covariates"
                )
            raise UserError(
                f"{table.path}: line {line}, column {column!r} has {texts[0]!r}; a covariate is a number or one of two "
                f"texts, and this column has {count(len(known), 'value')}; give it numbers, or a column of 0 and 1 for "
                "each kind"
            )
    return tuple(found)


def _is_number(cell: str) -> bool:
    try:
        number_of(cell)
    except ValueError:
        return False
    return True


def covariate_value(table: OutcomeTable, row: OutcomeRow, index: int, covariate: Covariate) -> float:
    """As a number, NaN where it is missing; UserError of a text that the model does not know."""
    cell = row.covariates[index]
    if not cell:
        return math.nan
    wanted = "a number"
    if covariate.texts is not None:
        for value, text in enumerate(covariate.texts):
            if cell == text:
                return float(value)
        wanted = listed(map(repr, covariate.texts))
    elif _is_number(cell):
        return number_of(cell)
    raise UserError(
        f"{table.path}: line {row.line}, column {covariate.column!r} has {cell!r}; the model knows {wanted} there"
    )
