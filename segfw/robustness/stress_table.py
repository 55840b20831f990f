"""The table of the trials: a row for every structure of every case under every change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.base.printing import csv_text, number_cell
from segfw.robustness.stress_records import CaseStress, StructureEffect

FIRST_COLUMNS = ("case", "change", "kind", "level", "unit")
COLUMNS = (
    *("agreement", "ceiling", "dice_before", "dice_after", "voxels_before", "voxels_after"),
    *("expected", "found_before", "found_after"),
)
DIGITS = 6


def stress_csv(found: Sequence[CaseStress], structures: Sequence[str]) -> str:
    """Of some structures; what cannot be told is empty, yes and no are 1 and 0."""
    rows = []
    for case in found:
        for effect in case.effects:
            change = effect.perturbation
            first = [case.id, change.name, change.kind, number_cell(change.level, DIGITS), change.unit]
            last = [effect.changed_voxels, effect.detail, effect.problem]
            told = [each for each in effect.structures if each.structure in structures]
            rows += [[*first, each.structure, *_cells(each), *last] for each in told]
            if not effect.structures:
                rows.append([*first, "", *([""] * len(COLUMNS)), *last])
    return csv_text([*FIRST_COLUMNS, "structure", *COLUMNS, "changed_voxels", "detail", "problem"], rows)


def _cells(effect: StructureEffect) -> list[object]:
    return [number_cell(getattr(effect, column), DIGITS) for column in COLUMNS]


def outputs_of(output: Path) -> tuple[Path, Path, Path]:
    """The report, the table and the page."""
    return output / "stress.json", output / "stress.csv", output / "stress.html"
