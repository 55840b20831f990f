"""The examination of a data set: every case is read once, measured, and compared with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from segfw.checkup.case_details import CaseDetails, CheckedCase, measure_details
from segfw.checkup.check_report import SEVERITIES, CheckReport, LabelSummary, main_units
from segfw.checkup.duplicates import TOLD_BY_IDS, near_duplicates, repeated_patients
from segfw.checkup.odd_cases import Names, mixed_orientation, odd_geometry, odd_intensities
from segfw.checkup.odd_labels import odd_labels, swapped_labels
from segfw.checkup.repair import FIXABLE
from segfw.dataset.annotated_structures import undrawn_values
from segfw.dataset.cases import Case, Finding, FoundDataset, has_errors
from segfw.dataset.label_names import with_present_labels
from segfw.dataset.labels import apply_map
from segfw.images.values import as_integers
from segfw.images.volume import Volume
from segfw.planning.fingerprint import scan_cases, values_in
from segfw.planning.splits import FEWEST_CASES, MORE_CASES, too_few

LISTED_PER_CASE = 3


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The report on a data set, and by case what its page shows beside."""

    report: CheckReport
    details: Mapping[str, CaseDetails]


def examine(
    found: FoundDataset, patient_of: Mapping[str, str], *, source: str = TOLD_BY_IDS, workers: int | None = None
) -> Examination:
    """Reads all cases once; cases with errors are named in the report, but not measured.

    ``source`` says in words where the patients are known from.
    """
    background = found.labels.values[0] if found.labels else 0
    ignore = found.labels.ignore if found.labels else None
    details: dict[str, CaseDetails] = {}

    def also(case: Case, image: Volume, mask: Volume) -> None:
        values = apply_map(as_integers(mask.array), case.label_map)
        if ignore is not None:
            values = np.where(values == ignore, background, values)
        details[case.id] = measure_details(image, replace(mask, array=values), background=background)

    scans, read_findings = scan_cases(found, workers=workers, also=also)
    measures = [scan.measured.measure for scan in scans if scan.measured is not None]
    cases = [details[measure.id].joined(measure) for measure in measures]
    if not has_errors(read_findings):
        found = with_present_labels(found, values_in(measures))
    names = _names(found, cases)
    in_files = [_as_reported(finding) for finding in read_findings]
    copies = {finding.case for finding in in_files if finding.kind == "same-image"}
    findings = [
        *in_files,
        *_joined(_findings_among_cases(cases, details, names, patient_of, copies, _undrawn(found))),
        *repeated_patients(patient_of, source=source),
        *_too_few_cases(found),
    ]
    report = CheckReport(
        name=found.name,
        root=str(found.root),
        layout=found.layout,
        case_count=len({case.id for case in found.cases} | {finding.case for finding in found.findings} - {""}),
        cases=tuple(cases),
        labels=_label_summaries(cases, names, _undrawn(found)),
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        notes=found.notes,
        paired=found.paired,
    )
    return Examination(report=report, details=details)


def _undrawn(found: FoundDataset) -> dict[str, frozenset[int]]:
    """By case the labels that nobody drew in it, of cases that are annotated in part."""
    labels = found.labels
    if labels is None:
        return {}
    return {case.id: undrawn_values(case, labels) for case in found.cases if case.annotated is not None}


def _too_few_cases(found: FoundDataset) -> list[Finding]:
    """An error where there are masks to train with, but of too few cases; images alone are looked at as they are."""
    if len(found.cases) >= FEWEST_CASES or not any(case.label for case in found.cases):
        return []
    return [Finding(kind="too-few-cases", severity="error", what=too_few(len(found.cases)), remedy=MORE_CASES)]


def _as_reported(finding: Finding) -> Finding:
    """A finding of reading and verifying, with its file as folder and name, and whether it can be repaired."""
    return finding.model_copy(
        update={"file": "/".join(Path(finding.file).parts[-2:]), "fixable": finding.kind in FIXABLE}
    )


def _findings_among_cases(
    cases: Sequence[CheckedCase],
    details: Mapping[str, CaseDetails],
    names: Names,
    patient_of: Mapping[str, str],
    copies: set[str],
    undrawn: Mapping[str, frozenset[int]],
) -> list[Finding]:
    """What is odd about cases beside the others; ``copies`` are known to show the very image of another case.

    ``undrawn`` are by case the labels that nobody drew in it.
    """
    signatures = {case.id: details[case.id].signature for case in cases if case.id not in copies}
    duplicates = near_duplicates(signatures, patient_of)
    # A copy says nothing new about what is usual, and its own oddities are those of the case it copies.
    all_copies = copies | {finding.case for finding in duplicates}
    single = [case for case in cases if case.id not in all_copies]
    geometry = odd_geometry(single)
    # A wrong spacing makes wrong volumes and distances, which would pass for others' outliers.
    scaled = {finding.case for finding in geometry if finding.kind == "outlier-spacing"}
    true_to_scale = [case for case in single if case.id not in scaled]
    return [
        *duplicates,
        *geometry,
        *mixed_orientation(cases),
        *odd_intensities(single),
        *odd_labels(true_to_scale, names, undrawn),
        *swapped_labels(true_to_scale, names),
    ]


def _joined(findings: Sequence[Finding]) -> list[Finding]:
    """One finding of each kind per case, which says all that was found: three axes, or all labels of a mask."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        key = (finding.kind, finding.severity, finding.case) if finding.case else (str(len(groups)),)
        groups.setdefault(key, []).append(finding)
    joined = []
    for first, *more in groups.values():
        what = ". Also, ".join([first.what, *(finding.what for finding in more[: LISTED_PER_CASE - 1])])
        if len(more) >= LISTED_PER_CASE:
            what += f". And {len(more) - LISTED_PER_CASE + 1} more like this"
        labels = dict.fromkeys(chain.from_iterable(finding.labels for finding in (first, *more)))
        joined.append(first.model_copy(update={"what": what, "labels": tuple(labels)}))
    return joined


def _names(found: FoundDataset, cases: Sequence[CheckedCase]) -> Names:
    """Label values with their names, the background left out."""
    if found.labels is not None:
        return dict(zip(found.labels.values[1:], found.labels.names[1:]))
    values = sorted(set(chain.from_iterable(case.labels for case in cases)))
    return {value: f"label_{value}" for value in values}


def _label_summaries(
    cases: Sequence[CheckedCase], names: Names, undrawn: Mapping[str, frozenset[int]]
) -> tuple[LabelSummary, ...]:
    summaries = []
    unit = main_units(cases).size
    for value, name in names.items():
        found = [case.labels[value] for case in cases if value in case.labels]
        sizes = [label.size for label in found if label.unit == unit]
        low, median, high = np.percentile(sizes, (0, 50, 100)).tolist() if sizes else (None, None, None)
        summary = LabelSummary(
            name=name,
            value=value,
            cases=len(found),
            not_annotated=sum(value in undrawn.get(case.id, ()) for case in cases),
            unit=unit,
            smallest=low,
            median=median,
            largest=high,
        )
        summaries.append(summary)
    return tuple(summaries)
