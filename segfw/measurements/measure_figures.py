"""The plot of a cohort's sizes: every case of every structure on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from segfw.base.figures import INK, SOFT_INK, label_color, letters_of_names, plain_axes, plot_png
from segfw.dataset.drawn_names import drawn_name
from segfw.measurements.cohort_measures import Measures
from segfw.measurements.structure_measures import StructureMeasures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOX_CASES = 8  # from here on quartiles say something
HIGH_ROWS = 24  # structures; more are drawn closer together
MOST_POINTS = 6000
MOST_TICKS = 12
ROOM = 0.05  # at each side, of the width on the logarithmic scale
LEAST_ROOM = 1.2  # as a factor


def draw_sizes(measures: Measures, classes: Mapping[str, int]) -> bytes | None:
    """PNG of the sizes by structure, on a logarithmic scale; None where nothing has a size.

    Filled dots are whole structures, in the colour of their class, hollow ones those that are cut or small. From
    BOX_CASES whole ones on a box shows their median and quartiles. Of very many points those of whole structures that
    are inside of the whiskers are left out.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    by_structure: dict[str, list[StructureMeasures]] = {each.structure: [] for each in measures.summary}
    for row in measures.rows:
        if row.size_in(measures.unit) is not None:
            by_structure[row.structure].append(row)
    by_structure = {name: found for name, found in by_structure.items() if found}
    if not by_structure:
        return None
    rows = len(by_structure)
    is_high = rows <= HIGH_ROWS
    is_crowded = sum(map(len, by_structure.values())) > MOST_POINTS
    height = 0.9 + (0.42 if is_high else 0.17) * rows
    with letters_of_names(INK):
        figure = Figure(figsize=(8.4, height), dpi=110, layout="constrained")
        ax = figure.subplots()
        plain_axes(ax)
        unit = {"ml": "ml", "mm2": "mm²", "px": "pixels"}[measures.unit]
        ax.set(ylim=(rows - 0.5, -0.5), xscale="log", xlim=_limits(by_structure), xlabel=f"size in {unit}")
        # Plain numbers, 1, 2 and 5 of each power of ten where there is room, and no formulas, which are not set here
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=MOST_TICKS))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        for place, (name, found) in enumerate(by_structure.items()):
            _draw_row(ax, place, found, label_color(classes[name]), is_crowded=is_crowded)
        size = 9.5 if is_high else 7
        ax.set_yticks(range(rows), [drawn_name(name, classes[name]) for name in by_structure], size=size, color=INK)
        return plot_png(figure)


def _limits(by_structure: Mapping[str, list[StructureMeasures]]) -> tuple[float, float]:
    """The smallest and the largest size with some room beside them, also where all sizes are the same."""
    sizes = [row.size for rows in by_structure.values() for row in rows if row.size is not None]
    smallest = min(sizes)
    largest = max(sizes)
    room = max((largest / smallest) ** ROOM, LEAST_ROOM)
    return smallest / room, largest * room


def _draw_row(
    ax: Axes, place: int, rows: list[StructureMeasures], color: tuple[float, float, float], *, is_crowded: bool
) -> None:
    whole = [row.size for row in rows if row.status == "whole" and row.size is not None]
    others = [row.size for row in rows if row.status != "whole" and row.size is not None]
    if len(whole) >= BOX_CASES:
        ax.boxplot(
            whole,
            positions=[place],
            orientation="horizontal",
            widths=0.55,
            showfliers=is_crowded,
            flierprops={"marker": "o", "markersize": 3, "markerfacecolor": color, "markeredgewidth": 0},
            medianprops={"color": INK, "lw": 1.6},
            boxprops={"color": SOFT_INK},
            whiskerprops={"color": SOFT_INK},
            capprops={"color": SOFT_INK},
            manage_ticks=False,
        )
    if not (is_crowded and len(whole) >= BOX_CASES):
        ax.scatter(whole, [place] * len(whole), s=16, color=color, zorder=3, linewidths=0, alpha=0.85)
    ax.scatter(others, [place] * len(others), s=20, facecolors="none", edgecolors=[color], zorder=2, linewidths=1)
