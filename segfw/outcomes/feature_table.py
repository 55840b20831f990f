"""The table of features: what ``measure`` writes, or any other table of cases and numbers."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segfw.base.records import UserError
from segfw.base.words import count, listed
from segfw.dataset.case_tables import CASE_COLUMNS, GROUP_COLUMNS, Line, cell_of, column_of, columns_called, table_rows

MISSING = frozenset({"", "na", "n/a", "nan", "none", "null"})
PATIENT_COLUMNS = GROUP_COLUMNS - {"group", "groupid"}  # a group may be one of treatment
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
STRUCTURE = "structure"
SETTINGS = "settings"
STATUS = "status"
# Columns of measure's tables that are no features: names, and what depends on the scan and on how the patient lay
FACTS = frozenset({"value", STATUS, "reason", SETTINGS, "english", "chinese", "scheme", "code", "axes_plane"})
OF_THE_SCAN = re.compile(r"centroid_.*|voxels|cut_share|volume_(low|high)_ml")
DIGEST_LETTERS = 16
FEWEST_TELLING = 3  # features, which two patients do not have alike by chance


@dataclass(frozen=True, kw_only=True)
class FeatureTable:
    """The features of every case, a row each (cases, features); NaN is missing.

    ``settings`` are the letters by which ``measure --radiomics`` tells how images were brought to grey levels; '' where
    the table does not say. ``patient_of`` are the patients of cases, where it has a column for them.
    """

    path: Path
    cases: tuple[str, ...]
    patient_of: Mapping[str, str]
    names: tuple[str, ...]
    values: np.ndarray
    settings: str
    notes: tuple[str, ...]


def number_of(cell: str) -> float:
    """NaN of a cell that says that it has none; ValueError of a text, and of what is not finite."""
    if cell.casefold() in MISSING:
        return math.nan
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError
    return value


def read_features(path: Path) -> FeatureTable:
    """Every numeric column is a feature, called 'structure: column' where the table has structures.

    Raises UserError if a case or its structure stands there twice, or a column holds texts among its numbers.
    """
    header, *lines = table_rows(path, "case and features")
    names = [cell.strip() for cell in header[1]]
    _require_distinct_names(path, names)
    if not lines:
        raise UserError(f"{path}: has no line but its head; measure some masks first")
    case_column = _case_column(path, header)
    structure_column = names.index(STRUCTURE) if STRUCTURE in names else None
    # A number of a patient is no feature: they are given in the order of years, and of what became of patients.
    keys = columns_called(header, CASE_COLUMNS | GROUP_COLUMNS)
    is_measured = STATUS in names
    columns = {}
    texts = []
    for index, name in enumerate(names):
        is_fact = index in (*keys, case_column, structure_column) or name in FACTS
        if not name or is_fact or (is_measured and OF_THE_SCAN.fullmatch(name)):
            continue
        numbers = _numbers(path, name, index, lines)
        if numbers is None:
            texts.append(name)
        elif not np.isnan(numbers).all():
            columns[name] = numbers
    if not columns:
        raise UserError(f"{path}: has no column of numbers; give the table that segfw measure wrote")
    notes = [f"columns of text are no features: {listed(texts, 'and')}"] if texts else []
    rows = _rows(path, lines, case_column, structure_column)
    feature_names, values = _spread(rows, columns)
    return FeatureTable(
        path=path,
        cases=tuple(dict.fromkeys(case for case, _ in rows)),
        patient_of=_patients_of_cases(path, header, lines, case_column),
        settings=_settings(path, names, lines),
        notes=(*notes, *_notes_of_status(names, lines, structure_column)),
        names=feature_names,
        values=values,
    )


def _require_distinct_names(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, times in Counter(names).items() if name and times > 1]
    if twice:
        raise UserError(f"{path}: has two columns {twice[0]!r}; rename one of them")


def _case_column(path: Path, header: Line) -> int:
    """That of the case; where there is none, that of the patient."""
    exact = [index for index, cell in enumerate(header[1]) if cell.strip().casefold() == "case"]
    if exact:
        return exact[0]
    if columns_called(header, CASE_COLUMNS):
        return column_of(path, header, CASE_COLUMNS, "case")
    if columns_called(header, GROUP_COLUMNS):
        return column_of(path, header, GROUP_COLUMNS, "patient")
    return column_of(path, header, CASE_COLUMNS, "case")


def _patients_of_cases(path: Path, header: Line, lines: Sequence[Line], case_column: int) -> dict[str, str]:
    """By a column for the patient beside that of the case; empty where there is none, or no single one."""
    found = [index for index in columns_called(header, PATIENT_COLUMNS) if index != case_column]
    if len(found) != 1:
        return {}
    patient_of: dict[str, str] = {}
    for number, row in lines:
        case = cell_of(row, case_column)
        patient = cell_of(row, found[0])
        if not patient:
            raise UserError(f"{path}: line {number} has no patient; fill it in")
        if patient_of.setdefault(case, patient) != patient:
            raise UserError(
                f"{path}: line {number} says that case {case!r} is of patient {patient!r}, and a line before of "
                f"{patient_of[case]!r}; correct it"
            )
    return patient_of


def _numbers(path: Path, name: str, column: int, lines: Sequence[Line]) -> np.ndarray | None:
    """None of a column that holds texts alone."""
    numbers = np.full(len(lines), math.nan)
    wrong: list[tuple[int, str]] = []
    for index, (number, row) in enumerate(lines):
        cell = cell_of(row, column)
        try:
            numbers[index] = number_of(cell)
        except ValueError:
            wrong.append((number, cell))
    if not wrong:
        return numbers
    number, cell = wrong[0]
    if DECIMAL_COMMA.fullmatch(cell):
        raise UserError(f"{path}: line {number}, column {name!r} has {cell!r}; write numbers with a point, not a comma")
    if np.isnan(numbers).all():
        return None
    raise UserError(
        f"{path}: line {number}, column {name!r} has {cell!r} among numbers; correct it, or leave the cell empty where "
        "there is no value"
    )


def _rows(path: Path, lines: Sequence[Line], case_column: int, structure_column: int | None) -> list[tuple[str, str]]:
    """Case and structure of every line, no two of them the same."""
    rows = []
    seen: dict[tuple[str, str], int] = {}
    for number, row in lines:
        case = cell_of(row, case_column)
        structure = "" if structure_column is None else cell_of(row, structure_column)
        if not case or (structure_column is not None and not structure):
            raise UserError(f"{path}: line {number} has no {'structure' if case else 'case'}; fill it in")
        if (case, structure) in seen:
            what = f"case {case!r}" + (f", structure {structure!r}" if structure else "")
            raise UserError(f"{path}: lines {seen[case, structure]} and {number} are both of {what}; keep one of them")
        seen[case, structure] = number
        rows.append((case, structure))
    return rows


def _spread(rows: Sequence[tuple[str, str]], columns: Mapping[str, np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and values with one row a case: a feature for each structure and column that has a value anywhere."""
    cases = {case: index for index, case in enumerate(dict.fromkeys(case for case, _ in rows))}
    by_structure: dict[str, list[int]] = {}
    for index, (_, structure) in enumerate(rows):
        by_structure.setdefault(structure, []).append(index)
    names = []
    values = []
    for structure, lines in by_structure.items():
        places = [cases[rows[line][0]] for line in lines]
        for name, numbers in columns.items():
            of_cases = np.full(len(cases), math.nan)
            of_cases[places] = numbers[lines]
            if not np.isnan(of_cases).all():
                names.append(f"{structure}: {name}" if structure else name)
                values.append(of_cases)
    return tuple(names), np.stack(values, axis=1)


def _settings(path: Path, names: Sequence[str], lines: Sequence[Line]) -> str:
    if SETTINGS not in names:
        return ""
    column = names.index(SETTINGS)
    found = sorted({cell_of(row, column) for _, row in lines} - {""})
    if len(found) > 1:
        raise UserError(
            f"{path}: holds features of several settings ({listed(found, 'and')}), which cannot be compared; measure "
            "all cases with one settings file (segfw measure --radiomics --settings)"
        )
    return found[0] if found else ""


def _notes_of_status(names: Sequence[str], lines: Sequence[Line], structure_column: int | None) -> list[str]:
    if STATUS not in names or structure_column is None:
        return []
    column = names.index(STATUS)
    cut = Counter(cell_of(row, structure_column) for _, row in lines if cell_of(row, column) == "cut")
    return [
        f"{structure} is cut by the border of the scan in {count(cases, 'case')}: its features are of a part"
        for structure, cases in cut.items()
    ]


def listed_features(path: Path) -> tuple[set[str], int]:
    """The features of a table that may be taken, as a model calls them, and how many it leaves out.

    A table of ``measure --stability`` has verdicts: what is unstable, and what nobody knows, is left out.
    """
    header, *lines = table_rows(path, "structure, feature and verdict")
    names = [cell.strip() for cell in header[1]]
    if "feature" not in names:
        raise UserError(
            f"{path}: has no column 'feature'; give NAME_stability.csv of segfw measure --radiomics --stability, or a "
            "table with the columns structure and feature"
        )
    taken = set()
    left_out = 0
    for number, row in lines:
        feature = cell_of(row, names.index("feature"))
        if not feature:
            raise UserError(f"{path}: line {number} has no feature; fill it in")
        if "verdict" in names and cell_of(row, names.index("verdict")) not in ("stable", "moderate"):
            left_out += 1
            continue
        structure = cell_of(row, names.index(STRUCTURE)) if STRUCTURE in names else ""
        taken.add(f"{structure}: {feature}" if structure else feature)
    return taken, left_out


def without_columns_of(features: FeatureTable, target: str, covariates: Sequence[str]) -> FeatureTable:
    """The features that are neither the outcome nor a covariate, which tables of everything hold as well.

    The outcome itself among the features would tell it without error, on held-out patients too.
    """
    known = {name.casefold() for name in covariates}
    wanted = target.casefold()
    stays = [
        name.casefold() not in known and name.rpartition(": ")[2].casefold() != wanted and name.casefold() != wanted
        for name in features.names
    ]
    if all(stays):
        return features
    names = tuple(name for name, is_kept in zip(features.names, stays) if is_kept)
    out = listed((name for name, is_kept in zip(features.names, stays) if not is_kept), "and")
    if not names:
        raise UserError(f"{features.path}: has no features but {out}, the outcome or a covariate; measure some")
    return replace(
        features,
        names=names,
        values=features.values[:, stays],
        notes=(*features.notes, f"no features, because they are the outcome or a covariate: {out}"),
    )


def row_digests(values_nd: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """By which a patient's features are known again, without saying them.

    In the order of their names and without those that are missing, because another table of the same patients may
    have the same columns in another order. '' of a patient with fewer than 3 values that are no whole numbers: two
    patients may have one stage and one number of lesions.
    """
    order = np.argsort(np.array(names, dtype=object), kind="stable")
    found = []
    for row in values_nd:
        known = row[~np.isnan(row)]
        if np.count_nonzero(known != np.rint(known)) < FEWEST_TELLING:
            found.append("")
            continue
        text = ",".join(f"{names[index]}={row[index]:.9g}" for index in order if not math.isnan(row[index]))
        found.append(hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LETTERS])
    return tuple(found)
