"""A static HTML page of an evaluation: scores, plots and pictures in one file that needs no network.

matplotlib and jinja2 are imported where they are used, because importing segfw must stay light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segfw.base.figures import PALETTE, label_color, plain_axes, png_of, shortened, write_page
from segfw.evaluation.metrics import METRICS, LabelScore, Scores
from segfw.evaluation.overlays import Overlay
from segfw.evaluation.summary import INTERVALS, empty_mask_counts
from segfw.evaluation.text import comparison_rows, stratum_name
from segfw.images.units import lengths_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEMPLATE = Path(__file__).with_name("report.html.jinja")
PLOTTED = ("dice", "nsd", "hd95_mm", "hd95_px")
BOX_CASES = 5  # from here on quartiles say something
# Keys of metrics.jsonl that are drawn: panel, line, colour.
CURVES = {
    "train_loss": ("Loss", "training", PALETTE[1]),
    "val_loss": ("Loss", "validation", PALETTE[0]),
    "val_dice": ("Dice", "validation", PALETTE[0]),
}


def write_report(
    path: Path,
    *,
    title: str,
    scores: Scores,
    overlays: Sequence[Overlay],
    curve: Sequence[Mapping[str, object]] | None,
    facts: Mapping[str, str],
    colors: Mapping[str, int] | None = None,
) -> None:
    """Writes the page, atomically. ``curve`` has one mapping per epoch, as in metrics.jsonl; unknown keys are skipped.

    ``colors`` are the classes in whose colours the plots show each structure (default: their order), as the overlays
    do. Every text (titles, names, facts) is escaped; pictures are PNG inside the page.
    """
    write_page(
        path,
        TEMPLATE,
        filters={"score": _shown, "key": _sort_key, "p": _shown_p},
        title=title,
        scores=scores,
        metrics={name: METRICS[name] for name in scores.shown},
        empty_masks=empty_mask_counts(scores),
        interval_method=INTERVALS,
        stratum_name=stratum_name,
        lengths=lengths_in(scores.units),
        comparison=() if scores.comparison is None else comparison_rows(scores.comparison),
        all_metrics=METRICS,
        overlays=overlays,
        plot_png=draw_scores(scores, colors),
        curve_png=draw_curve(curve or ()),
        facts=facts,
    )


def _shown(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _sort_key(value: float | None) -> str:
    """What a column of the page is sorted by: nothing is below everything."""
    return str(-1e9 if value is None else value)


def _shown_p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def draw_scores(scores: Scores, colors: Mapping[str, int] | None = None) -> bytes | None:
    """PNG of every case's Dice, NSD and HD95 by label, as far as they exist; None without any.

    From five cases on a box shows median and quartiles, whiskers the last values within 1.5 times their distance, and
    a diamond the mean. Missed and invented labels, whose distance is a penalty, are crosses at the edge.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [metric for metric in PLOTTED if getattr(scores.foreground_mean, metric) is not None]
    if not shown:
        return None
    colors = colors or {name: index for index, name in enumerate(scores.labels, start=1)}
    rows = len(scores.labels)
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(3.6 * len(shown) + 1.4, 0.9 + 0.42 * rows), dpi=110, layout="constrained")
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for ax, metric in zip(panels, shown):
            ax.set(ylim=(rows - 0.5, -0.5), xlabel=METRICS[metric].title, xlim=_limits(scores, metric))
            plain_axes(ax)
            jitter = np.random.default_rng(0)
            for row, name in enumerate(scores.labels):
                of_cases = [by_label[name] for by_label in scores.cases.values()]
                _draw_row(ax, row, metric, of_cases, colors[name], jitter)
        panels[0].set_yticks(range(rows), [shortened(name) for name in scores.labels])
        return png_of(figure)


def _limits(scores: Scores, metric: str) -> tuple[float, float]:
    """0 to 1, or of a distance to the largest that was measured: a penalty would leave the others no room."""
    if METRICS[metric].best == 1:
        return -0.01, 1.01
    measured: list[float] = []
    for by_label in scores.cases.values():
        measured += [getattr(score, metric) or 0.0 for score in by_label.values() if not score.outcome]
    return 0.0, 1.05 * max([1.0, *measured])


def _draw_row(
    ax: Axes, row: int, metric: str, found: Sequence[LabelScore], color: int, jitter: np.random.Generator
) -> None:
    """One label in one panel: box and points."""
    points = [(getattr(score, metric), score.outcome) for score in found if getattr(score, metric) is not None]
    values = np.array([value for value, _ in points])
    if len(values) >= BOX_CASES:
        q1, median, q3 = np.percentile(values, (25, 50, 75))
        reach = 1.5 * (q3 - q1)
        whiskers = values[(values >= q1 - reach) & (values <= q3 + reach)]
        ax.plot([whiskers.min(), whiskers.max()], [row, row], color="#7a8590", lw=1, zorder=1)
        ax.barh(row, q3 - q1, left=q1, height=0.55, color="#f0f2f4", edgecolor="#7a8590", zorder=2)
        ax.plot([median, median], [row - 0.275, row + 0.275], color="black", lw=1.6, zorder=3)
        ax.plot([values.mean()], [row], marker="D", markersize=4, color="black", zorder=4)
    heights = row + jitter.uniform(-0.18, 0.18, len(values))
    is_penalty = np.array([metric.startswith("hd95") and outcome != "" for _, outcome in points], bool)
    for marker, which, line_width in (("o", ~is_penalty, 0.0), ("x", is_penalty, 1.2)):
        ax.scatter(
            np.minimum(values[which], ax.get_xlim()[1]),
            heights[which],
            marker=marker,
            s=13,
            color=[label_color(color)],
            alpha=0.65,
            linewidths=line_width,
            zorder=5,
            clip_on=False,
        )


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line over epochs."""

    name: str
    color: str
    epochs: Sequence[float]
    values: Sequence[float]


def draw_curve(curve: Sequence[Mapping[str, object]]) -> bytes | None:
    """PNG of loss and Dice against the epoch (see CURVES); None if no epoch has any of them."""
    from matplotlib.figure import Figure

    lines: dict[str, list[_Line]] = {}
    for key, (title, name, color) in CURVES.items():
        epochs = []
        values = []
        for row in curve:
            epoch = row.get("epoch")
            value = row.get(key)
            if isinstance(epoch, int | float) and isinstance(value, int | float):
                epochs.append(epoch)
                values.append(value)
        if epochs:
            lines.setdefault(title, []).append(_Line(name=name, color=color, epochs=epochs, values=values))
    if not lines:
        return None
    figure = Figure(figsize=(4.5 * len(lines), 3), dpi=120, layout="constrained")
    for ax, (title, drawn) in zip(figure.subplots(1, len(lines), squeeze=False)[0], lines.items()):
        for line in drawn:
            marker = "." if len(line.epochs) < 40 else ""
            ax.plot(line.epochs, line.values, label=line.name, color=line.color, lw=1.4, marker=marker)
        ax.set(xlabel="Epoch", title=title)
        ax.legend(frameon=False, fontsize=8)
        plain_axes(ax)
    return png_of(figure)
