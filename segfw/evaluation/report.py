"""A static HTML page of an evaluation: scores, plots and pictures in one file that needs no network.

Legend: masks hold class indices, (Z, Y, X) in canonical orientation (z to the head, y to the front, x to the
patient's right); matplotlib and jinja2 are imported where they are used, because importing segfw must stay light.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segfw.data.geometry import Spacing
from segfw.evaluation.metrics import Scores, mean_dice
from segfw.pictures import PALETTE, VIEWS, label_color, plain_axes, png_of, shortened, shown_plane, write_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("report.html.jinja")
LEGEND_ENTRIES = 12
PREDICTION_DASHES = (0, (3, 1.5))
# Keys of metrics.jsonl that are drawn: panel, line, colour.
CURVES = {
    "train_loss": ("Loss", "training", PALETTE[1]),
    "val_loss": ("Loss", "validation", PALETTE[0]),
    "val_dice": ("Dice", "validation", PALETTE[0]),
}


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """A picture of one case: its id, its rank ('best', 'median', 'worst'), its mean Dice, and the PNG file."""

    case: str
    rank: str
    dice: float
    image_png: bytes


def overlay_cases(scores: Scores) -> dict[str, str]:
    """Ids of the best, median and worst case by mean Dice over the labels that exist in it; fewer if there are fewer.

    Of an even number of cases, the median is the lower of the two in the middle.
    """
    dices = {case: mean_dice(by_label) for case, by_label in scores.cases.items()}
    order = sorted((dice, case) for case, dice in dices.items() if dice is not None)
    places = {"best": -1, "median": (len(order) - 1) // 2, "worst": 0}
    ranks = list(places) if len(order) > 2 else ["best", "worst"][: len(order)]
    return {rank: order[places[rank]][1] for rank in ranks}


def write_report(
    path: Path,
    *,
    title: str,
    scores: Scores,
    overlays: Sequence[Overlay],
    curve: Sequence[Mapping[str, float]] | None,
    facts: Mapping[str, str],
) -> None:
    """Writes the page, atomically. ``curve`` has one mapping per epoch, as in metrics.jsonl; unknown keys are skipped.

    Every text (titles, names, facts) is escaped; pictures are PNG inside the page.
    """
    filters = {
        "score": lambda value: "–" if value is None else f"{value:.3f}",
        "key": lambda value: -1 if value is None else value,  # nothing sorts below zero
    }
    write_page(
        path,
        TEMPLATE,
        filters=filters,
        title=title,
        scores=scores,
        metrics={"dice": "Dice", "jaccard": "Jaccard", "tpr": "TPR", "precision": "Precision"},
        overlays=overlays,
        dice_png=draw_dice(scores),
        curve_png=draw_curve(curve or ()),
        facts=facts,
    )


def draw_overlay(
    image_zyx: np.ndarray | None,
    reference_zyx: np.ndarray,
    prediction_zyx: np.ndarray,
    spacing_mm: Spacing,
    names: Sequence[str],
) -> bytes:
    """PNG of up to three views through the slices with most foreground, on one scale in mm, cropped around it.

    Masks are class indices in canonical orientation, ``names`` their names from class 0 on. The reference is filled
    with a solid outline, the prediction a dashed outline. Without an image the background is black. A volume of one
    slice gives one view.
    """
    from matplotlib import rc_context

    foreground = (reference_zyx > 0) | (prediction_zyx > 0)
    box = _shown_box(foreground, spacing_mm)
    centre = [_fullest_slice(foreground, axis) for axis in range(3)]
    arrays = (np.broadcast_to(0, foreground.shape) if image_zyx is None else image_zyx, reference_zyx, prediction_zyx)
    views = [view for view in VIEWS if min(np.delete(foreground.shape, view[1])) > 1] or [VIEWS[0]]
    planes = [[shown_plane(array, axis, centre[axis], box) for array in arrays] for _, axis, _ in views]
    sizes_mm = [np.delete(spacing_mm, axis) * image.shape for (_, axis, _), (image, _, _) in zip(views, planes)]
    shown = np.concatenate([image.ravel() for image, _, _ in planes]).astype(np.float32)
    window = np.percentile(np.nan_to_num(shown), (1, 99))
    with rc_context({"text.parse_math": False}):  # a label may be called "$x_1$"
        figure, axes = _panels(sizes_mm)
        drawn: set[int] = set()
        for ax, (name, axis, letters), view_planes, size_mm in zip(axes, views, planes, sizes_mm):
            drawn |= _draw_view(ax, view_planes, size_mm, window)
            _letter(ax, letters)
            ax.set_title(f"{name}, slice {centre[axis] + 1} of {foreground.shape[axis]}", size=8)
        _legend(figure, sorted(drawn), names)
        return png_of(figure)


def _shown_box(foreground_zyx: np.ndarray, spacing_mm: Spacing) -> tuple[slice, slice, slice]:
    """The foreground and half its size around it (at least 20 mm); the whole volume where there is none."""
    ranges = []
    for axis in range(3):
        present = np.flatnonzero(foreground_zyx.any(tuple({0, 1, 2} - {axis})))
        ranges.append((present[0], present[-1] + 1) if present.size else (0, foreground_zyx.shape[axis]))
    margin_mm = max(20.0, 0.5 * max((stop - start) * mm for (start, stop), mm in zip(ranges, spacing_mm)))
    margins = [math.ceil(margin_mm / mm) for mm in spacing_mm]
    return tuple(
        slice(int(max(0, start - margin)), int(min(size, stop + margin)))
        for (start, stop), margin, size in zip(ranges, margins, foreground_zyx.shape)
    )


def _fullest_slice(foreground_zyx: np.ndarray, axis: int) -> int:
    counts = foreground_zyx.sum(tuple({0, 1, 2} - {axis}))
    return int(counts.argmax()) if counts.any() else len(counts) // 2


def _panels(sizes_mm: Sequence[np.ndarray]) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per (height, width), side by side, at the same number of inches per millimetre."""
    from matplotlib.figure import Figure

    gap, title, legend = 0.12, 0.3, 0.62  # inches
    height_mm, width_mm = max(height for height, _ in sizes_mm), sum(width for _, width in sizes_mm)
    scale = min(4.2 / height_mm, 10.5 / width_mm)
    width = max(scale * width_mm + gap * (len(sizes_mm) + 1), 5.0)
    height = scale * height_mm + title + legend
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
    axes, left = [], (width - scale * width_mm - gap * (len(sizes_mm) - 1)) / 2
    for panel_height, panel_width in sizes_mm:
        bottom = legend + scale * (height_mm - panel_height) / 2
        box = (left / width, bottom / height, scale * panel_width / width, scale * panel_height / height)
        axes.append(figure.add_axes(box))
        left += scale * panel_width + gap
    return figure, axes


def _draw_view(ax: Axes, planes: Sequence[np.ndarray], size_mm: np.ndarray, window: np.ndarray) -> set[int]:
    """Draws (image, reference, prediction) planes with row 0 on top; returns the classes that appear."""
    from scipy.ndimage import find_objects

    image, reference, prediction = planes
    (low, high), (height, width) = window, size_mm
    extent = (0, width, height, 0)
    ax.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), extent=extent, aspect="equal")
    classes = np.setdiff1d(np.union1d(reference, prediction), 0).tolist()
    fill = np.zeros((max(classes, default=0) + 1, 4))
    fill[classes] = [(*label_color(index), 0.18) for index in classes] or 0
    ax.imshow(fill[reference], extent=extent, aspect="equal", interpolation="nearest")
    for mask, style, line_width in ((reference, "solid", 1.0), (prediction, PREDICTION_DASHES, 1.6)):
        for index, place in enumerate(find_objects(mask), start=1):
            if place is not None:  # one voxel of nothing around the label closes its outline
                y, x = (
                    (np.arange(part.start - 1, part.stop + 1) + 0.5) * size / count
                    for part, size, count in zip(place, size_mm, mask.shape)
                )
                line = {"colors": [label_color(index)], "linestyles": [style], "linewidths": line_width}
                ax.contour(x, y, np.pad(mask[place] == index, 1), levels=[0.5], **line)
    ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    return set(classes)


def _letter(ax: Axes, letters: str) -> None:
    """Writes the patient's directions at the left, right, top and bottom of a view."""
    places = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"))
    places += ((0.5, 0.98, "center", "top"), (0.5, 0.02, "center", "bottom"))
    for letter, (x, y, horizontal, vertical) in zip(letters, places):
        text = ax.text(x, y, letter, ha=horizontal, va=vertical, transform=ax.transAxes, size=9, color="white")
        text.set_bbox({"facecolor": "black", "alpha": 0.45, "edgecolor": "none", "pad": 1.2})


def _legend(figure: Figure, classes: Sequence[int], names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = [
        (Patch(facecolor="#00000020", edgecolor="#333333", lw=1.0), "reference"),
        (Line2D([], [], color="#333333", lw=1.6, linestyle=PREDICTION_DASHES), "prediction"),
    ]
    # A leading space, because matplotlib before 3.10 leaves out entries that begin with an underscore.
    entries += [(Patch(color=label_color(index)), f" {shortened(names[index])}") for index in classes[:LEGEND_ENTRIES]]
    if len(classes) > LEGEND_ENTRIES:
        entries.append((Patch(alpha=0), f"and {len(classes) - LEGEND_ENTRIES} more"))
    handles, texts = zip(*entries)
    columns = min(len(entries), max(2, int(figure.get_figwidth() / 1.5)))
    figure.legend(handles, texts, loc="lower center", ncols=columns, fontsize=8, frameon=False, handlelength=2.2)


def draw_dice(scores: Scores) -> bytes | None:
    """PNG of every case's Dice by label, from five cases on with their quartiles; None if there is no Dice at all."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    values = {
        name: [by_label[name].dice for by_label in scores.cases.values() if by_label[name].dice is not None]
        for name in scores.labels
    }
    if not any(values.values()):
        return None
    jitter = np.random.default_rng(0)
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(9, 0.9 + 0.42 * len(values)), dpi=120, layout="constrained")
        ax = figure.add_subplot()
        for row, dices in enumerate(values.values()):
            if len(dices) >= 5:
                low, middle, high = np.percentile(dices, (25, 50, 75))
                ax.barh(row, high - low, left=low, height=0.55, color="#f0f2f4", edgecolor="#7a8590")
                ax.plot([middle, middle], [row - 0.275, row + 0.275], color="black", lw=1.6)
            heights = row + jitter.uniform(-0.18, 0.18, len(dices))
            ax.scatter(dices, heights, s=13, color=[label_color(row + 1)], alpha=0.65, linewidths=0, zorder=3)
        ax.set_yticks(range(len(values)), [shortened(name) for name in values])
        ax.set(xlim=(-0.01, 1.01), ylim=(len(values) - 0.5, -0.5), xlabel="Dice")
        plain_axes(ax)
        return png_of(figure)


def draw_curve(curve: Sequence[Mapping[str, float]]) -> bytes | None:
    """PNG of loss and Dice against the epoch (see CURVES); None if no epoch has any of them."""
    from matplotlib.figure import Figure

    lines: dict[str, list] = {}
    for key, (title, name, color) in CURVES.items():
        points = [(row["epoch"], row[key]) for row in curve if "epoch" in row and row.get(key) is not None]
        if points:
            lines.setdefault(title, []).append((name, color, *zip(*points)))
    if not lines:
        return None
    figure = Figure(figsize=(4.5 * len(lines), 3), dpi=120, layout="constrained")
    for ax, (title, drawn) in zip(figure.subplots(1, len(lines), squeeze=False)[0], lines.items()):
        for name, color, epochs, values in drawn:
            ax.plot(epochs, values, label=name, color=color, lw=1.4, marker="." if len(epochs) < 40 else "")
        ax.set(xlabel="Epoch", title=title)
        ax.legend(frameon=False, fontsize=8)
        plain_axes(ax)
    return png_of(figure)
