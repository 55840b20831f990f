"""What the check of a data set says: findings and figures of every case, and both as text for a console."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import SerializerFunctionWrapHandler, model_serializer

from segfw.base.answers import Answer
from segfw.base.records import Record
from segfw.base.words import count, figure
from segfw.checkup.case_details import CheckedCase
from segfw.dataset.cases import Finding, Severity
from segfw.images.units import SCAN, Units, lengths_in

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")  # worst first
LISTED = 12  # findings of one kind that the console shows


class LabelSummary(Record):
    """A label over all cases; sizes, of the cases that have it, are volumes or areas in ``unit``.

    In ``not_annotated`` cases nobody drew it.
    """

    name: str
    value: int
    cases: int
    not_annotated: int = 0
    unit: str
    smallest: float | None
    median: float | None
    largest: float | None

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Where all is annotated it is written as in every check.json of before."""
        content: dict[str, object] = handler(self)
        if not content["not_annotated"]:
            del content["not_annotated"]
        return content


class CheckReport(Answer):
    """What is in a data set and what is wrong with it, worst first."""

    kind: Literal["check"] = "check"
    name: str
    root: str
    layout: str
    case_count: int
    cases: tuple[CheckedCase, ...]
    labels: tuple[LabelSummary, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    paired: str = ""  # the files of the first case

    @property
    def units(self) -> Units:
        """What most cases are measured in."""
        return main_units(self.cases)

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
                lines.append("")
                lines.append(f"{severity} {kind} ({len(findings)})")
                lines += [f"  {finding}" for finding in findings[:LISTED]]
                if len(findings) > LISTED:
                    lines.append(f"  and {len(findings) - LISTED} more")
        return "\n".join(lines)

    def headline(self) -> str:
        """'24 cases, 1 error, 2 warnings, 1 note'."""
        numbers = [count(len(self.of_severity(severity)), severity) for severity in SEVERITIES]
        return ", ".join([count(self.case_count, "case"), *numbers])

    def summary(self) -> list[str]:
        """Cases, shapes, spacings, intensities and labels, a line each."""
        example = f"; {self.paired}" if self.paired else ""
        lines = [f"layout: {self.layout}{example}", *self.notes]
        if len(self.cases) < self.case_count and self.of_severity("error"):
            lines.append(f"measured: {count(len(self.cases), 'case')}; the others have errors")
        if self.cases:
            lines.append(f"shape (z, y, x): {_ranges([case.shape for case in self.cases], '.0f')}")
            unit = lengths_in(case.units for case in self.cases)
            lines.append(f"spacing in {unit} (z, y, x): {_ranges([case.spacing_mm for case in self.cases], '.4g')}")
            stored = Counter(case.orientation for case in self.cases if case.orientation).most_common()
            if stored:
                lines.append("stored orientation: " + ", ".join(f"{code} ({number})" for code, number in stored))
            for index in range(min(len(case.channels) for case in self.cases)):
                spans = [(case.channels[index].low, case.channels[index].high) for case in self.cases]
                low, high = np.median(spans, axis=0)
                lines.append(f"channel {index}: mostly between {low:.4g} and {high:.4g} (median over cases)")
        for label in self.labels:
            line = f"label {label.value} {label.name}: in {count(label.cases, 'case')}"
            if label.not_annotated:
                line += f", not annotated in {label.not_annotated}"
            if label.median is not None and label.smallest is not None and label.largest is not None:
                line += f", {figure(label.median)} {label.unit} ({figure(label.smallest)} to {figure(label.largest)})"
            lines.append(line)
        return lines


def main_units(cases: Sequence[CheckedCase]) -> Units:
    """Units of most of the cases; those of scans without any."""
    found = Counter(case.units for case in cases).most_common(1)
    return found[0][0] if found else SCAN


def _ranges(rows: list[tuple], style: str) -> str:
    texts = []
    for column in zip(*rows):
        low = format(min(column), style)
        high = format(max(column), style)
        texts.append(low if low == high else f"{format(np.median(column), style)} ({low} to {high})")
    return " x ".join(texts)
