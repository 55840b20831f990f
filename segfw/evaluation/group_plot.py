"""A drawing of the Dice of groups of patients, a row for each group."""

from __future__ import annotations

from collections.abc import Sequence

from segfw.base.figures import INK, PALETTE, letters_of_names, plain_axes, plot_png, shortened
from segfw.evaluation.group_statistics import GroupedScores

MOST_ROWS = 60  # of groups; more are in the table alone
NAME_LETTERS = 34


def draw_groups(grouped: Sequence[GroupedScores]) -> bytes | None:
    """PNG of each group's mean with its interval and its worst case; None where no column has two groups.

    Columns of cases come first, then those of single structures with the smallest p, as far as there is room.
    """
    from matplotlib.figure import Figure

    columns = [by for by in grouped if len(by.groups) > 1]
    columns.sort(key=lambda by: (by.source == "header", 1.0 if by.p is None else by.p))
    drawn: list[GroupedScores] = []
    for by in columns:
        if sum(len(one.groups) + 1 for one in [*drawn, by]) <= MOST_ROWS:
            drawn.append(by)
    if not drawn:
        return None
    rows = sum(len(by.groups) + 1 for by in drawn)
    with letters_of_names(INK):
        figure = Figure(figsize=(7.5, 0.9 + 0.3 * rows), dpi=110, layout="constrained")
        ax = figure.subplots()
        plain_axes(ax)
        names: list[str] = []
        headings: list[int] = []
        for by in drawn:
            headings.append(len(names))
            names.append(shortened(by.column, NAME_LETTERS))
            for group in by.groups:
                found = (group.labels.get(by.tested) or group.foreground).get("dice")
                row = len(names)
                names.append(f"{shortened(group.name, NAME_LETTERS)} ({group.patients})")
                if found is None:
                    continue
                if found.low is not None and found.high is not None:
                    ax.hlines(row, found.low, found.high, color=PALETTE[1], lw=2.4, zorder=3)
                ax.plot(found.worst, row, marker="o", markersize=4.5, mfc="none", mec=PALETTE[0], zorder=4)
                ax.plot(found.mean, row, marker="D", markersize=5.5, color=INK, zorder=5)
        ax.set(ylim=(len(names) - 0.5, -0.7), xlim=(-0.01, 1.01), xlabel="Dice")
        ax.set_yticks(range(len(names)), names)
        for row in headings:
            ax.get_yticklabels()[row].set_fontweight("bold")
        ax.grid(visible=False, axis="y")
        return plot_png(figure)
