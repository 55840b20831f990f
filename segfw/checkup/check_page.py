"""The page of a check: findings with pictures of the place, a montage of the cases, and tables, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from segfw.base.figures import label_color, write_page
from segfw.checkup.check_report import SEVERITIES
from segfw.checkup.examine import Examination
from segfw.checkup.thumbnails import View, thumbnail, views_of_place
from segfw.dataset.cases import Finding, FoundDataset

TEMPLATE = Path(__file__).with_name("check.html.jinja")
MOST_THUMBNAILS = 60
MOST_PLACES = 30  # findings that are shown where they are, each of which takes another read of its case
MOST_SHOWN = 40  # findings of one kind that the page lists
LEGEND_ENTRIES = 24


class Shown(NamedTuple):
    """A finding and its pictures."""

    finding: Finding
    views: list[View]


def write_report_html(path: Path, examination: Examination, found: FoundDataset) -> None:
    """Writes the page of an examination, atomically; it needs no network and no other file."""
    report = examination.report
    classes = {label.value: index for index, label in enumerate(report.labels, start=1)}
    write_page(
        Path(path),
        TEMPLATE,
        filters={"color": _hex, "figure": lambda value: f"{value:.4g}"},
        title=f"Data check of {report.name}",
        report=report,
        groups=_groups(examination, found, classes),
        severities=SEVERITIES,
        thumbnails=_montage(examination, classes),
        legend=[(classes[label.value], label.name) for label in report.labels][:LEGEND_ENTRIES],
    )


def _montage(examination: Examination, classes: Mapping[int, int]) -> list[tuple[View, str]]:
    """Thumbnails of cases, those with findings first, each with the worst severity of its case."""
    findings = examination.report.findings
    worst: dict[str, str] = {}
    ranks: dict[str, int] = {}
    for finding in findings:  # worst first
        worst.setdefault(finding.case, finding.severity)
        for case in (finding.case, *finding.others[:1]):
            ranks.setdefault(case, len(ranks))
    ids = [case.id for case in examination.report.cases]
    ranked = sorted(ids, key=lambda case: ranks.get(case, len(ranks)))[:MOST_THUMBNAILS]
    return [(thumbnail(case, examination.details[case], classes), worst.get(case, "")) for case in ranked]


def _groups(
    examination: Examination, found: FoundDataset, classes: Mapping[int, int]
) -> list[tuple[str, str, list[Shown], int]]:
    """Severity, kind, what is shown of it, and how many more there are; worst first."""
    by_kind: dict[tuple[str, str], list[Finding]] = {}
    for finding in examination.report.findings:
        by_kind.setdefault((finding.severity, finding.kind), []).append(finding)
    case_of = {case.id: case for case in found.cases}
    details = examination.details
    places = 0
    groups = []
    for (severity, kind), findings in by_kind.items():
        shown = []
        for finding in findings[:MOST_SHOWN]:
            views: list[View] = []
            if finding.case in details and finding.place is not None and places < MOST_PLACES:
                places += 1
                views = views_of_place(case_of[finding.case], details[finding.case].window, finding.place, classes)
            elif severity != "note" and finding.case:
                pair = [case for case in (finding.case, *finding.others[:1]) if case in details]
                views = [thumbnail(case, details[case], classes, pixels=220) for case in pair]
            shown.append(Shown(finding, views))
        groups.append((severity, kind, shown, max(0, len(findings) - MOST_SHOWN)))
    return groups


def _hex(index: int) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in label_color(index))
