"""A static HTML page of an evaluation: scores, plots and pictures in one file that needs no network.

matplotlib and jinja2 are imported where they are used, because importing segfw must stay light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segfw.base.figures import INK, PALETTE, label_color, letters_of_names, plain_axes, plot_png, write_page
from segfw.base.tables import shown_number
from segfw.base.words import count
from segfw.dataset.drawn_names import drawn_name
from segfw.evaluation.caveats import caveats
from segfw.evaluation.group_plot import draw_groups
from segfw.evaluation.group_scores import GROUP_POLICY
from segfw.evaluation.mask_facts import Training
from segfw.evaluation.metrics import METRICS, LabelScore, Scores
from segfw.evaluation.overlays import Overlay
from segfw.evaluation.report_tables import (
    case_table,
    comparison_table,
    group_table,
    group_test_table,
    label_table,
    lesion_table,
    spread_table,
)
from segfw.evaluation.statistics import LEAST_CASES
from segfw.evaluation.summary import INTERVALS, empty_mask_counts, empty_mask_sentences
from segfw.images.units import lengths_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEMPLATE = Path(__file__).with_name("report.html.jinja")
PLOTTED = ("dice", "nsd", "hd95_mm", "hd95_px")
BOX_CASES = 8  # from here on quartiles say something
MOST_POINTS = 6000  # beyond these only what lies outside of the whiskers is drawn
HIGH_ROWS = 24  # labels; more are drawn closer together
# Keys of metrics.jsonl that are drawn: panel, line, colour, dashes.
CURVES = {
    "train_loss": ("Loss", "training", PALETTE[1], "solid"),
    "val_loss": ("Loss", "validation", PALETTE[0], "dashed"),
    "val_dice": ("Dice", "validation", PALETTE[0], "dashed"),
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
    training: Sequence[Training] = (),
) -> None:
    """Writes the page, atomically. ``curve`` has one mapping per epoch, as in metrics.jsonl; unknown keys are skipped.

    ``colors`` are the classes in whose colours the plots show each structure (default: their order), as the overlays
    do. ``training`` is how the model behind the predictions was trained, as far as known. Every text (titles, names,
    facts) is escaped; pictures are PNG inside the page.
    """
    addresses = {overlay.case: f"#picture-{number}" for number, overlay in enumerate(overlays, start=1)}
    write_page(
        path,
        TEMPLATE,
        filters={"score": shown_number},
        title=title,
        scores=scores,
        headline=headline(scores),
        minor=_minor(scores),
        warnings=caveats(scores),
        empty_masks=empty_mask_sentences(scores),
        metrics={name: METRICS[name] for name in scores.shown},
        lengths=lengths_in(scores.units),
        interval_method=INTERVALS,
        by_label=label_table(scores),
        spread=spread_table(scores) if len(scores.cases) >= LEAST_CASES else None,
        lesions=lesion_table(scores),
        comparison=None if scores.comparison is None else comparison_table(scores.comparison),
        groups=group_table(scores.by) if scores.by else None,
        group_tests=group_test_table(scores.by) if scores.by else None,
        groups_png=draw_groups(scores.by),
        group_policy=GROUP_POLICY,
        by_case=case_table(scores, addresses),
        overlays=overlays,
        addresses=addresses,
        plot_png=draw_scores(scores, colors),
        plot_text=plot_text(scores),
        curve_png=draw_curve(curve or ()),
        facts={**facts, **_training_facts(training)},
    )


def headline(scores: Scores) -> tuple[str, str, str]:
    """The mean Dice, what it is a mean of, and how sure it is."""
    labels = list(scores.labels)
    cases = count(len(scores.cases), "case")
    # A mean over labels of means over cases, which for one label, or one case, is a simpler thing.
    if len(labels) == 1:
        what = f"Dice of {labels[0]}: " + ("one case" if len(scores.cases) == 1 else f"mean over {cases}")
    elif len(scores.cases) == 1:
        what = f"Dice: mean over {count(len(labels), 'label')} of one case"
    else:
        what = f"Dice: mean over {count(len(labels), 'label')} of their means over {cases}"
    interval = scores.foreground_interval.get("dice")
    if interval is None:
        sure = f"no confidence interval: it takes {LEAST_CASES} cases"
    else:
        sure = f"95 % confidence interval {interval[0]:.3f} to {interval[1]:.3f}"
    return shown_number(scores.foreground_mean.dice), what, sure


def _minor(scores: Scores) -> list[tuple[str, str]]:
    """The other figures beside the headline."""
    found = []
    tolerance_mm = scores.measures.tolerance_mm if scores.measures else None
    for name in scores.shown:
        metric = METRICS[name]
        value = shown_number(getattr(scores.foreground_mean, name), metric.digits)
        if name == "nsd" and tolerance_mm is not None:
            found.append((value, f"NSD at {tolerance_mm:g} {lengths_in(scores.units)}"))
        elif name in PLOTTED[2:]:
            found.append((f"{value} {metric.unit}", metric.title))
    for kind, number in empty_mask_counts(scores).items():
        if number:
            place = "in neither mask" if kind == "both empty" else kind
            found.append((f"{number:,}", f"{'label' if number == 1 else 'labels'} {place}"))
    return found


def _training_facts(training: Sequence[Training]) -> dict[str, str]:
    texts = [fold.text for fold in training if fold.text]
    return {"Trained for": "; ".join(texts)} if texts else {}


def plot_text(scores: Scores) -> str:
    """What dots, boxes and crosses of the plot are, as far as there are such."""
    boxes = any(label.cases >= BOX_CASES for label in scores.labels.values())
    is_crowded = _is_crowded(scores)
    sentences = []
    if boxes:
        sentences.append(
            "Boxes show median and quartiles, whiskers the last values within 1.5 times their distance, diamonds the "
            "mean (where it is on the scale)."
        )
        if any(0 < label.cases < BOX_CASES for label in scores.labels.values()):
            sentences.append(f"Labels of fewer than {BOX_CASES} cases have dots only.")
    else:
        sentences.append(f"With fewer than {BOX_CASES} cases there are no boxes, only the cases themselves.")
    sentences.append("A dot is a case outside of the whiskers." if is_crowded else "A dot is a case.")
    if (
        scores.measures is not None
        and scores.measures.surface
        and any(label.missed or label.invented for label in scores.labels.values())
    ):
        sentences.append(
            "Crosses at the right edge are missed or invented labels, whose HD95 is set to the diagonal of the image; "
            "it counts in quartiles and mean."
        )
    return " ".join(sentences)


def _is_crowded(scores: Scores) -> bool:
    return len(scores.cases) >= BOX_CASES and len(scores.cases) * len(scores.labels) > MOST_POINTS


def draw_scores(scores: Scores, colors: Mapping[str, int] | None = None) -> bytes | None:
    """PNG of every case's Dice, NSD and HD95 by label, as far as they exist; None without any.

    From BOX_CASES cases on a box shows median and quartiles, whiskers the last values within 1.5 times their distance,
    and a diamond the mean. Missed and invented labels, whose distance is a penalty, are crosses at the edge. Where
    there are very many cases only those outside of the whiskers are dots (see ``plot_text``).
    """
    from matplotlib.figure import Figure

    shown = [metric for metric in PLOTTED if getattr(scores.foreground_mean, metric) is not None]
    if not shown:
        return None
    colors = colors or {name: index for index, name in enumerate(scores.labels, start=1)}
    rows = len(scores.labels)
    is_high = rows <= HIGH_ROWS
    height = 0.9 + (0.42 if is_high else 0.17) * rows
    with letters_of_names(INK):
        figure = Figure(figsize=(3.6 * len(shown) + 1.4, height), dpi=110, layout="constrained")
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for ax, metric in zip(panels, shown):
            ax.set(ylim=(rows - 0.5, -0.5), xlabel=METRICS[metric].with_unit, xlim=_limits(scores, metric))
            plain_axes(ax)
            rows_of = [
                _points([by_label[name] for by_label in scores.cases.values()], metric) for name in scores.labels
            ]
            _draw_boxes(ax, [values for values, _ in rows_of])
            painted = [label_color(colors[name]) for name in scores.labels]
            _draw_points(ax, rows_of, painted, only_outside=_is_crowded(scores))
        panels[0].set_yticks(range(rows), [drawn_name(name, colors[name]) for name in scores.labels])
        panels[0].tick_params(axis="y", labelsize=9 if is_high else 7, labelcolor=INK)
        return plot_png(figure)


def _limits(scores: Scores, metric: str) -> tuple[float, float]:
    """0 to 1, or of a distance to the largest that was measured: a penalty would leave the others no room."""
    if METRICS[metric].best == 1:
        return -0.01, 1.01
    measured: list[float] = []
    for by_label in scores.cases.values():
        measured += [getattr(score, metric) or 0.0 for score in by_label.values() if not score.outcome]
    return 0.0, 1.05 * max([1.0, *measured])


def _points(found: Sequence[LabelScore], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The values of a metric that exist, and which of them are penalties instead of measured distances."""
    points = [(getattr(score, metric), score.outcome) for score in found if getattr(score, metric) is not None]
    is_penalty = [metric.startswith("hd95") and outcome != "" for _, outcome in points]
    return np.array([value for value, _ in points], float), np.array(is_penalty, bool)


def _whiskers(values: np.ndarray) -> tuple[float, float]:
    """The last values within 1.5 times the distance of the quartiles from these."""
    q1, q3 = np.percentile(values, (25, 75))
    reach = 1.5 * (q3 - q1)
    inside = values[(values >= q1 - reach) & (values <= q3 + reach)]
    return float(inside.min()), float(inside.max())


def _draw_boxes(ax: Axes, rows: Sequence[np.ndarray]) -> None:
    """A box, whiskers, median and mean for every label of enough cases, all labels of a kind at once: it is faster."""
    boxed = [row for row, values in enumerate(rows) if len(values) >= BOX_CASES]
    if not boxed:
        return
    height = np.array(boxed)
    low, high = np.transpose([_whiskers(rows[row]) for row in boxed])
    q1, median, q3 = np.transpose([np.percentile(rows[row], (25, 50, 75)) for row in boxed])
    ax.hlines(height, low, high, color="#7a8590", lw=1, zorder=1)
    ax.barh(height, q3 - q1, left=q1, height=0.55, color="#7a859030", edgecolor="#7a8590", zorder=2)
    ax.vlines(median, height - 0.275, height + 0.275, color=INK, lw=1.6, zorder=6)
    means = [rows[row].mean() for row in boxed]
    ax.plot(means, height, ls="", marker="D", markersize=4, color=INK, zorder=7)


def _draw_points(
    ax: Axes,
    rows: Sequence[tuple[np.ndarray, np.ndarray]],
    colors: Sequence[tuple[float, float, float]],
    *,
    only_outside: bool,
) -> None:
    """A dot for every case, a cross for a penalty; of crowded labels only what lies outside of the whiskers."""
    jitter = np.random.default_rng(0)
    edge = ax.get_xlim()[1]
    for is_cross in (False, True):
        x: list[float] = []
        y: list[float] = []
        painted: list[tuple[float, float, float]] = []
        for row, (values, is_penalty) in enumerate(rows):
            which = is_penalty == is_cross
            if only_outside and len(values) >= BOX_CASES:
                low, high = _whiskers(values)
                which &= (values < low) | (values > high)
            x += np.minimum(values[which], edge).tolist()
            y += (row + jitter.uniform(-0.18, 0.18, int(which.sum()))).tolist()
            painted += [colors[row]] * int(which.sum())
        # Pale colours are seen by their edge.
        style: dict[str, Any] = (
            {"marker": "x", "linewidths": 1.2} if is_cross else {"edgecolors": INK, "linewidths": 0.4}
        )
        ax.scatter(x, y, s=15, c=painted, alpha=0.75, zorder=5, clip_on=False, **style)


@dataclass(frozen=True, kw_only=True)
class CurveLine:
    """A line over epochs, of which the first is 1."""

    name: str
    color: str
    dashes: str
    epochs: Sequence[float]
    values: Sequence[float]


def curve_lines(curve: Sequence[Mapping[str, object]]) -> dict[str, list[CurveLine]]:
    """The lines of each drawing (see CURVES), by its title. Epochs are numbered from 0 in ``curve``."""
    lines: dict[str, list[CurveLine]] = {}
    for key, (title, name, color, dashes) in CURVES.items():
        epochs = []
        values = []
        for row in curve:
            epoch = row.get("epoch")
            value = row.get(key)
            if isinstance(epoch, int | float) and isinstance(value, int | float):
                epochs.append(epoch + 1)
                values.append(value)
        if epochs:
            lines.setdefault(title, []).append(
                CurveLine(name=name, color=color, dashes=dashes, epochs=epochs, values=values)
            )
    return lines


def draw_curve(curve: Sequence[Mapping[str, object]]) -> bytes | None:
    """PNG of loss and Dice against the epoch; None if no epoch has any of them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    lines = curve_lines(curve)
    if not lines:
        return None
    figure = Figure(figsize=(4.5 * len(lines), 3), dpi=120, layout="constrained")
    for ax, (title, drawn) in zip(figure.subplots(1, len(lines), squeeze=False)[0], lines.items()):
        for line in drawn:
            marker = "." if len(line.epochs) < 40 else ""
            style = {"color": line.color, "linestyle": line.dashes, "lw": 1.4, "marker": marker}
            ax.plot(line.epochs, line.values, label=line.name, **style)
        ax.set(xlabel="Epoch", title=title)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        ax.legend(frameon=False, fontsize=8)
        plain_axes(ax)
    return plot_png(figure)
