"""The folds of a data set: given in a file, one for each value of a table, or drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from segfw.base.errors import UserError
from segfw.base.words import listed
from segfw.dataset.case_values import table_column
from segfw.dataset.cases import Case, DatasetManifest, FoundDataset
from segfw.dataset.patients import read_groups
from segfw.planning.fingerprint import Fingerprint
from segfw.planning.left_out import folds_by_value, left_out_notes
from segfw.planning.request import PlanRequest
from segfw.planning.splits import (
    FEWEST_CASES,
    FOLDS,
    MORE_CASES,
    Splits,
    import_splits,
    make_splits,
    read_folds,
    split_notes,
    too_few,
)

NOTES_SHOWN = 8


def expected_folds(found: FoundDataset, request: PlanRequest) -> int:
    """How many folds ``import_or_draw_splits`` will make; told before any image is read.

    Raises UserError if there are too few cases. Where cases are amiss, that is told first, by those who read them.
    """
    ids = [case.id for case in found.cases]
    if len(ids) < FEWEST_CASES and not found.findings:
        raise UserError(f"{found.root}: {too_few(len(ids))}; {MORE_CASES}")
    patient_of = read_groups(request.groups, ids, found.patient_of)
    if request.leave_out_by is not None:
        return len(_by_value(request, patient_of).folds)
    path = _given_file(found.root, request.splits)
    if path is not None:
        return len(read_folds(path))
    return min(FOLDS, len({patient_of.get(case, case) for case in ids}))


def import_or_draw_splits(
    found: FoundDataset, manifest: DatasetManifest, fingerprint: Fingerprint, request: PlanRequest
) -> tuple[Splits, list[str]]:
    """The folds, given or drawn, and what is to be said about them."""
    ids = [case.id for case in manifest.cases]
    patient_of = read_groups(request.groups, ids, found.patient_of)
    name_of = {str(value): name for value, name in zip(manifest.labels.values[1:], manifest.labels.names[1:])}
    labels_of = {
        case.id: {name_of[value] for value in case.label_voxels.keys() & name_of} for case in fingerprint.cases
    }
    path = _given_file(found.root, request.splits)
    if request.leave_out_by is not None:
        folds = _by_value(request, patient_of)
    elif path is None:
        folds = make_splits(ids, groups=patient_of, labels_of_case=with_sources(labels_of, manifest.cases))
    else:
        folds = import_splits(path, ids, patient_of)
    notes = split_notes(folds, labels_of)
    more = [f"... and {len(notes) - NOTES_SHOWN} more"] if len(notes) > NOTES_SHOWN else []
    folds = folds.with_patients(patient_of)
    return folds, [*left_out_notes(folds, patient_of), *notes[:NOTES_SHOWN], *more]


def with_sources(labels_of: Mapping[str, Set[str]], cases: Sequence[Case]) -> dict[str, Set[str]]:
    """What folds are drawn by: the labels of each case and, where some are annotated in part, what was drawn in it.

    Each list of structures is a source, of which every fold gets cases where there are enough, as of a rare label.
    """
    if all(case.annotated is None for case in cases):
        return dict(labels_of)
    found = {}
    for case in cases:
        drawn = "all structures" if case.annotated is None else listed(case.annotated, "and")
        found[case.id] = labels_of[case.id] | {f"cases of {drawn}"}
    return found


def _by_value(request: PlanRequest, patient_of: dict[str, str]) -> Splits:
    if request.splits is not None:
        raise UserError(f"--leave-out-by makes the folds, and --splits {request.splits} gives them; leave one out")
    assert request.leave_out_by is not None
    return folds_by_value(table_column(request.leave_out_by, "--leave-out-by"), patient_of)


def _given_file(raw: Path, given: Path | None) -> Path | None:
    """The file of given folds, of the option or with the data."""
    with_data = raw / "splits_final.json"
    return given or (with_data if with_data.is_file() else None)
