"""Names of cases in place of folders': by the patient of each DICOM series, through a table that only its owner has.

The table has the columns patient (DICOM's PatientID) and name. A patient who is not in it gets a made name, which is
added to it, so that the next call calls the patient the same. The column series, which is added, says which series of a
patient has which name: two that come in different calls are two cases. Nothing else of segfw's holds a PatientID.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from segfw.base.files import write_text
from segfw.base.locks import in_turn
from segfw.base.records import UserError
from segfw.base.words import count
from segfw.base.written_by_people import check_text, read_text
from segfw.dataset.cases import Case, FoundDataset
from segfw.images.dicom import is_dicom
from segfw.images.dicom_header import read_header

COLUMNS = ("patient", "name")
SERIES_COLUMN = "series"  # its SeriesInstanceUID; empty in the line of the patient
MADE = "patient_{number:04}"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
DELIMITERS = ("\t", ";", ",")


def with_pseudonyms(found: FoundDataset, table: Path, *, writes: bool = True) -> FoundDataset:
    """The data set with its cases called by the table, which gets the patients that it lacks if ``writes``.

    Raises UserError for a case without a PatientID, and for a table that is wrong.
    """
    names = pseudonyms_of(found.cases, table, writes=writes)
    ids = {case.id: name for case, name in zip(found.cases, names)}
    cases = tuple(case.model_copy(update={"id": ids[case.id]}) for case in found.cases)
    findings = tuple(
        finding.model_copy(
            update={
                "case": ids.get(finding.case, finding.case),
                "others": tuple(ids.get(other, other) for other in finding.others),
            }
        )
        for finding in found.findings
    )
    patient_of = {ids[case]: ids.get(patient, patient) for case, patient in found.patient_of.items() if case in ids}
    return replace(
        found, cases=tuple(sorted(cases, key=lambda case: case.id)), findings=findings, patient_of=patient_of
    )


def cases_with_pseudonyms(cases: Sequence[Case], table: Path, *, writes: bool = True) -> list[Case]:
    """As ``with_pseudonyms``, of images that are to be predicted."""
    names = pseudonyms_of(cases, table, writes=writes)
    renamed = [case.model_copy(update={"id": name}) for case, name in zip(cases, names)]
    return sorted(renamed, key=lambda case: case.id)


def pseudonyms_of(cases: Sequence[Case], table: Path, *, writes: bool) -> list[str]:
    """A name for each case. New series of one patient that come together are numbered in the order of their own names.

    UserError for cases of which two would have one name, because they are of one series or by the table.
    """
    sources = [_source_of(case) for case in cases]
    twice = {source: case for case, source in zip(cases, sources)}
    for case, source in zip(cases, sources):
        if twice[source] is not case:
            others = f"{case.images[0]} and {twice[source].images[0]}"
            raise UserError(f"{others}: are one series, and would be called the same; take one of them away")
    lock = table.with_name(f".{table.name}.lock")
    with in_turn(lock, f"{table}: is being written") if writes else nullcontext():
        known = _read(table) if table.exists() else _Names(of_patients={}, of_series={})
        missing = [source.patient for source in dict.fromkeys(sources) if source.patient not in known.of_patients]
        of_patients = known.of_patients | _made(dict.fromkeys(missing), known.of_patients.values())
        in_order = [source for _, source in sorted(zip(cases, sources), key=lambda each: each[0].id)]
        of_series = known.of_series | _made_of_series(in_order, of_patients, known.of_series)
        if writes and (of_patients, of_series) != (known.of_patients, known.of_series):
            _write(table, _Names(of_patients=of_patients, of_series=of_series))
    names = [of_series[source] for source in sources]
    double = next((name for name, number in Counter(names).items() if number > 1), None)
    if double is not None:
        raise UserError(f"{table}: two cases would be called {double}; change one of the names in it")
    return names


@dataclass(frozen=True)
class _Source:
    """Where an image comes from; ``series`` is '' where the file does not say it."""

    patient: str
    series: str

    def __repr__(self) -> str:
        """Without what they hold, lest a message shows it."""
        return "_Source()"


@dataclass(frozen=True, kw_only=True)
class _Names:
    """What a table says."""

    of_patients: dict[str, str]
    of_series: dict[_Source, str]


def _made_of_series(
    sources: Iterable[_Source], of_patients: dict[str, str], known: dict[_Source, str]
) -> dict[_Source, str]:
    """Names of the series that have none: the patient's, or that with a number where there are several."""
    new = [source for source in dict.fromkeys(sources) if source not in known]
    times = Counter(source.patient for source in new)
    taken = set(known.values())
    before = Counter(source.patient for source in known)
    made = {}
    for source in new:
        name = of_patients[source.patient]
        if times[source.patient] > 1 or before[source.patient]:
            number = before[source.patient] + 1
            while f"{name}_{number}" in taken:
                number += 1
            name = f"{name}_{number}"
        taken.add(name)
        made[source] = name
    return made


def _source_of(case: Case) -> _Source:
    """PatientID and series of a case's first image; UserError without a PatientID."""
    path = case.images[0]
    file = path
    if path.is_dir():
        file = next((each for each in sorted(path.iterdir()) if is_dicom(each) and _is_image(each)), path)
    header = read_header(file) if file.is_file() and is_dicom(file) else None
    if header is None:
        what = "is no DICOM series, so that nothing says which patient it is of"
        raise UserError(f"{path}: {what}; leave out --pseudonyms, and name the files by pseudonyms yourself")
    if not header.patient:
        raise UserError(f"{path}: has no PatientID, by which --pseudonyms names cases; fill it in, or leave that out")
    return _Source(patient=header.patient, series=header.series.series)


def _is_image(file: Path) -> bool:
    header = read_header(file)
    return header is not None and header.kind == "image"


def _made(patients: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Names that say nothing, in the order in which patients are come upon."""
    used = set(taken)
    number = 1
    made = {}
    for patient in patients:
        while MADE.format(number=number) in used:
            number += 1
        made[patient] = MADE.format(number=number)
        used.add(made[patient])
    return made


def _read(table: Path) -> _Names:
    """Names by PatientID and series; messages name lines, and never a patient."""
    example = f"write the header {','.join(COLUMNS)} and a line for each patient"
    try:
        text = read_text(table)
        check_text(text)
        first = text.splitlines()[0] if text.strip() else ""
        delimiter = max(DELIMITERS, key=first.count)
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)]
    except OSError as error:
        raise UserError(f"{table}: cannot be read ({error.strerror}); give a table of patients and names") from None
    except (ValueError, csv.Error):
        raise UserError(f"{table}: is no table; {example}") from None
    header = [cell.strip().casefold() for cell in rows[0]] if rows else []
    if not set(COLUMNS) <= set(header):
        raise UserError(f"{table}: lacks the column {COLUMNS[0]} or {COLUMNS[1]}; {example}")
    names: dict[str, str] = {}
    of_series: dict[_Source, str] = {}
    for number, row in enumerate(rows[1:], 2):
        cells = dict(zip(header, (cell.strip() for cell in row)))
        patient = cells.get("patient", "")
        name = cells.get("name", "")
        if not patient or not NAME.fullmatch(name):
            what = f"row {number} has no {'name of letters, digits, _, - and .' if patient else 'patient'}"
            raise UserError(f"{table}: {what}; correct it")
        series = cells.get(SERIES_COLUMN, "")
        if series:
            if of_series.setdefault(_Source(patient=patient, series=series), name) != name:
                raise UserError(
                    f"{table}: row {number} gives a series of an earlier row another name; keep one of them"
                )
            continue
        if names.setdefault(patient, name) != name:
            raise UserError(f"{table}: row {number} gives a patient of an earlier row another name; keep one of them")
    double = next((name for name, times in Counter(names.values()).items() if times > 1), None)
    if double is not None:
        number = sum(name == double for name in names.values())
        raise UserError(f"{table}: calls {count(number, 'patient')} {double}; give each a name of its own")
    return _Names(of_patients=names, of_series=of_series)


def _write(table: Path, names: _Names) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, SERIES_COLUMN))
    writer.writerows((patient, name, "") for patient, name in names.of_patients.items())
    writer.writerows((source.patient, name, source.series) for source, name in names.of_series.items())
    write_text(table, text.getvalue())
