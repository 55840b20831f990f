"""Two tables as one cohort: a row a patient, with features, covariates and an outcome."""

# N patients, D columns: covariates first, then features

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segfw.base.records import Record, UserError
from segfw.base.words import count, listed
from segfw.dataset.patients import guess_groups, read_groups
from segfw.outcomes.feature_table import FeatureTable, row_digests, without_columns_of
from segfw.outcomes.outcome_table import (
    Covariate,
    OutcomeRow,
    OutcomeTable,
    covariate_value,
    covariates_of,
    event_of,
    same_value,
)
from segfw.outcomes.patient_folds import events_of

FEWEST_TOLD = 10  # events, of which one feature of thousands does not tell all by chance


class LeftOut(Record):
    """Patients or lines that are in one table alone, or of whom the outcome or every feature is missing."""

    cases_without_outcome: int = 0
    lines_without_features: int = 0
    outcome_missing: int = 0
    features_missing: int = 0

    def texts(self) -> list[str]:
        """What was left out, and why."""
        found = []
        if self.cases_without_outcome:
            found.append(f"{count(self.cases_without_outcome, 'measured case')} not in the table of outcomes")
        if self.lines_without_features:
            found.append(f"{count(self.lines_without_features, 'line')} of the table not among the measured cases")
        if self.outcome_missing:
            found.append(f"{count(self.outcome_missing, 'patient')} without an outcome")
        if self.features_missing:
            found.append(f"{count(self.features_missing, 'patient')} without a single feature")
        return found


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Patients in the order of their names. NaN is missing."""

    measures: Path
    table: Path
    target: str
    event: str
    patients: tuple[str, ...]
    has_event_n: np.ndarray
    covariates: tuple[Covariate, ...]
    features: tuple[str, ...]
    values_nd: np.ndarray
    settings: str
    left_out: LeftOut
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all columns."""
        return (*(each.name for each in self.covariates), *self.features)

    @property
    def events(self) -> int:
        """Patients with the rarer outcome, on which everything stands."""
        return events_of(self.has_event_n)

    @property
    def features_nf(self) -> np.ndarray:
        """The values of the features alone (N, F)."""
        return self.values_nd[:, len(self.covariates) :]

    def digests_of(self, names: Sequence[str]) -> tuple[str, ...]:
        """By which a patient's features of these names are known again; '' where they tell nobody from another one."""
        wanted = set(names)
        places = [index for index, name in enumerate(self.features) if name in wanted]
        return row_digests(self.features_nf[:, places], [self.features[index] for index in places])


def joined_cohort(
    features: FeatureTable,
    table: OutcomeTable,
    *,
    event: str | None = None,
    covariates: Sequence[Covariate] | None = None,
    by_patient: str | Path | None = None,
) -> Cohort:
    """A row for each patient of whom both tables know; of several cases the mean of each feature.

    ``covariates`` are those of a model, which texts must agree with; by default what the table's columns hold. Raises
    UserError if nobody is in both tables, a patient has two outcomes, or all have the same.
    """
    event = event_of(table, event)
    covariates = covariates_of(table) if covariates is None else tuple(covariates)
    features = without_columns_of(features, table.target, table.columns)
    patient_of = _patients(features, table, by_patient)
    rows_of, lines_without = _rows_of_patients(table, patient_of)
    if not rows_of:
        raise UserError(
            f"{table.path}: no line is of a case in {features.path}, such as {features.cases[0]!r} (the table has "
            f"{(table.rows[0].case or table.rows[0].patient)!r}); write the names alike, or give --by-patient"
        )
    outcomes = {patient: _outcome(table, patient, rows) for patient, rows in rows_of.items()}
    known = sorted(patient for patient, outcome in outcomes.items() if outcome is not None)
    cases_of = _cases_of(features, table, patient_of, rows_of)
    feature_rows = {patient: _mean(features.values[cases_of[patient]]) for patient in known}
    taken = [patient for patient in known if not np.isnan(feature_rows[patient]).all()]
    has_event_n = np.array([same_value(outcomes[patient] or "", event) for patient in taken], bool)
    if len(taken) and not events_of(has_event_n):
        value = outcomes[taken[0]]
        raise UserError(
            f"{table.path}: all {count(len(taken), 'patient')} that are measured have {value!r} in column "
            f"{table.target!r}; a model needs both outcomes"
        )
    if not taken:
        raise UserError(f"{table.path}: no measured patient has both features and a value of {table.target!r}")
    covariate_rows = [_covariates(table, patient, rows_of[patient], covariates) for patient in taken]
    used_cases = {case for rows in cases_of.values() for case in rows}
    several = sum(len(cases_of[patient]) > 1 for patient in taken)
    notes = list(features.notes)
    if several:
        notes.append(
            f"{count(several, 'patient')} with several cases: each feature is the mean of them; where that means "
            "nothing, name one case a patient in the table"
        )
    values_nf = np.stack([feature_rows[each] for each in taken])
    notes += [*_notes_of_tellers(values_nf, has_event_n, features.names), *_notes_of_twins(taken, values_nf, features)]
    return Cohort(
        measures=features.path,
        table=table.path,
        target=table.target,
        event=event,
        patients=tuple(taken),
        has_event_n=has_event_n,
        covariates=tuple(covariates),
        features=features.names,
        values_nd=np.column_stack([np.array(covariate_rows), values_nf]),
        settings=features.settings,
        left_out=LeftOut(
            cases_without_outcome=len(features.cases) - len(used_cases),
            lines_without_features=lines_without,
            outcome_missing=len(outcomes) - len(known),
            features_missing=len(known) - len(taken),
        ),
        notes=tuple(notes),
    )


def _notes_of_tellers(values_nf: np.ndarray, has_event_n: np.ndarray, names: Sequence[str]) -> list[str]:
    """Of features that alone tell every patient's outcome: mostly the outcome, or what follows from it, renamed."""
    if events_of(has_event_n) < FEWEST_TOLD:
        return []
    found = []
    for name, values_n in zip(names, values_nf.T):
        with_event = values_n[has_event_n & ~np.isnan(values_n)]
        without = values_n[~has_event_n & ~np.isnan(values_n)]
        if not len(with_event) or not len(without):
            continue
        if with_event.min() > without.max() or with_event.max() < without.min():
            found.append(name)
    if not found:
        return []
    return [
        f"a single feature tells every patient's outcome ({listed(found[:3], 'and')}): make sure that it was known "
        "before the outcome"
    ]


def _notes_of_twins(patients: Sequence[str], values_nf: np.ndarray, features: FeatureTable) -> list[str]:
    """Of patients who are alike in every feature: one scan under two names is fitted to and held out at once."""
    first_of: dict[str, str] = {}
    twins = []
    for patient, digest in zip(patients, row_digests(values_nf, features.names)):
        first = first_of.setdefault(digest, patient)
        if digest and first != patient:
            twins.append(f"{patient} those of {first}")
    if not twins:
        return []
    return [
        f"{count(len(twins), 'patient')} with exactly the features of another one ({listed(twins[:3], 'and')}): if it "
        "is one scan under two names, figures are too good; remove one of them"
    ]


def _patients(features: FeatureTable, table: OutcomeTable, by_patient: str | Path | None) -> dict[str, str]:
    """The patient of every measured case: as somebody says, else as one of both tables, else as names clearly tell."""
    if by_patient is not None:
        return read_groups(by_patient, features.cases, called="--by-patient")
    measured = guess_groups(features.cases, for_folds=False)
    called_alike = {row.patient for row in table.rows} & set(features.cases)
    measured |= {case: case for case in called_alike}
    measured |= features.patient_of
    return measured | {row.case: row.patient for row in table.rows if row.patient and row.case in measured}


def _rows_of_patients(table: OutcomeTable, patient_of: Mapping[str, str]) -> tuple[dict[str, list[OutcomeRow]], int]:
    """The lines of every patient who is measured, and how many lines are of nobody who is."""
    measured = set(patient_of.values())
    found: dict[str, list[OutcomeRow]] = {}
    without = 0
    seen: dict[str, int] = {}
    for row in table.rows:
        if row.case in seen and row.case:
            raise UserError(
                f"{table.path}: lines {seen[row.case]} and {row.line} are both of case {row.case!r}; keep one"
            )
        seen[row.case] = row.line
        patient = patient_of.get(row.case, "") if row.case else row.patient
        if patient and patient in measured:
            found.setdefault(patient, []).append(row)
        else:
            without += 1
    return found, without


def _outcome(table: OutcomeTable, patient: str, rows: Sequence[OutcomeRow]) -> str | None:
    """None where it is not known; UserError of two different ones."""
    known = [row for row in rows if row.has_outcome]
    for row in known:
        if not same_value(row.outcome, known[0].outcome):
            raise UserError(
                f"{table.path}: patient {patient!r} has two outcomes, {known[0].outcome!r} in line {known[0].line} and "
                f"{row.outcome!r} in line {row.line}; give each patient one, or tell patients apart with --by-patient"
            )
    return known[0].outcome if known else None


def _cases_of(
    features: FeatureTable,
    table: OutcomeTable,
    patient_of: Mapping[str, str],
    rows_of: Mapping[str, Sequence[OutcomeRow]],
) -> dict[str, list[int]]:
    """Which rows of the features are a patient's: those that the table names, or all where it names none."""
    places = {case: index for index, case in enumerate(features.cases)}
    has_cases = any(row.case for row in table.rows)
    found: dict[str, list[int]] = {patient: [] for patient in rows_of}
    for patient, rows in rows_of.items():
        if has_cases:
            found[patient] = [places[row.case] for row in rows]
    if not has_cases:
        for case, patient in patient_of.items():
            if patient in found:
                found[patient].append(places[case])
    return found


def _mean(values_cd: np.ndarray) -> np.ndarray:
    """Over cases, of those that have the value."""
    known_cd = ~np.isnan(values_cd)
    number_d = known_cd.sum(0)
    total_d = np.where(known_cd, values_cd, 0).sum(0)
    return np.where(number_d > 0, total_d / np.maximum(number_d, 1), np.nan)


def _covariates(
    table: OutcomeTable, patient: str, rows: Sequence[OutcomeRow], covariates: Sequence[Covariate]
) -> np.ndarray:
    """Of numbers the mean of all lines; UserError of two different texts."""
    values_rc = np.full((len(rows), len(covariates)), np.nan)
    for place, row in enumerate(rows):
        for index, covariate in enumerate(covariates):
            values_rc[place, index] = covariate_value(table, row, index, covariate)
    for index, covariate in enumerate(covariates):
        known = set(values_rc[:, index][~np.isnan(values_rc[:, index])])
        if covariate.texts is not None and len(known) > 1:
            lines = listed((row.line for row in rows), "and")
            raise UserError(
                f"{table.path}: patient {patient!r} has {covariate.texts[0]!r} and {covariate.texts[1]!r} in column "
                f"{covariate.column!r} (lines {lines}); correct it"
            )
    return _mean(values_rc)


def with_note_of_names(cohort: Cohort, fitted: Sequence[str]) -> Cohort:
    """The cohort with a note if some of its patients are called as patients that models are fitted to."""
    again = sorted(set(cohort.patients) & set(fitted))
    if not again:
        return cohort
    note = (
        f"{count(len(again), 'patient')} called like patients that the models are fitted to ({listed(again[:3], 'and')}"
        f"{', ...' if len(again) > 3 else ''}): if they are the same persons, leave them out, for a test needs others"
    )
    return replace(cohort, notes=(*cohort.notes, note))


def require_same_settings(cohort: Cohort, settings: str, of: Path) -> None:
    """UserError if features were told with other settings than those that a model was fitted to."""
    if cohort.settings != settings:
        theirs = f"settings {cohort.settings}" if cohort.settings else "no radiomics settings"
        ours = f"settings {settings}" if settings else "features without radiomics settings"
        raise UserError(
            f"{cohort.measures}: was measured with {theirs}, and the model of {of} was fitted to {ours}; measure this "
            "cohort with the settings file of the first one (segfw measure --radiomics --settings)"
        )
