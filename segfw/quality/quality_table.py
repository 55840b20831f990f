"""All judged masks of a folder in one table, ``quality.csv``, the least trusted first; and lines for the console."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from segfw.base.file_names import QUALITY_TABLE_FILE
from segfw.base.files import write_text
from segfw.base.printing import csv_text, printable
from segfw.base.records import UserError
from segfw.base.words import count
from segfw.quality.case_quality import (
    EXCHANGEABLE,
    CaseRegions,
    SuspectedRegion,
    order_of,
    quality_file,
    read_qualities,
    regions_file,
)
from segfw.quality.quality_model import VERDICTS, StructureQuality

MOST_LINES = 20  # on the console; the table has all
HEADER = (
    "case",
    "structure",
    "verdict",
    "predicted_dice",
    "lower_bound",
    "p_fail",
    "ranking",
    "volume_ml",
    "volume_low_ml",
    "volume_high_ml",
    "suspected_regions",
    "expected_wrong_ml",
    "gate",
    "guarantee",
    "reasons",
)


def write_quality_table(folder: Path) -> Path:
    """Writes ``folder/quality.csv``: a row for each structure of each case, the cases with the least trusted one first.

    Within a case structures are ordered alike. Sums of a case's regions count a voxel that lies in two of them twice.
    """
    folder = Path(folder)
    judged = [case for case in read_qualities(folder) if case.structures]
    judged.sort(key=lambda case: (min(map(order_of, case.structures)), case.case))
    rows = []
    for case in judged:
        regions = _regions(folder, case.case)
        for each in sorted(case.structures, key=order_of):
            own = [region for region in regions if region.label == each.label]
            low, high = each.volume_interval_ml or (None, None)
            rows.append(
                (
                    printable(case.case),
                    each.label,
                    each.verdict,
                    _rounded(each.predicted_dice),
                    _rounded(each.lower_bound),
                    _rounded(each.p_fail),
                    _rounded(each.ranking),
                    _rounded(each.volume_ml),
                    _rounded(low),
                    _rounded(high),
                    len(own),
                    _rounded(sum(region.expected_wrong_mm3 for region in own) / 1000),
                    "" if case.gate is None else case.gate.verdict,
                    case.guarantee,
                    "; ".join(each.reasons),
                )
            )
    write_text(folder / QUALITY_TABLE_FILE, csv_text(HEADER, rows))
    return folder / QUALITY_TABLE_FILE


def quality_lines(folder: Path, cases: Collection[str], most: int = MOST_LINES) -> list[str]:
    """What is said of the cases on the console: how many structures have which verdict, and the doubtful ones."""
    chosen = set(cases)
    judged = [case for case in read_qualities(folder) if case.case in chosen]
    if not judged:
        return []
    verdicts = Counter(each.verdict for case in judged for each in case.structures)
    numbers = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS)
    lines = [f"quality of {count(len(judged), 'mask')}, by structures: {numbers}"]
    withdrawn = Counter(case.guarantee for case in judged if case.guarantee != EXCHANGEABLE)
    odd = [case for case in judged if case.gate is not None and case.gate.verdict != "usual"]
    if odd:
        lines.append(
            f"warning: {count(len(odd), 'image')} unlike the training images, for which nothing is promised: "
            + ", ".join(printable(case.case) for case in odd[:most])
            + (" ..." if len(odd) > most else "")
        )
    for text, number in withdrawn.items():
        if number == len(judged):
            lines.append(f"note: bounds are {text}")
    doubtful = [(order_of(each), case.case, each) for case in judged for each in case.structures]
    doubtful = sorted((row for row in doubtful if row[2].verdict != "use"), key=lambda row: row[:2])
    lines += [structure_line(case, each) for _, case, each in doubtful[:most]]
    if len(doubtful) > most:
        lines.append(f"and {len(doubtful) - most} more doubtful structures in {Path(folder) / QUALITY_TABLE_FILE}")
    return lines


def structure_line(case: str, each: StructureQuality) -> str:
    """'a: Anterior: look, predicted Dice 0.71, at least 0.52; the folds agree on only 0.71 of it'."""
    sure = f"{100 * (1 - each.alpha):.0f} %"
    parts: list[str] = [each.verdict]
    if each.predicted_dice is not None:
        parts.append(f"predicted Dice {each.predicted_dice:.2f}")
    if each.lower_bound is not None:
        parts.append(f"at least {each.lower_bound:.2f} in {sure} of such cases")
    warning = "warning: " if each.verdict == "do-not-use" else ""
    reasons = f"; {'; '.join(each.reasons)}" if each.reasons else ""
    return f"{warning}{printable(case)}: {each.label}: {', '.join(parts)}{reasons}"


def _regions(folder: Path, case: str) -> Sequence[SuspectedRegion]:
    """None of a case whose file is of another version."""
    try:
        return CaseRegions.load(regions_file(quality_file(folder, case))).regions
    except UserError:
        return ()


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
