"""Scores by groups as text: two CSV files, and columns for the console."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from segfw.base.printing import csv_text
from segfw.base.words import count
from segfw.evaluation.group_scores import CASE_MEAN, GROUP_POLICY
from segfw.evaluation.group_statistics import GroupedScores, GroupMean, ScoreGroup
from segfw.evaluation.text import aligned_columns

MEANS = ("cases", "patients", "mean", "low", "high", "worst", "worst_case")
MOST_COLUMNS = 24  # on the console, of what headers tell of many structures


class GroupRow(NamedTuple):
    """A metric of a label in a group of a column."""

    by: GroupedScores
    group: ScoreGroup
    label: str
    metric: str
    found: GroupMean


def group_rows(grouped: Iterable[GroupedScores]) -> Iterator[GroupRow]:
    """Every mean, that of the cases' means over labels first."""
    for by in grouped:
        for group in by.groups:
            every = {CASE_MEAN: group.foreground} if group.foreground else {}
            for label, by_metric in (every | group.labels).items():
                for metric, found in by_metric.items():
                    yield GroupRow(by, group, label, metric, found)


def groups_csv(grouped: Iterable[GroupedScores]) -> str:
    """One row per column, group, label and metric."""
    rows = [
        (row.by.column, row.group.name, row.by.source, row.label, row.metric, *_cells(row.found))
        for row in group_rows(grouped)
    ]
    return csv_text(("column", "group", "source", "label", "metric", *MEANS), rows)


def _cells(found: GroupMean) -> Iterator[object]:
    return (getattr(found, name) for name in MEANS)


def group_tests_csv(grouped: Iterable[GroupedScores]) -> str:
    """One row per column: the largest gap in Dice, its interval, and the test."""
    rows: list[Sequence[object]] = []
    for by in grouped:
        gap = (by.gap.higher, by.gap.lower, by.gap.gap, by.gap.low, by.gap.high) if by.gap else (None,) * 5
        rows.append((by.column, by.tested, by.source, *gap, by.p, by.p_holm, by.untested))
    heads = ("column", "tested", "source", "higher", "lower", "gap", "low", "high", "p", "p_holm", "untested")
    return csv_text(heads, rows)


def groups_text(grouped: Sequence[GroupedScores]) -> str:
    """Dice of each group of each column, and what is said of their differences; one line for groups that are one.

    Where there are very many columns those are shown that were tested, with the smallest p first.
    """
    lines: list[str] = []
    shown = list(grouped)
    if len(shown) > MOST_COLUMNS:
        shown = sorted((by for by in shown if by.p is not None), key=lambda by: by.p or 0.0)[:MOST_COLUMNS]
        lines.append(f"{len(shown)} of {count(len(grouped), 'column')} are shown; --output writes all")
    for by in shown:
        title = f"Dice by {by.column}"
        if len(by.groups) < 2:
            lines.append(f"{title}: {by.untested}")
            continue
        lines += ["", title, *_group_lines(by), f"  {difference(by)}"]
    return "\n".join([*lines, "", GROUP_POLICY])


def _group_lines(by: GroupedScores) -> list[str]:
    rows: list[Sequence[str]] = [("  group", "patients", "cases", "Dice", "95 %", "worst", "worst case")]
    for group in by.groups:
        found = (group.labels.get(by.tested) or group.foreground).get("dice")
        numbers = (str(group.patients), str(group.cases))
        if found is None:
            rows.append((f"  {group.name}", *numbers, "-", "-", "-", "-"))
            continue
        interval = "-" if found.low is None or found.high is None else f"{found.low:.3f} to {found.high:.3f}"
        means = (f"{found.mean:.3f}", interval, f"{found.worst:.3f}", found.worst_case)
        rows.append((f"  {group.name}", *numbers, *means))
    return [line.rstrip() for line in aligned_columns(rows)]


def difference(by: GroupedScores) -> str:
    """The largest gap and the test of a column in words, or why there is none."""
    if by.gap is None or by.p is None or by.p_holm is None:
        return f"not tested: {by.untested}"
    gap = by.gap
    return (
        f"largest gap {gap.gap:.3f} ({gap.higher} above {gap.lower}), 95 % {gap.low:.3f} to {gap.high:.3f}; "
        f"p {by.p:.2g}, corrected {by.p_holm:.2g}"
    )
