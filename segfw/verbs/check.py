"""The check of a data set before anything is trained on it: one read of every case, then all that can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segfw.base.records import UserError
from segfw.checkup.case_measures import CaseMeasure, measure_case
from segfw.checkup.duplicates import near_duplicates, repeated_patients
from segfw.checkup.findings import SEVERITIES, CaseFigures, CheckReport, Finding, LabelSummary, finding_of
from segfw.checkup.odd_cases import Names, mixed_orientation, odd_geometry, odd_intensities
from segfw.checkup.odd_labels import odd_labels, swapped_labels
from segfw.dataset.cases import Case, FoundDataset, Problem, apply_map
from segfw.dataset.layouts import find_dataset, find_images_alone
from segfw.dataset.patients import read_groups
from segfw.dataset.verify import as_integers
from segfw.images.geometry import Volume
from segfw.planning.fingerprint import scan_cases

LISTED_PER_CASE = 3
JSON_FILE, PAGE_FILE = "check.json", "check.html"


def check_dataset(
    raw: Path,
    *,
    output: Path | None = None,
    groups: str | Path | None = None,
    fix: Path | None = None,
    workers: int | None = None,
) -> CheckReport:
    """Checks the data set in ``raw`` and says what is in it and what is wrong; raises UserError if it is none.

    ``output`` is a folder that gets check.json and check.html, a page with pictures. ``groups`` tells the patient of
    every case (see ``read_groups``). ``fix`` is a new folder that gets a repaired copy of the data set and fixes.json;
    the report returned is then that of the copy, and ``output`` describes it too.
    """
    raw = Path(raw)
    if fix is not None:
        from segfw.checkup.repair import require_new_folder, write_fixed

        require_new_folder(Path(fix), raw)
    is_alone = (raw / "images").is_dir() and not (raw / "labels").is_dir()
    if is_alone and fix is not None:
        raise UserError(f"{raw}: has no masks (labels/), without which nothing is repaired; leave out --fix")
    found = find_images_alone(raw) if is_alone else find_dataset(raw)
    patient_of = read_groups(groups, [case.id for case in found.cases])
    report, measures = examine(found, patient_of, are_given=groups is not None, workers=workers)
    if fix is not None:
        write_fixed(found, report, Path(fix))
        found = find_dataset(Path(fix))
        kept = {case.id: patient_of[case.id] for case in found.cases}
        report, measures = examine(found, kept, are_given=groups is not None, workers=workers)
    if output is not None:
        from segfw.checkup.check_page import write_report_html

        report.save(Path(output) / JSON_FILE)
        write_report_html(Path(output) / PAGE_FILE, report=report, found=found, measures=measures)
    return report


def examine(
    found: FoundDataset, patient_of: Mapping[str, str], *, are_given: bool = False, workers: int | None = None
) -> tuple[CheckReport, list[CaseMeasure]]:
    """Reads all cases once; returns the report and what was measured of the cases without errors.

    ``are_given`` says that ``patient_of`` comes from the user and not from a guess.
    """
    background = found.labels.values[0] if found.labels else 0
    measured: dict[str, CaseMeasure] = {}

    def also(case: Case, image: Volume, mask: Volume) -> None:
        values = apply_map(as_integers(mask.array), case.label_map)
        if found.labels and found.labels.ignore is not None:
            values = np.where(values == found.labels.ignore, background, values)
        measured[case.id] = measure_case(case, image, replace(mask, array=values), background=background)

    _, problems = scan_cases(found, workers=workers, also=also)
    measures = [measured[case.id] for case in found.cases if case.id in measured]
    names = _names(found, measures)
    findings = [*map(finding_of, problems), *_joined(_cohort_findings(measures, names, patient_of, problems))]
    findings += repeated_patients(patient_of, are_given=are_given)
    report = CheckReport(
        name=found.name,
        root=str(found.root),
        layout=found.layout,
        case_count=len({case.id for case in found.cases} | {problem.case for problem in found.problems} - {""}),
        cases=tuple(CaseFigures.of(case) for case in measures),
        labels=_label_summaries(measures, names),
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        notes=found.notes,
    )
    return report, measures


def _cohort_findings(
    measures: Sequence[CaseMeasure], names: Names, patient_of: Mapping[str, str], problems: Sequence[Problem]
) -> list[Finding]:
    copies = {finding.case for finding in map(finding_of, problems) if finding.kind == "same-image"}
    duplicates = near_duplicates([case for case in measures if case.id not in copies], patient_of)
    # A copy says nothing new about what is usual, and its own oddities are those of the case it copies.
    copies |= {finding.case for finding in duplicates}
    single = [case for case in measures if case.id not in copies]
    geometry = odd_geometry(single)
    # A wrong spacing makes wrong volumes and distances, which would pass for others' outliers.
    scaled = {finding.case for finding in geometry if finding.kind == "outlier-spacing"}
    true_to_scale = [case for case in single if case.id not in scaled]
    return [
        *duplicates,
        *geometry,
        *mixed_orientation(measures),
        *odd_intensities(single),
        *odd_labels(true_to_scale, names),
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
        labels = tuple(dict.fromkeys(value for finding in (first, *more) for value in finding.labels))
        joined.append(first.model_copy(update={"what": what, "labels": labels}))
    return joined


def _names(found: FoundDataset, measures: Sequence[CaseMeasure]) -> Names:
    """Label values with their names, the background left out."""
    if found.labels is not None:
        return dict(zip(found.labels.values[1:], found.labels.names[1:]))
    return {value: f"label_{value}" for value in sorted({value for case in measures for value in case.labels})}


def _label_summaries(measures: Sequence[CaseMeasure], names: Names) -> tuple[LabelSummary, ...]:
    summaries = []
    for value, name in names.items():
        volumes = [case.labels[value].volume_ml for case in measures if value in case.labels]
        low, median, high = np.percentile(volumes, (0, 50, 100)).tolist() if volumes else (None, None, None)
        summaries.append(
            LabelSummary(name=name, value=value, cases=len(volumes), smallest_ml=low, median_ml=median, largest_ml=high)
        )
    return tuple(summaries)
