"""Plots of a calibration: what is left wrong if the most trusted masks are taken, and predicted against true Dice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segfw.base.figures import INK, SOFT_INK, label_color, label_dashes, letters_of_names, plain_axes, plot_png
from segfw.quality.quality_worth import PREDICTED, JudgedMasks
from segfw.quality.risk_coverage import risk_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 4000
BINS = 8  # of the predicted Dice, each with as many masks
LEAST_IN_BIN = 5


def draw_risk_coverage(masks: JudgedMasks, scores: Sequence[str]) -> bytes:
    """PNG of the mean error of the most trusted masks, by their share, for some scores; clean beside all masks."""
    from matplotlib.figure import Figure

    clean = masks.where(masks.is_clean)
    panels = [("clean images", clean)]
    if len(clean.dice) < len(masks.dice):
        panels.append(("clean and spoilt images", masks))
    with letters_of_names(INK):
        figure = Figure(figsize=(4.6 * len(panels) + 0.6, 4.9), dpi=110, layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(panels)))
        for ax, (title, chosen) in zip(axes, panels):
            _draw_curves(ax, title, chosen, scores)
        handles, texts = axes[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
        return plot_png(figure)


def _draw_curves(ax: Axes, title: str, masks: JudgedMasks, scores: Sequence[str]) -> None:
    plain_axes(ax)
    shares = 100 * np.arange(1, len(masks.dice) + 1) / len(masks.dice)
    for number, name in enumerate(scores, start=1):
        values = masks.scores[name]
        # A mask without the score is trusted least.
        known = np.where(np.isfinite(values), values, -np.inf)
        width = 2.2 if name == PREDICTED else 1.4
        risks = risk_curve(known, masks.dice)
        ax.plot(shares, risks, color=label_color(number), ls=label_dashes(number), lw=width, label=name)
    ax.plot(shares, risk_curve(masks.dice, masks.dice), color=SOFT_INK, lw=1, label="by the true Dice, the best order")
    ax.axhline(float(np.mean(1 - masks.dice)), color=SOFT_INK, lw=1, ls=(0, (1, 2)), label="in any order")
    ax.set(
        title=title, xlabel="share of masks that are taken, the most trusted first (%)", xlim=(0, 100), ylim=(0, None)
    )
    ax.set_ylabel("mean of 1 - Dice among them")
    ax.title.set_fontsize(10)


def draw_predicted_against_true(masks: JudgedMasks, alpha: float) -> bytes:
    """PNG of predicted and true Dice of every mask, clean ones filled, with means of both in bins of the prediction."""
    from matplotlib.figure import Figure

    with letters_of_names(INK):
        figure = Figure(figsize=(6.2, 5.6), dpi=110, layout="constrained")
        ax = figure.subplots()
        plain_axes(ax)
        ax.plot([0, 1], [0, 1], color=SOFT_INK, lw=1, label="as predicted")
        spoilt = masks.where(~masks.is_clean)
        clean = masks.where(masks.is_clean)
        if len(spoilt.dice):
            step = max(1, len(spoilt.dice) // MOST_POINTS)
            ax.scatter(
                spoilt.predicted[::step],
                spoilt.dice[::step],
                s=9,
                facecolors="none",
                edgecolors=[label_color(4)],
                linewidths=0.6,
                label="spoilt image",
            )
        step = max(1, len(clean.dice) // MOST_POINTS)
        ax.scatter(
            clean.predicted[::step], clean.dice[::step], s=11, color=label_color(2), linewidths=0, label="clean image"
        )
        order = np.argsort(clean.predicted)
        if np.isfinite(clean.lower).any():
            ax.plot(
                clean.predicted[order],
                np.maximum.accumulate(np.where(np.isfinite(clean.lower), clean.lower, 0)[order]),
                color=label_color(1),
                lw=1.6,
                label=f"bound, below which {100 * alpha:g} % lie",
            )
        bins = [part for part in np.array_split(order, BINS) if len(part) >= LEAST_IN_BIN]
        ax.plot(
            [float(clean.predicted[part].mean()) for part in bins],
            [float(clean.dice[part].mean()) for part in bins],
            color=INK,
            marker="D",
            ms=5,
            lw=1.2,
            label="means of clean images",
        )
        ax.set(xlabel="predicted Dice", ylabel="true Dice", xlim=(0, 1), ylim=(0, 1))
        ax.legend(loc="upper left", frameon=False, fontsize=8.5)
        return plot_png(figure)
