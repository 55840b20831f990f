"""Measures that ``segfw measure`` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from segfw.base.answers import Answer
from segfw.base.errors import UserError
from segfw.base.shell_line import shell_line
from segfw.base.words import count, listed
from segfw.base.written_by_people import read_json
from segfw.measurements.measure_options import GUESS

SHOWN = 5  # cases that a line lists


class MeasuresStanding(Answer):
    """How many cases were measured and with what status their structures; which failed, and which are missing.

    Missing are cases that were found and that no part of the work has measured yet.
    """

    kind: Literal["measures"] = "measures"
    path: Path
    cases: int
    structures: tuple[str, ...]
    statuses: dict[str, int]
    failed: tuple[str, ...]
    missing: tuple[str, ...]
    next: str

    def text(self) -> str:
        """A few lines, and the next command."""
        found = [f"{number} {status}" for status, number in self.statuses.items() if number]
        lines = [
            f"{self.path}: measures of {count(self.cases, 'case')}, {count(len(self.structures), 'structure')}",
            f"statuses: {listed(found, 'and') if found else 'none'}",
        ]
        for what, cases in (("failed", self.failed), ("not measured yet", self.missing)):
            if cases:
                lines.append(f"{what}: {', '.join(cases[:SHOWN])}{' ...' if len(cases) > SHOWN else ''}")
        return "\n".join([*lines, f"next: {self.next}"])


def measures_standing(path: Path) -> MeasuresStanding | None:
    """What a file of measures says; None if it is none."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        found = read_json(path)
        if found["kind"] != "measures":
            return None
        masks = str(found["masks"])
        table = str(path.with_suffix(".csv"))
        page = str(path.with_suffix(".html"))
        return MeasuresStanding(
            path=path,
            cases=len(found["cases"]) - len(found["failed"]),
            structures=tuple(each["structure"] for each in found["summary"]),
            statuses=found["statuses"],
            failed=tuple(found["failed"]),
            missing=tuple(found["missing"]),
            next=shell_line("segfw", "measure", masks, "--output", table, "--report", page, *_options(found, path)),
        )
    except (UserError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _options(found: Mapping[str, Any], path: Path) -> list[str]:
    """Those that it was measured with; without them what is there would be refused, or tables would be lost.

    Files of before it was kept whether features were told lie beside their table, if they were. Settings and filters
    of features are read from what lies there.
    """
    options = ["--images", str(found["images"])] if found["images"] else []
    options += ["--only", ",".join(found["only"])] if found.get("only") else []
    options += ["--per-component"] if found.get("per_component") else []
    options += ["--label-names", str(found["label_names"])] if found.get("label_names") else []
    options += ["--model", str(found["model"])] if found.get("model") else []
    by_patient = found.get("by_patient")
    if by_patient:
        options += ["--by-patient"] if by_patient == GUESS else ["--by-patient", str(by_patient)]
    if found.get("radiomics") or path.with_name(f"{path.stem}_radiomics.csv").is_file():
        options += ["--radiomics"]
    return [*options, "--stability", str(found["stability"])] if found.get("stability") else options
