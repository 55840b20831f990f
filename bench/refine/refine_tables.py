"""Dice after clicks, and their gain over the refiner without them, as Markdown; intervals by patient over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bench.accuracy.intervals import Estimate, Values, estimate
from bench.figures import markdown
from bench.refine.refine_results import ClickedItem, RefineResult
from segfw.base.words import count

CONTROL = "no click"
AUTOMATIC = "the automatic mask"
SHOWN = (0, 1, 3, 5)
CLEARLY = 0.005  # of Dice
PARTS = ("all", "worst quarter")
NOTHING = "-"

Runs = dict[int, RefineResult]  # by seed
Change = Callable[[ClickedItem], float]


def tables(lines: Sequence[RefineResult]) -> str:
    """The tables of every data set and length of training that there are."""
    groups: dict[tuple[str, float], list[RefineResult]] = {}
    for line in lines:
        groups.setdefault((line.data_set, line.minutes), []).append(line)
    return "\n\n".join(_tables_of(found) for _, found in sorted(groups.items()))


def _tables_of(lines: Sequence[RefineResult]) -> str:
    first = lines[0]
    patients = len(set(first.patient_of.values()))
    title = f"### {first.data_set}: {count(patients, 'kept-out patient')}, {first.minutes:g} minutes a refiner"
    parts = [title, _how(lines)]
    for clicks in dict.fromkeys(line.clicks for line in lines):
        by_arm: dict[str, Runs] = {}
        for line in lines:
            if line.clicks == clicks:
                by_arm.setdefault(line.arm, {})[line.seed] = line
        parts += [f"Clicks: {clicks}", markdown([_head(), *(_row(arm, runs) for arm, runs in by_arm.items())])]
        parts.append(markdown([_gains_head(AUTOMATIC), *(_gains_row(arm, runs, None) for arm, runs in by_arm.items())]))
        gains = _gains_over_control(by_arm)
        if gains:
            parts.append(markdown([_gains_head(CONTROL), *gains]))
    return "\n\n".join(parts)


def _how(lines: Sequence[RefineResult]) -> str:
    """What everything was made with, and whether a mask that nobody clicked on stayed as it was."""
    first = lines[0]
    touched = sum(not line.untouched for line in lines)
    same = "every one was the automatic mask bit for bit" if not touched else f"in {touched} runs one had changed"
    items = len(first.items)
    return (
        f"{count(items, 'structure')} of {count(len(first.patient_of), 'case')}; one base model for all seeds; "
        f"{first.processor}, {count(first.cores, 'core')}. Masks before the first click: {same}."
    )


def _head() -> list[str]:
    dice = [f"{part}: {number}" for part in PARTS for number in SHOWN]
    lowering = ["clicks that lower Dice", f"by over {CLEARLY}", "misses that lower Dice, of all clicks"]
    return ["arm", "seeds", *dice, *lowering, "obeyed", "asked", "p50, p95 s"]


def _row(arm: str, runs: Runs) -> list[str]:
    items = [item for line in runs.values() for item in line.items]
    made = sum(len(item.seconds) for item in items)
    cells = [arm, str(len(runs))]
    for part in PARTS:
        cells += [f"{_of(runs, _dice_after(number), part).mean:.4f}" for number in SHOWN]
    if not made:
        return [*cells, *[NOTHING] * 6]
    cells.append(_share(sum(item.lowered for item in items), made))
    cells.append(_share(sum(_clearly_lowered(item) for item in items), made))
    cells.append(_lowered_by_misses(items, made))
    cells += [_share(sum(getattr(item, what) for item in items), made) for what in ("obeyed", "asked")]
    median, late = np.quantile([each for item in items for each in item.seconds], (0.5, 0.95))
    return [*cells, f"{median:.2f}, {late:.2f}"]


def _clearly_lowered(item: ClickedItem) -> int:
    """Clicks that cost more than a voxel or two of a border."""
    return sum(after < before - CLEARLY for before, after in zip(item.dice, item.dice[1:]))


def _lowered_by_misses(items: Sequence[ClickedItem], made: int) -> str:
    """Clicks that lower Dice because they say what the expert does not: no refiner that obeys does better."""
    counted = [item.lowered_by_misses for item in items if item.lowered_by_misses is not None]
    return _share(sum(counted), made) if len(counted) == len(items) else NOTHING


def _share(some: int, of: int) -> str:
    return f"{100 * some / of:.1f} % of {of}"


def _dice_after(number: int) -> Change:
    return lambda item: item.dice[number]


def _gains_head(other: str) -> list[str]:
    return [f"over {other}", *(f"{part}: {number}" for part in PARTS for number in SHOWN[1:])]


def _gains_over_control(by_arm: dict[str, Runs]) -> list[list[str]]:
    """What every arm is better by than the refiner without its clicks, in the seeds of both."""
    control = by_arm.get(CONTROL, {})
    rows = []
    for arm, runs in by_arm.items():
        shared = {seed: line for seed, line in runs.items() if seed in control}
        if arm != CONTROL and shared:
            rows.append(_gains_row(arm, shared, control))
    return rows


def _gains_row(arm: str, runs: Runs, control: Runs | None) -> list[str]:
    gains = [gain(runs, control, number, part) for part in PARTS for number in SHOWN[1:]]
    return [arm, *(_with_interval(each) for each in gains)]


def gain(runs: Runs, control: Runs | None, number: int, part: str) -> Estimate:
    """Dice after ``number`` clicks less that of the control after as many steps, by structure and case.

    Without a control, less that of the automatic mask.
    """
    step = 0 if control is None else number
    lines = runs if control is None else control
    other = {(seed, item.case, item.structure): item.dice[step] for seed, line in lines.items() for item in line.items}
    return _of(runs, _dice_after(number), part, other)


def _of(runs: Runs, value: Change, part: str, less: dict[tuple[int, str, str], float] | None = None) -> Estimate:
    """The mean over seeds, structures and cases, each structure's cases weighing alike."""
    first = next(iter(runs.values()))
    structures = sorted({item.structure for item in first.items})
    chosen = _worst(first.items) if part == PARTS[1] else {(item.case, item.structure) for item in first.items}
    found: list[Values] = []
    for seed, line in runs.items():
        values: Values = {}
        for item in line.items:
            if (item.case, item.structure) in chosen:
                row = values.setdefault(item.case, np.full(len(structures), np.nan))
                base = less[seed, item.case, item.structure] if less is not None else 0.0
                row[structures.index(item.structure)] = value(item) - base
        found.append(values)
    return estimate(found, first.patient_of)


def _worst(items: Sequence[ClickedItem]) -> set[tuple[str, str]]:
    """The quarter of the cases in which the automatic mask is worst, of each structure by itself."""
    chosen = set()
    for structure in {item.structure for item in items}:
        ranked = sorted((item for item in items if item.structure == structure), key=lambda item: item.dice[0])
        chosen |= {(item.case, structure) for item in ranked[: max(1, len(ranked) // 4)]}
    return chosen


def _with_interval(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return f"{found.mean:+.4f}, {count(found.patients, 'patient')}"
    return f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
