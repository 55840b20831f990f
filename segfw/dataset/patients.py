"""Which cases are of one patient: given as a table or a regular expression, else guessed from the names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.dataset.case_tables import CASE_COLUMNS, GROUP_COLUMNS, cell_of, column_of, table_rows

# Beginnings of ids that name a patient; what follows tells the scans of that patient apart.
PATIENT_AT_START = (
    re.compile(r"(?:.*[-_.])?sub(?:j|ject)?-[a-z0-9]+(?=[-_.])", re.I),  # BIDS: sub-01_ses-02; siteA_sub-01_ses-02
    # patient001_frame01, Subject_12_scan2; a number has to follow, so that patient_A_001 stays as it is.
    re.compile(r"(?:.*[-_.])?(?:patient|subject|subj|sub|participant|volunteer|pat|pt)[-_]?\d+(?=[-_.])", re.I),
    re.compile(r"TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4}(?=[-_.])"),  # The Cancer Genome Atlas: site and participant
    re.compile(r"BraTS-[A-Z]+-\d{5}(?=-\d{3})"),  # BraTS 2023 and later: patient, then time point
    re.compile(r"\d{3}_S_\d{4,5}(?=[-_.])"),  # ADNI: site_S_subject
    re.compile(r"OAS(?:[12]_\d{4}|[34]\d{4})(?=_)"),  # OASIS: subject, then MR1 or the day
    re.compile(r"\d{5}(?=_\d{7}$)"),  # PI-CAI: patient, then study
)

# Endings that number one patient's images whatever stands before them, and such that might also number the patients.
REPEAT_AT_END = (
    r"(?:frame|phase|ses|session|visit|timepoint|tp|slice|sl|echo|followup|fu)[-_]?\d+"
    r"|ed|es|systole|diastole|baseline|followup|pre|post|left|right|arterial|portal|venous|delayed"
)
REPEAT_AFTER_NUMBER = (
    r"(?:scan|run|acq|rep|repeat|time|day|week|month|year|t|mr)[-_]?\d+"
    r"|(?:19|20)\d\d[-_]?(?:0[1-9]|1[0-2])[-_]?(?:0[1-9]|[12]\d|3[01])|od|os"
)
CLEAR_ENDING = re.compile(rf"(?P<stem>.+?)(?:[-_.](?:{REPEAT_AT_END}))+", re.I)
NUMBERED_ENDING = re.compile(rf"(?P<stem>.*\d.*?)(?:[-_.](?:{REPEAT_AT_END}|{REPEAT_AFTER_NUMBER}))+", re.I)


def read_groups(
    groups: str | Path | None,
    case_ids: Sequence[str],
    by_folder: Mapping[str, str] | None = None,
    *,
    called: str = "groups",
) -> dict[str, str]:
    """Patient of every case.

    ``groups`` is a CSV file with the columns case and patient (or subject, or group), or a regular expression that
    finds the patient in every case id with one capturing group, such as '(patient[0-9]+)_'; None takes ``by_folder``,
    the patients that a layout itself tells, or else guesses from the ids. Errors name the option as it is ``called``.
    Raises UserError if a case is missing, unknown, named twice, or not matched: a case that is silently taken for a
    patient of its own is how a patient gets into training and validation.
    """
    if groups is None:
        return {case: by_folder[case] for case in case_ids} if by_folder else guess_groups(case_ids)
    if Path(groups).is_file():
        return _from_table(Path(groups), case_ids)
    if isinstance(groups, Path) or str(groups).lower().endswith((".csv", ".tsv", ".txt")):
        raise UserError(f"{groups}: no such file; give a CSV file with the columns case and patient")
    return _from_expression(str(groups), case_ids, called)


def guess_groups(case_ids: Sequence[str], *, for_folds: bool = True) -> dict[str, str]:
    """Patient of every case where the names clearly tell, else the case id itself.

    Names clearly tell by a word for a person with a number (patient001_frame01, sub-01_ses-02), by a known archive's
    scheme, or by an ending that numbers repeats (X_frame01, X_left). Numbers alone (case_001, A_001) are patients.
    A wrong guess of repeats would put a whole site or video into one fold: it does not count if more than half of
    the cases would be of one patient, and patients are told only if there are two; not where cases are compared and no
    folds are made (``for_folds``). Two names of one patient that share no such mark cannot be found here.
    """
    ids = sorted(set(case_ids))
    guessed = {case: _patient_at_start(case) or case for case in ids}
    by_ending = {case: _without_repeats(case) for case in ids if guessed[case] == case}
    sizes = Counter(by_ending.values())
    if sizes and (max(sizes.values()) * 2 <= len(ids) or not for_folds):
        guessed |= {case: stem for case, stem in by_ending.items() if sizes[stem] > 1}
    if for_folds and len(set(guessed.values())) < 2:  # a data set of one patient cannot be split by patients
        return {case: case for case in ids}
    return guessed


def _patient_at_start(case: str) -> str | None:
    for pattern in PATIENT_AT_START:
        found = pattern.match(case)
        if found:
            return found[0]
    return None


def _without_repeats(case: str) -> str:
    found = NUMBERED_ENDING.fullmatch(case) or CLEAR_ENDING.fullmatch(case)
    return found["stem"] if found else case


def _from_expression(expression: str, case_ids: Sequence[str], called: str) -> dict[str, str]:
    example = "give one such as '(patient[0-9]+)_', or a CSV file with the columns case and patient"
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise UserError(
            f"{called} '{expression}': neither a file nor a regular expression ({error}); {example}"
        ) from None
    if pattern.groups != 1:
        raise UserError(f"{called} '{expression}': has {pattern.groups} capturing groups instead of one; {example}")
    found = {case: pattern.search(case) for case in case_ids}
    patients = {case: match[1] for case, match in found.items() if match and match[1]}
    missed = sorted(set(case_ids) - set(patients))
    if case_ids and not patients:
        raise UserError(f"{called} '{expression}': matches no case id, not even {missed[0]!r}; {example}")
    if missed:
        raise UserError(f"{called} '{expression}': does not match case {missed[0]!r}; widen it to match every case id")
    return patients


def _from_table(path: Path, case_ids: Sequence[str]) -> dict[str, str]:
    header, *rows = table_rows(path, "case and patient")
    case_column = column_of(path, header, CASE_COLUMNS, "case")
    group_column = column_of(path, header, GROUP_COLUMNS, "patient")
    known = set(case_ids)
    patients: dict[str, str] = {}
    for number, row in rows:
        case = cell_of(row, case_column)
        patient = cell_of(row, group_column)
        if not case or not patient:
            raise UserError(f"{path}: line {number} has no {'patient' if case else 'case'}; fill it in")
        if case not in known:
            raise UserError(f"{path}: line {number} names case {case!r}, which the data set has not; correct it")
        if case in patients:
            raise UserError(f"{path}: line {number} names case {case!r} again; keep one line per case")
        patients[case] = patient
    missing = sorted(known - set(patients))
    if missing:
        raise UserError(f"{path}: has no line for case {missing[0]!r}; add it ({len(missing)} missing)")
    return patients
