"""The page of a check: findings with pictures of the place, a montage of the cases, and tables, in one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from segfw.base.figures import label_color, write_page
from segfw.checkup.case_measures import CaseMeasure
from segfw.checkup.findings import SEVERITIES, CheckReport, Finding
from segfw.checkup.thumbnails import View, thumbnail, views_of_place
from segfw.dataset.cases import FoundDataset

TEMPLATE = Path(__file__).with_name("check.html.jinja")
MOST_THUMBNAILS = 60
MOST_PLACES = 30  # findings that are shown where they are, each of which takes another read of its case
MOST_SHOWN = 40  # findings of one kind that the page lists
LEGEND_ENTRIES = 24


class Shown(NamedTuple):
    """A finding and its pictures."""

    finding: Finding
    views: list[View]


def write_report_html(path: Path, *, report: CheckReport, found: FoundDataset, measures: Sequence[CaseMeasure]) -> None:
    """Writes the page of ``report``, atomically; it needs no network and no other file."""
    classes = {label.value: index for index, label in enumerate(report.labels, start=1)}
    with_findings = [case for finding in report.findings for case in (finding.case, *finding.others[:1])]
    order = {case: index for index, case in reversed(list(enumerate(with_findings)))}
    ranked = sorted(measures, key=lambda case: order.get(case.id, len(order)))[:MOST_THUMBNAILS]
    worst = {finding.case: finding.severity for finding in reversed(report.findings)}
    write_page(
        Path(path),
        TEMPLATE,
        filters={"color": _hex, "figure": lambda value: f"{value:.4g}"},
        title=f"Data check of {report.name}",
        report=report,
        groups=_groups(report, found, {case.id: case for case in measures}, classes),
        severities=SEVERITIES,
        thumbnails=[(thumbnail(case, classes), worst.get(case.id, "")) for case in ranked],
        legend=[(classes[label.value], label.name) for label in report.labels][:LEGEND_ENTRIES],
    )


def _groups(
    report: CheckReport, found: FoundDataset, measures: dict[str, CaseMeasure], classes: dict[int, int]
) -> list[tuple[str, str, list[Shown], int]]:
    """Severity, kind, what is shown of it, and how many more there are; worst first."""
    by_kind: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        by_kind.setdefault((finding.severity, finding.kind), []).append(finding)
    files, places = {case.id: case for case in found.cases}, 0
    groups = []
    for (severity, kind), findings in by_kind.items():
        shown = []
        for finding in findings[:MOST_SHOWN]:
            case = measures.get(finding.case)
            views = []
            if case is not None and finding.place is not None and places < MOST_PLACES:
                places += 1
                views = views_of_place(files[case.id], case, finding.place, classes)
            elif severity != "note":
                pair = [measures[name] for name in (finding.case, *finding.others[:1]) if name in measures]
                views = [thumbnail(each, classes, pixels=220) for each in pair if finding.case]
            shown.append(Shown(finding, views))
        groups.append((severity, kind, shown, max(0, len(findings) - MOST_SHOWN)))
    return groups


def _hex(index: int) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in label_color(index))
