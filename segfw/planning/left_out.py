"""Folds that each leave out what has one value in a table: a site, a scanner, a year."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from segfw.base.errors import UserError
from segfw.base.words import count, listed
from segfw.dataset.case_values import TableColumn, values_of_cases, values_of_patients
from segfw.planning.splits import Fold, Splits

FEWEST_PATIENTS = 3  # in a fold's validation part; values with fewer join


def folds_by_value(asked: TableColumn, patient_of: Mapping[str, str]) -> Splits:
    """A fold for each value of a column, whose cases validate while all others train.

    ``patient_of`` names the patient of every case. Values of fewer than FEWEST_PATIENTS patients are one fold together,
    which takes the smallest of the others in where they still are too few.

    Raises UserError if the table lacks the column or a case, if a patient has two values, or if there is one fold only.
    """
    values = values_of_cases(asked, patient_of)
    parts = joined_values(values_of_patients(values, patient_of, asked))
    if len(parts) < 2:
        found = sorted(set(values.values()))
        raise UserError(
            f"{asked.path}: {asked.column} has {count(len(found), 'value')} ({listed(found[:8], 'and')}) of "
            f"{FEWEST_PATIENTS} patients or more together, so that no fold can leave one out; give another column"
        )
    folds = []
    for part in parts:
        validation = tuple(sorted(case for case, value in values.items() if value in part))
        train = tuple(sorted(values.keys() - set(validation)))
        folds.append(Fold(train=train, validation=validation, left_out=part))
    joined = [" and ".join(part) for part in parts if len(part) > 1]
    source = f"{count(len(folds), 'fold')}, each leaves out a value of {asked.column} in {asked.path.name}"
    if joined:
        source += f", {listed(joined, 'and')} together, because of fewer than {FEWEST_PATIENTS} patients"
    return Splits(source=source, folds=tuple(folds))


def joined_values(value_of_patient: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The values that each fold leaves out, in their order; those of few patients are together, and last."""
    patients: dict[str, int] = defaultdict(int)
    for value in value_of_patient.values():
        patients[value] += 1
    large = sorted(value for value, number in patients.items() if number >= FEWEST_PATIENTS)
    small = sorted(value for value, number in patients.items() if number < FEWEST_PATIENTS)
    if small and large and sum(patients[value] for value in small) < FEWEST_PATIENTS:
        smallest = min(large, key=lambda value: (patients[value], value))
        large.remove(smallest)
        small = sorted([*small, smallest])
    return [*((value,) for value in large), *([tuple(small)] if small else [])]


def left_out_notes(splits: Splits, patient_of: Mapping[str, str]) -> list[str]:
    """What each fold leaves out, a sentence each; nothing where folds do not."""
    return [
        f"fold {number} leaves out {listed(fold.left_out, 'and')}: {_cases(fold.validation, patient_of)}"
        for number, fold in enumerate(splits.folds)
        if fold.left_out
    ]


def _cases(cases: Sequence[str], patient_of: Mapping[str, str]) -> str:
    patients = len({patient_of[case] for case in cases})
    return count(len(cases), "case") + (f" of {count(patients, 'patient')}" if patients < len(cases) else "")
