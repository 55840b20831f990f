"""What the check of a data set says: findings, figures of every case, and both as text for a console."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from segfw.base.records import Record, count
from segfw.checkup.case_measures import CaseMeasure
from segfw.dataset.cases import Problem
from segfw.images.geometry import Shape, Spacing

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
LISTED = 12  # findings of one kind that the console shows

# Kinds of problems found in reading and verifying that ``fix`` can repair.
FIXABLE = frozenset({"same-image", "image-nan", "mask-grid", "channel-grid"})


class Finding(Record):
    """One thing that was found; ``case`` is '' for the data set, ``place`` a voxel (z, y, x) in canonical orientation.

    Severity: with an 'error' training would not start, a 'warning' should be looked at, a 'note' is no alarm.
    """

    kind: str
    severity: Severity
    what: str
    remedy: str
    case: str = ""
    others: tuple[str, ...] = ()
    file: str = ""
    fixable: bool = False
    labels: tuple[int, ...] = ()
    place: Shape | None = None

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.case, self.file) if part)
        return f"{where + ': ' if where else ''}{self.what}; {self.remedy}"


class ChannelFigures(Record):
    """Intensities of one channel of a case; ``low`` and ``high`` are the percentiles 0.5 and 99.5."""

    minimum: float
    low: float
    median: float
    high: float
    maximum: float


class LabelFigures(Record):
    """Size of a label in one case; ``parts`` counts its connected components."""

    voxels: int
    volume_ml: float
    parts: int


class CaseFigures(Record):
    """One case that could be read; shape and spacing (z, y, x) in canonical orientation, labels by file value."""

    id: str
    shape: Shape
    spacing_mm: Spacing
    orientation: str
    channels: tuple[ChannelFigures, ...]
    labels: dict[str, LabelFigures]

    @staticmethod
    def of(case: CaseMeasure) -> CaseFigures:
        """What is kept of a measured case."""
        return CaseFigures(
            id=case.id,
            shape=case.shape,
            spacing_mm=case.spacing_mm,
            orientation=case.orientation,
            channels=tuple(
                ChannelFigures(**{name: getattr(channel, name) for name in ChannelFigures.model_fields})
                for channel in case.channels
            ),
            labels={
                str(value): LabelFigures(voxels=label.voxels, volume_ml=label.volume_ml, parts=label.parts)
                for value, label in case.labels.items()
            },
        )


class LabelSummary(Record):
    """A label over all cases; volumes in millilitres, of the cases that have it."""

    name: str
    value: int
    cases: int
    smallest_ml: float | None
    median_ml: float | None
    largest_ml: float | None


class CheckReport(Record):
    """What is in a data set and what is wrong with it, worst first."""

    name: str
    root: str
    layout: str
    case_count: int
    cases: tuple[CaseFigures, ...]
    labels: tuple[LabelSummary, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def alarms(self) -> int:
        """Number of errors and warnings."""
        return sum(finding.severity != "note" for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 if nothing is above a note, else 1."""
        return 1 if self.alarms else 0

    def of_severity(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def text(self) -> str:
        """The report for a console: what is there, then the findings by kind, worst first."""
        lines = [f"{self.root}: {self.headline()}", *(f"  {line}" for line in self.summary())]
        for severity in SEVERITIES:
            by_kind: dict[str, list[Finding]] = {}
            for finding in self.of_severity(severity):
                by_kind.setdefault(finding.kind, []).append(finding)
            for kind, findings in by_kind.items():
                lines += ["", f"{severity} {kind} ({len(findings)})", *(f"  {each}" for each in findings[:LISTED])]
                if len(findings) > LISTED:
                    lines.append(f"  and {len(findings) - LISTED} more")
        return "\n".join(lines)

    def headline(self) -> str:
        """'24 cases, 1 error, 2 warnings, 1 note'."""
        numbers = [count(len(self.of_severity(severity)), severity) for severity in SEVERITIES]
        return ", ".join([count(self.case_count, "case"), *numbers])

    def summary(self) -> list[str]:
        """Cases, shapes, spacings, intensities and labels, a line each."""
        lines = [f"layout: {self.layout}", *self.notes]
        if len(self.cases) < self.case_count and self.of_severity("error"):
            lines.append(f"measured: {count(len(self.cases), 'case')}; the others have errors")
        if self.cases:
            lines.append(f"shape (z, y, x): {_ranges([case.shape for case in self.cases], '.0f')}")
            lines.append(f"spacing in mm (z, y, x): {_ranges([case.spacing_mm for case in self.cases], '.4g')}")
            stored = Counter(case.orientation for case in self.cases).most_common()
            lines.append("stored orientation: " + ", ".join(f"{code} ({number})" for code, number in stored))
            for index in range(min(len(case.channels) for case in self.cases)):
                spans = [(case.channels[index].low, case.channels[index].high) for case in self.cases]
                low, high = np.median(spans, axis=0)
                lines.append(f"channel {index}: mostly between {low:.4g} and {high:.4g} (median over cases)")
        for label in self.labels:
            size = (
                ""
                if label.median_ml is None
                else (f", {label.median_ml:.3g} ml ({label.smallest_ml:.3g} to {label.largest_ml:.3g})")
            )
            lines.append(f"label {label.value} {label.name}: in {count(label.cases, 'case')}{size}")
        return lines


def _ranges(rows: list[tuple], style: str) -> str:
    columns = [sorted(column) for column in zip(*rows)]
    texts = []
    for column in columns:
        low, median, high = (format(value, style) for value in (column[0], np.median(column), column[-1]))
        texts.append(low if low == high else f"{median} ({low} to {high})")
    return " x ".join(texts)


def finding_of(problem: Problem) -> Finding:
    """A problem of reading and verifying, as a finding of its kind."""
    severity: Severity = "warning" if problem.is_warning else "error"
    return Finding(
        kind=problem.kind,
        severity="note" if problem.kind == "no-spacing" else severity,  # photographs never say one
        what=problem.what,
        remedy=problem.remedy,
        case=problem.case,
        others=problem.others,
        file=Path(problem.file).name,
        fixable=problem.kind in FIXABLE,
    )
