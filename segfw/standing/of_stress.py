"""A robustness report that ``segfw stress`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segfw.base.answers import Answer
from segfw.base.errors import UserError
from segfw.base.shell_line import shell_line
from segfw.base.words import count
from segfw.robustness.stress_records import StressReport

REPORT = "stress.json"
SHOWN = 5  # names that a line lists


class StressStanding(Answer):
    """How many images were tried, what broke, and what is left to try."""

    kind: Literal["stress"] = "stress"
    path: Path
    cases: int
    structures: tuple[str, ...]
    changes: int
    broken: tuple[str, ...]
    failed: tuple[str, ...]
    missing: tuple[str, ...]
    next: str

    def text(self) -> str:
        """A few lines, and the next command."""
        tried = f"{count(self.changes, 'change')} of {count(self.cases, 'image')}"
        verdict = f"broken: {', '.join(self.broken)}" if self.broken else "nothing broke that must change nothing"
        lines = [f"{self.path}: robustness, {tried}, {count(len(self.structures), 'structure')}", verdict]
        for what, cases in (("failed", self.failed), ("not tried yet", self.missing)):
            if cases:
                lines.append(f"{what}: {', '.join(cases[:SHOWN])}{' ...' if len(cases) > SHOWN else ''}")
        return "\n".join([*lines, f"next: {self.next}"])


def stress_standing(path: Path) -> StressStanding | None:
    """What a report, or the folder of one, says; None if it is none."""
    file = path / REPORT if path.is_dir() else path
    if file.name != REPORT or not file.is_file():
        return None
    try:
        report = StressReport.load(file)
    except UserError:
        return None
    options = [
        *(("--reference", report.reference) if report.reference else ()),
        *(("--quick",) if report.quick else ()),
    ]
    return StressStanding(
        path=path,
        cases=len(report.cases),
        structures=report.structures,
        changes=len(report.changes),
        broken=tuple(change.perturbation.text for change in report.broken),
        failed=tuple(report.failed),
        missing=report.missing,
        next=shell_line("segfw", "stress", report.model, report.images, str(file.parent), *options),
    )
