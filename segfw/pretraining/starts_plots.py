"""Plots of a comparison of starts: Dice and loss of the arms over time, and gains with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segfw.base.durations import HOUR_S, MINUTE_S
from segfw.base.figures import INK, SOFT_INK, label_color, label_dashes, letters_of_names, plain_axes, plot_png
from segfw.pretraining.start_curves import ArmCurve
from segfw.pretraining.start_results import ARMS, At, Gain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AFTER: dict[At, str] = {"quarter": "after a quarter of the training", "end": "at its end"}


def draw_over_time(dices: Sequence[ArmCurve], losses: Sequence[ArmCurve]) -> bytes:
    """Dice of scored cases beside the loss of training, against all time that an arm has had; bands are of seeds."""
    from matplotlib.figure import Figure

    last_s = max(float(curve.seconds_t[-1]) for curve in (*dices, *losses))
    unit_s, unit = (HOUR_S, "hours") if last_s >= 2 * HOUR_S else (MINUTE_S, "minutes")
    if last_s < 2 * MINUTE_S:
        unit_s, unit = 1, "seconds"
    with letters_of_names(INK):
        figure = Figure(figsize=(11.4, 4.4), dpi=110, layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_curves(left, dices, "Dice of scored patients", unit_s, marker="o")
        _draw_curves(right, losses, "Loss of training", unit_s, marker="")
        for ax in (left, right):
            ax.set_xlim(0, 1.03 * last_s / unit_s)
            ax.set_xlabel(f"time in all, {unit}", size=9)
        handles, texts = (left if dices else right).get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        return plot_png(figure)


def _draw_curves(ax: Axes, curves: Sequence[ArmCurve], title: str, unit_s: float, marker: str) -> None:
    plain_axes(ax)
    ax.set_title(title, size=10, color=INK, loc="left")
    if not curves:
        ax.text(0.5, 0.5, "not kept", transform=ax.transAxes, ha="center", va="center", color=SOFT_INK, size=10)
        ax.set_yticks([])
    for curve in curves:
        number = ARMS.index(curve.arm) + 1
        color = label_color(number)
        times = curve.seconds_t / unit_s
        ax.fill_between(times, curve.low_t, curve.high_t, color=color, alpha=0.18, lw=0)
        dashes = label_dashes(number)
        ax.plot(times, curve.mean_t, color=color, linestyle=dashes, marker=marker, ms=4.5, lw=1.8, label=curve.arm)


def draw_gains(gains: Sequence[Gain]) -> bytes:
    """A line for each gain: its interval by patient (thick) and by seed (thin), those after a quarter at the left.

    A point is full where a gain or a loss is shown.
    """
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys((gain.labelled, gain.first, gain.second) for gain in gains))[::-1]
    with letters_of_names(INK):
        figure = Figure(figsize=(11.4, 0.55 * len(rows) + 1.5), dpi=110, layout="constrained")
        for ax, (at, words) in zip(figure.subplots(1, 2, sharey=True, sharex=True), AFTER.items()):
            plain_axes(ax)
            ax.set_title(words, size=10, color=INK, loc="left")
            ax.axvline(0, color=INK, lw=1.2, linestyle=(0, (1, 2)))
            for gain in gains:
                if gain.at == at:
                    _draw_gain(ax, gain, rows.index((gain.labelled, gain.first, gain.second)))
            names = [f"{first}, {labelled} labelled\nagainst {second}" for labelled, first, second in rows]
            ax.set_yticks(range(len(rows)), names)
            ax.tick_params(axis="y", labelcolor=INK, labelsize=8.5)
            ax.set_ylim(-0.6, len(rows) - 0.4)
            ax.set_xlabel("gain in mean Dice", size=9)
        return plot_png(figure)


def _draw_gain(ax: Axes, gain: Gain, row: int) -> None:
    color = label_color(ARMS.index(gain.first) + 1)
    if gain.seed_low is not None and gain.seed_high is not None:
        ax.plot([gain.seed_low, gain.seed_high], [row, row], color=color, lw=1.2)
    if gain.low is not None and gain.high is not None:
        ax.plot([gain.low, gain.high], [row, row], color=color, lw=4, alpha=0.55, solid_capstyle="butt")
    face = "none" if gain.verdict == "no gain shown" else color
    ax.plot([gain.difference], [row], marker="o", ms=7, color=color, markerfacecolor=face, lw=0)
