"""The page of a check: findings with pictures of the place, a montage of the cases, and tables, in one HTML file.

Of many cases not all are shown: those with findings, and of the others a sample, as far as the bytes for pictures go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segfw.base.figures import write_page
from segfw.base.tables import Column, Table
from segfw.base.words import count
from segfw.checkup.check_report import SEVERITIES, CheckReport
from segfw.checkup.examine import Examination
from segfw.checkup.thumbnails import thumbnail, views_of_place
from segfw.dataset.cases import Finding, FoundDataset

TEMPLATE = Path(__file__).with_name("check.html.jinja")
PICTURE_BYTES = 3_000_000  # of all pictures: a page of them can be sent by mail
MOST_PLACES = 30  # findings that are shown where they are, each of which takes another read of its case
MOST_ODD = 60  # cases with a finding that are shown
SAMPLE = 24  # cases without one that are shown
LEGEND_ENTRIES = 24
MOST_COLUMNS = 12  # labels; of more the sizes are a row each
FIGURES = 4  # significant ones


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG of the page, what stands below it, and the name by which tables link to it."""

    id: str
    png: bytes
    title: str
    text: str
    severity: str = ""


class Room:
    """Bytes that are left for pictures."""

    def __init__(self, size: int) -> None:
        self._left = size

    def takes(self, png: bytes) -> bool:
        """Whether there is room for one more; if so, less is left."""
        has_room = len(png) <= self._left
        self._left -= len(png) if has_room else 0
        return has_room


def write_report_html(
    path: Path, examination: Examination, found: FoundDataset, *, picture_bytes: int = PICTURE_BYTES
) -> None:
    """Writes the page of an examination, atomically; it needs no network and no other file."""
    report = examination.report
    classes = {label.value: index for index, label in enumerate(report.labels, start=1)}
    room = Room(picture_bytes)
    places = _places(examination, found, classes, room)
    montage = _montage(examination, classes, room)
    links = {picture.title: f"#{picture.id}" for picture in (*montage, *places)}
    write_page(
        Path(path),
        TEMPLATE,
        title=f"Data check of {report.name}",
        report=report,
        counts=[_split_count(len(report.of_severity(severity)), severity) for severity in SEVERITIES],
        cases=_split_count(report.case_count, "case"),
        findings=findings_table(report.findings, links) if report.findings else None,
        places=places,
        montage=montage,
        shown=_shown(montage, report),
        windows=_windows(examination),
        legend=[(classes[label.value], label.name) for label in report.labels][:LEGEND_ENTRIES],
        unnamed=max(0, len(report.labels) - LEGEND_ENTRIES),
        labels=labels_table(report),
        intensities=intensities_table(report, links),
        sizes=sizes_table(report, links) if report.labels and report.cases else None,
    )


def _split_count(number: int, noun: str) -> tuple[str, str]:
    """The number, and the noun in the form that goes with it."""
    figure, words = count(number, noun).split(" ", 1)
    return figure, words


def _places(examination: Examination, found: FoundDataset, classes: Mapping[int, int], room: Room) -> list[Picture]:
    """Findings where they are, worst first."""
    case_of = {case.id: case for case in found.cases}
    details = examination.details
    pictures: list[Picture] = []
    for finding in examination.report.findings:
        if len(pictures) == MOST_PLACES or finding.place is None or finding.case not in details:
            continue
        shown = views_of_place(case_of[finding.case], details[finding.case].window, finding.place, classes)
        if shown is not None and room.takes(shown[0]):
            text = f"{finding.what}. Marked in {shown[1]}."
            name = f"place-{len(pictures) + 1}"
            pictures.append(Picture(id=name, png=shown[0], title=finding.case, text=text, severity=finding.severity))
    return pictures


def _montage(examination: Examination, classes: Mapping[int, int], room: Room) -> list[Picture]:
    """Cases with findings, the worst first, and a sample of the others, each with the worst severity of its case."""
    report = examination.report
    units = {case.id: case.units for case in report.cases}
    worst: dict[str, str] = {}
    for finding in report.findings:  # worst first
        for case in (finding.case, *finding.others[:1]):
            worst.setdefault(case, finding.severity if case == finding.case else "")
    odd = [case for case in worst if case in units][:MOST_ODD]
    others = [case.id for case in report.cases if case.id not in worst]
    pictures = []
    for number, case in enumerate((*odd, *_sample(others)), start=1):
        png = thumbnail(examination.details[case], units[case], classes)
        if not room.takes(png):
            break
        pictures.append(Picture(id=f"case-{number}", png=png, title=case, text="", severity=worst.get(case, "")))
    return pictures


def _sample(cases: Sequence[str]) -> list[str]:
    """At most SAMPLE of the cases, evenly spread."""
    number = min(SAMPLE, len(cases))
    return [cases[index * len(cases) // number] for index in range(number)]


def _shown(montage: Sequence[Picture], report: CheckReport) -> str:
    """Which cases are shown, in words."""
    total = len(report.cases)
    if len(montage) == total:
        return "All cases are shown, those with findings first."
    odd = sum(bool(picture.severity) for picture in montage)
    return (
        f"{len(montage)} of {count(total, 'case')} are shown: {odd} with findings, and a sample of the others, "
        "so that the page stays small. The tables have all of them."
    )


def _windows(examination: Examination) -> str:
    """What is black and white in the pictures."""
    found = {tuple(f"{value:.4g}" for value in details.window) for details in examination.details.values()}
    if len(found) == 1:
        ((low, high),) = found
        return f"Black is {low}, white {high}."
    return "Black and white are set for each image, by its own tissue."


def findings_table(findings: Sequence[Finding], links: Mapping[str, str]) -> Table:
    """All findings, worst first."""
    remedies = [f"{finding.remedy}{'; --fix can do it' if finding.fixable else ''}" for finding in findings]
    return Table(
        name="Findings",
        search="Find a case, a kind or a word",
        elsewhere="They are in check.json too.",
        columns=[
            Column(title="Case", values=[finding.case or "data set" for finding in findings], links=links),
            Column(title="Severity", values=[finding.severity for finding in findings], choose="All severities"),
            Column(title="Kind", values=[finding.kind for finding in findings], choose="All kinds"),
            Column(title="What is odd", values=[_sentence(finding) for finding in findings]),
            Column(title="What to do", values=remedies),
        ],
    )


def _sentence(finding: Finding) -> str:
    return f"{finding.file}: {finding.what}" if finding.file else finding.what


def labels_table(report: CheckReport) -> Table:
    """Every label: in how many cases it is, and how large."""
    labels = report.labels
    unit = report.units.size
    kind = report.units.extent
    not_annotated = []
    if any(label.not_annotated for label in labels):
        not_annotated = [Column(title="Not annotated", values=[label.not_annotated for label in labels], digits=0)]
    return Table(
        name="Labels",
        search="Find a label",
        columns=[
            Column(title="Label", values=[label.name for label in labels]),
            Column(title="Value", values=[label.value for label in labels], digits=0),
            Column(title="Cases", unit=f"of {len(report.cases)}", values=[label.cases for label in labels], digits=0),
            *not_annotated,
            _number(f"Smallest {kind}", unit, [label.smallest for label in labels]),
            _number(f"Median {kind}", unit, [label.median for label in labels]),
            _number(f"Largest {kind}", unit, [label.largest for label in labels]),
        ],
    )


def intensities_table(report: CheckReport, links: Mapping[str, str]) -> Table:
    """Shape, spacing and intensities: a row for every channel of every case."""
    rows = [(case, index, channel) for case in report.cases for index, channel in enumerate(case.channels)]
    spacings = [" × ".join(f"{mm:.4g}" for mm in case.spacing_mm) for case, _, _ in rows]
    columns = [
        Column(title="Case", values=[case.id for case, _, _ in rows], links=links),
        Column(title="Shape", unit="z × y × x", values=[" × ".join(map(str, case.shape)) for case, _, _ in rows]),
        Column(title="Spacing", unit=f"{report.units.length}, z × y × x", values=spacings),
    ]
    if any(case.orientation for case in report.cases):
        columns.append(
            Column(
                title="Stored",
                values=[case.orientation or "–" for case, _, _ in rows],
                hint="Where the file's x, y and z axes point: L left, R right, A front, P back, S head, I feet",
            )
        )
    if any(index for _, index, _ in rows):
        columns.append(Column(title="Channel", values=[index for _, index, _ in rows], digits=0))
    columns += [
        _number("Minimum", "", [channel.minimum for _, _, channel in rows]),
        _number("Low", "0.5 %", [channel.low for _, _, channel in rows]),
        _number("Median", "50 %", [channel.median for _, _, channel in rows]),
        _number("High", "99.5 %", [channel.high for _, _, channel in rows]),
        _number("Maximum", "", [channel.maximum for _, _, channel in rows]),
    ]
    return Table(name="Images", search="Find a case", elsewhere="They are in check.json too.", columns=columns)


def sizes_table(report: CheckReport, links: Mapping[str, str]) -> Table:
    """The size of every label of every case: a row a case or, where there are many labels, a row for each of them."""
    unit = report.units.size
    cases = report.cases
    sizes = [
        [case.labels[label.value].size if label.value in case.labels else None for label in report.labels]
        for case in cases
    ]
    if len(report.labels) <= MOST_COLUMNS:
        columns = [Column(title="Case", values=[case.id for case in cases], links=links)]
        columns += [_number(label.name, unit, column) for label, column in zip(report.labels, zip(*sizes))]
    else:
        names = [label.name for label in report.labels]
        columns = [
            Column(title="Case", values=[case.id for case in cases for _ in names], links=links, choose="All cases"),
            Column(title="Label", values=[name for _ in cases for name in names], choose="All labels"),
            _number(report.units.extent.capitalize(), unit, [size for row in sizes for size in row]),
        ]
    return Table(
        name="Sizes", search="Find a case or a label", elsewhere="They are in check.json too.", columns=columns
    )


def _number(title: str, unit: str, values: Iterable[float | None]) -> Column:
    return Column(title=title, unit=unit, values=list(values), significant=FIGURES)
