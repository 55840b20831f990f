"""Curves: what is left of agreement, or of Dice, with the level of a change; a plot a change, a line a structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from segfw.base.figures import (
    INK,
    SOFT_INK,
    label_color,
    label_dashes,
    label_marker,
    letters_of_names,
    plain_axes,
    plot_png,
)
from segfw.dataset.drawn_names import drawn_name
from segfw.robustness.stress_records import ChangeSummary, StressReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 10  # structures in a plot; of more those that lose most
COLUMNS = 3


def curves_of(report: StressReport) -> dict[str, list[ChangeSummary]]:
    """The changes that are curves, by name, mildest level first."""
    found: dict[str, list[ChangeSummary]] = {}
    for change in report.changes:
        if change.perturbation.kind == "degrades" and change.cases:
            found.setdefault(change.perturbation.name, []).append(change)
    return found


def value_of(change: ChangeSummary, index: int, *, is_dice: bool) -> float | None:
    """What a curve shows of a structure: Dice with the expert's masks, or agreement with the unchanged image's."""
    summary = change.structures[index]
    return summary.dice_after if is_dice else summary.agreement


def drawn_structures(report: StressReport) -> list[int]:
    """The structures that lose most, at most MOST_LINES, in the order of the labels."""
    losses: dict[int, float] = {}
    for change in report.changes:
        for index, summary in enumerate(change.structures):
            if change.perturbation.kind == "degrades" and summary.agreement is not None:
                losses[index] = max(losses.get(index, 0.0), 1 - summary.agreement)
    return sorted(sorted(losses, key=lambda index: -losses[index])[:MOST_LINES])


def draw_curves(report: StressReport, classes: Mapping[str, int], *, is_dice: bool) -> bytes | None:
    """PNG with a plot for each curve; None where there is none. ``classes`` give structures their colours."""
    from matplotlib.figure import Figure

    curves = curves_of(report)
    shown = drawn_structures(report)
    if not curves or not shown:
        return None
    rows = -(-len(curves) // COLUMNS)
    with letters_of_names(INK):
        figure = Figure(figsize=(9.6, 2.5 * rows + 0.55), dpi=110, layout="constrained")
        grid = figure.subplots(rows, COLUMNS, squeeze=False, sharey=True)
        places = [ax for row in grid for ax in row]
        for ax, (name, changes) in zip(places, curves.items()):
            _draw_curve(ax, name, changes, report.structures, shown, classes, is_dice=is_dice)
        for ax in places[len(curves) :]:
            ax.set_visible(False)
        for row in grid:
            row[0].set_ylabel("Dice" if is_dice else "agreement")
        handles, texts = places[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=min(5, len(shown)), frameon=False, fontsize=9)
        return plot_png(figure)


def _draw_curve(
    ax: Axes,
    name: str,
    changes: Sequence[ChangeSummary],
    structures: Sequence[str],
    shown: Sequence[int],
    classes: Mapping[str, int],
    *,
    is_dice: bool,
) -> None:
    first = changes[0].perturbation
    plain_axes(ax)
    ax.set_title(name, size=10, color=INK, loc="left")
    ax.set_xlabel(first.unit or "level", size=9)
    ax.set_ylim(-0.03, 1.03)
    for index in shown:
        color_class = classes[structures[index]]
        summary = changes[0].structures[index]
        start = summary.dice_before if is_dice else 1.0
        levels = [first.unchanged]
        values = [start]
        for change in changes:
            levels.append(change.perturbation.level or 0.0)
            values.append(value_of(change, index, is_dice=is_dice))
        known = [(level, value) for level, value in zip(levels, values) if value is not None]
        ax.plot(
            [level for level, _ in known],
            [value for _, value in known],
            color=label_color(color_class),
            linestyle=label_dashes(color_class),
            marker=label_marker(color_class),
            markersize=4.5,
            lw=1.6,
            label=drawn_name(structures[index], color_class),
        )
    if not is_dice:
        _draw_ceiling(ax, changes, shown)


def _draw_ceiling(ax: Axes, changes: Sequence[ChangeSummary], shown: Sequence[int]) -> None:
    """The agreement that another grid allows, where there is one: the mean of the structures that are drawn."""
    known = []
    for change in changes:
        ceilings = [change.structures[index].ceiling for index in shown]
        values = [value for value in ceilings if value is not None]
        if values:
            known.append((change.perturbation.level or 0.0, sum(values) / len(values)))
    if known:
        levels = [level for level, _ in known]
        heights = [height for _, height in known]
        ax.plot(levels, heights, color=SOFT_INK, lw=1, linestyle=(0, (1, 2)), marker="_", label="_most")
