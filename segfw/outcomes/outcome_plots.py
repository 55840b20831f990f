"""Plots of a study: ROC curves, calibration, net benefit, and how often features were used."""

# R repeats, N patients

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segfw.base.figures import (
    INK,
    SOFT_INK,
    label_color,
    label_dashes,
    letters_of_names,
    plain_axes,
    plot_png,
    shortened,
)
from segfw.outcomes.fitting_models import MODELS, ModelName
from segfw.outcomes.model_figures import THRESHOLDS, mean_net_benefit, net_benefit_of_all, roc_curve
from segfw.outcomes.outcome_report import OF_MODELS, FeatureShare
from segfw.outcomes.outcome_study import Scored

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = np.linspace(0, 1, 101)
GROUPS = 5  # of the calibration plot
PER_GROUP = 10  # patients, at least
MOST_BARS = 15


def draw_curves(scored: Scored) -> bytes:
    """ROC, calibration and net benefit side by side."""
    from matplotlib.figure import Figure

    with letters_of_names(INK):
        figure = Figure(figsize=(12.6, 4.5), dpi=110, layout="constrained")
        roc, calibrated, benefit = figure.subplots(1, 3)
        _draw_roc(roc, scored)
        _draw_calibration(calibrated, scored)
        _draw_benefit(benefit, scored)
        handles, texts = benefit.get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False, fontsize=9)
        return plot_png(figure)


def _style(name: ModelName) -> dict[str, Any]:
    number = MODELS.index(name) + 1
    return {"color": label_color(number), "linestyle": label_dashes(number), "lw": 1.8}


def _draw_roc(ax: Axes, scored: Scored) -> None:
    plain_axes(ax)
    ax.set_title("ROC curve", size=10, color=INK, loc="left")
    ax.plot([0, 1], [0, 1], color=SOFT_INK, lw=1, linestyle=(0, (1, 2)))
    for name, rows in scored.probabilities.items():
        ax.plot(GRID, mean_roc(rows, scored.has_event_n), **_style(name))
    ax.set_xlabel("share of others called event", size=9)
    ax.set_ylabel("share of events found", size=9)
    ax.set_aspect("equal")


def mean_roc(probabilities_rn: np.ndarray, has_event_n: np.ndarray) -> np.ndarray:
    """Share of events found at each false share of GRID, the mean of all repeats."""
    curves = []
    for row in probabilities_rn:
        false, true = roc_curve(row, has_event_n)
        # Of several points above one another the highest is reached there.
        places = np.searchsorted(false, GRID, side="right") - 1
        following = np.minimum(places + 1, len(false) - 1)
        width = false[following] - false[places]
        share = np.where(width > 0, (GRID - false[places]) / np.where(width > 0, width, 1), 0)
        curves.append(true[places] + share * (true[following] - true[places]))
    return np.mean(curves, axis=0)


def calibration_groups(
    probabilities_rn: np.ndarray, has_event_n: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of patients of like mean probability: that mean, the share of events, and how many patients."""
    mean_n = probabilities_rn.mean(0)
    groups = max(1, min(GROUPS, len(mean_n) // PER_GROUP))
    parts = np.array_split(np.argsort(mean_n, kind="stable"), groups)
    expected = np.array([mean_n[part].mean() for part in parts])
    seen = np.array([has_event_n[part].mean() for part in parts])
    return expected, seen, np.array([len(part) for part in parts])


def wilson(share: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % interval of shares (Wilson 1927)."""
    z = 1.96
    centre = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    reach = z * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2)) / (1 + z**2 / number)
    return centre - reach, centre + reach


def _draw_calibration(ax: Axes, scored: Scored) -> None:
    plain_axes(ax)
    ax.set_title("Calibration", size=10, color=INK, loc="left")
    ax.plot([0, 1], [0, 1], color=SOFT_INK, lw=1, linestyle=(0, (1, 2)))
    for name, rows in scored.probabilities.items():
        expected, seen, number = calibration_groups(rows, scored.has_event_n)
        low, high = wilson(seen, number)
        style = _style(name)
        ax.vlines(expected, low, high, color=style["color"], lw=1, alpha=0.6)
        ax.plot(expected, seen, marker="o", markersize=4.5, **style)
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("probability told", size=9)
    ax.set_ylabel("share of events seen", size=9)
    ax.set_aspect("equal")


def _draw_benefit(ax: Axes, scored: Scored) -> None:
    plain_axes(ax)
    ax.set_title("Net benefit", size=10, color=INK, loc="left")
    share = float(scored.has_event_n.mean())
    for name, rows in scored.probabilities.items():
        ax.plot(THRESHOLDS, mean_net_benefit(rows, scored.has_event_n), label=OF_MODELS[name], **_style(name))
    ax.plot(THRESHOLDS, net_benefit_of_all(scored.has_event_n), color=SOFT_INK, lw=1.2, label="all are treated")
    ax.axhline(0, color=INK, lw=1.2, linestyle=(0, (1, 2)), label="nobody is")
    ax.set_ylim(-0.15 * share, 1.1 * share)
    ax.set_xlim(0, 1)
    ax.set_xlabel("probability from which one would treat", size=9)
    ax.set_ylabel("net benefit, events per patient", size=9)


def draw_shares(shares: Sequence[FeatureShare]) -> bytes | None:
    """Bars of the most used features; None where none was considered."""
    from matplotlib.figure import Figure

    shown = list(shares[:MOST_BARS])[::-1]
    if not shown:
        return None
    with letters_of_names(INK):
        figure = Figure(figsize=(9.6, 0.32 * len(shown) + 0.9), dpi=110, layout="constrained")
        ax = figure.subplots()
        plain_axes(ax)
        places = range(len(shown))
        ax.barh(places, [each.considered for each in shown], color=SOFT_INK, alpha=0.35, label="handed on")
        ax.barh(places, [each.used for each in shown], color=label_color(2), height=0.45, label="with a coefficient")
        ax.set_yticks(list(places), [shortened(each.feature, 60) for each in shown])
        ax.set_xlim(0, 1)
        ax.set_xlabel("share of training parts", size=9)
        ax.legend(loc="lower right", frameon=False, fontsize=9)
        return plot_png(figure)
