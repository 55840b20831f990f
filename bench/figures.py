"""Figures of comparisons: Dice of masks, means and spreads, aligned columns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np


def dices(first: np.ndarray, second: np.ndarray) -> dict[int, float]:
    """Dice of every label above 0 that either mask has."""
    size = int(max(first.max(), second.max())) + 1
    pairs = first.ravel().astype(np.int64) * size + second.ravel()
    joint = np.bincount(pairs, minlength=size**2).reshape(size, size)
    total = joint.sum(0) + joint.sum(1)
    return {label: 2 * joint[label, label] / total[label] for label in range(1, size) if total[label]}


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, smallest, largest and standard deviation (n - 1); the deviation of a single value is None."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "min": min(values), "max": max(values), "sd": deviation}


def spread_text(values: Sequence[float], digits: int = 4) -> str:
    """'0.8790 (0.8750 to 0.8810, sd 0.0030)', or the value alone if there is one."""
    found = spread(values)
    text = {name: "" if value is None else f"{value:.{digits}f}" for name, value in found.items()}
    if found["sd"] is None:
        return text["mean"]
    return f"{text['mean']} ({text['min']} to {text['max']}, sd {text['sd']})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table, the first one its head."""
    head, *others = rows
    lines = [head, ["---"] * len(head), *others]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned plain text; the first column starts its lines, the others end with their columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
