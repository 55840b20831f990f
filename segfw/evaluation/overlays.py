"""Pictures of single cases: the masks over the image, in the slices with most foreground.

Legend: masks hold class indices, (Z, Y, X) in canonical orientation (z to the head, y to the front, x to the
patient's right); matplotlib is imported where it is used, because importing segfw must stay light.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segfw.base.figures import VIEWS, label_color, png_of, shortened, shown_plane
from segfw.evaluation.metrics import Scores, mean_dice
from segfw.images.geometry import Spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND_ENTRIES = 12
LEAST_MARGIN_MM = 20.0  # around the foreground
# In inches
GAP = 0.12  # between views
TITLE = 0.3
LEGEND = 0.62
Dashes = tuple[float, tuple[float, float]]  # where they begin, and how long dashes and gaps are
PREDICTION_DASHES: Dashes = (0, (3, 1.5))


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """A picture of one case: its id, its rank ('worst', 'median', 'best' ...), its mean Dice, and the PNG file."""

    case: str
    rank: str
    dice: float | None
    image_png: bytes


def overlay_cases(scores: Scores) -> dict[str, str]:
    """Ids of the worst cases, the median and the best one by mean Dice over the labels that exist in them, by rank.

    Of an even number of cases, the median is the lower of the two in the middle. Of few cases there are fewer.
    """
    dices = {case: mean_dice(by_label) for case, by_label in scores.cases.items()}
    order = [case for _, case in sorted((dice, case) for case, dice in dices.items() if dice is not None)]
    if len(order) < 3:
        return dict(zip(("best", "worst"), reversed(order)))
    median = (len(order) - 1) // 2
    worst = dict(zip(("worst", "second worst", "third worst"), order[:median]))
    return worst | {"median": order[median], "best": order[-1]}


def draw_overlay(
    image_zyx: np.ndarray | None,
    reference_zyx: np.ndarray,
    prediction_zyx: np.ndarray,
    spacing_mm: Spacing,
    names: Sequence[str],
    *,
    has_directions: bool = True,
) -> bytes:
    """PNG of up to three views through the slices with most foreground, on one scale in mm, cropped around it.

    Masks are class indices in canonical orientation, ``names`` their names from class 0 on. The reference is filled
    with a solid outline, the prediction a dashed outline. The image may have colours, (Z, Y, X, 3); without an image
    the background is black. A volume of one slice gives one view. Letters say where the patient's sides are, unless it
    is a picture that has none (``has_directions``).
    """
    from matplotlib import rc_context

    foreground = (reference_zyx > 0) | (prediction_zyx > 0)
    box = _shown_box(foreground, spacing_mm)
    centre = [_fullest_slice(foreground, axis) for axis in range(3)]
    if image_zyx is None:
        image_zyx = np.broadcast_to(0, foreground.shape)
    arrays = (image_zyx, reference_zyx, prediction_zyx)
    views = [view for view in VIEWS if min(np.delete(foreground.shape, view[1])) > 1] or [VIEWS[0]]
    planes = [[shown_plane(array, axis, centre[axis], box) for array in arrays] for _, axis, _ in views]
    sizes_mm = [np.delete(spacing_mm, axis) * mask.shape for (_, axis, _), (_, mask, _) in zip(views, planes)]
    shown = np.concatenate([image.ravel() for image, _, _ in planes]).astype(np.float32)
    window = np.percentile(np.nan_to_num(shown), (1, 99))
    if image_zyx.ndim > 3:  # a photograph is shown as any viewer does
        window = np.array([0, 255 if image_zyx.dtype == np.uint8 else shown.max()])
    with rc_context({"text.parse_math": False}):  # a label may be called "$x_1$"
        figure, axes = _panels(sizes_mm)
        drawn: set[int] = set()
        for ax, (name, axis, letters), view_planes, size_mm in zip(axes, views, planes, sizes_mm):
            drawn |= _draw_view(ax, view_planes, size_mm, window)
            if has_directions:
                _letter(ax, letters)
                ax.set_title(f"{name}, slice {centre[axis] + 1} of {foreground.shape[axis]}", size=8)
            elif foreground.shape[axis] > 1:
                ax.set_title(f"slice {centre[axis] + 1} of {foreground.shape[axis]}", size=8)
        _legend(figure, sorted(drawn), names)
        return png_of(figure)


def _shown_box(foreground_zyx: np.ndarray, spacing_mm: Spacing) -> tuple[slice, slice, slice]:
    """The foreground and half its size around it (at least 20 mm); the whole volume where there is none."""
    ranges = []
    for axis in range(3):
        present = np.flatnonzero(foreground_zyx.any(tuple({0, 1, 2} - {axis})))
        ranges.append((int(present[0]), int(present[-1]) + 1) if present.size else (0, foreground_zyx.shape[axis]))
    longest_mm = max((stop - start) * mm for (start, stop), mm in zip(ranges, spacing_mm))
    margin_mm = max(LEAST_MARGIN_MM, 0.5 * longest_mm)
    parts = []
    for (start, stop), mm, size in zip(ranges, spacing_mm, foreground_zyx.shape):
        margin = math.ceil(margin_mm / mm)
        parts.append(slice(max(0, start - margin), min(size, stop + margin)))
    z, y, x = parts
    return z, y, x


def _fullest_slice(foreground_zyx: np.ndarray, axis: int) -> int:
    counts = foreground_zyx.sum(tuple({0, 1, 2} - {axis}))
    return int(counts.argmax()) if counts.any() else len(counts) // 2


def _panels(sizes_mm: Sequence[np.ndarray]) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per (height, width), side by side, at the same number of inches per millimetre."""
    from matplotlib.figure import Figure

    height_mm = max(height for height, _ in sizes_mm)
    width_mm = sum(width for _, width in sizes_mm)
    scale = min(4.2 / height_mm, 10.5 / width_mm)
    width = max(scale * width_mm + GAP * (len(sizes_mm) + 1), 5.0)
    height = scale * height_mm + TITLE + LEGEND
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
    axes = []
    left = (width - scale * width_mm - GAP * (len(sizes_mm) - 1)) / 2
    for panel_height, panel_width in sizes_mm:
        bottom = LEGEND + scale * (height_mm - panel_height) / 2
        box = (left / width, bottom / height, scale * panel_width / width, scale * panel_height / height)
        axes.append(figure.add_axes(box))
        left += scale * panel_width + GAP
    return figure, axes


def _draw_view(ax: Axes, planes: Sequence[np.ndarray], size_mm: np.ndarray, window: np.ndarray) -> set[int]:
    """Draws (image, reference, prediction) planes with row 0 on top; returns the classes that appear."""
    image, reference, prediction = planes
    low, high = window
    height, width = size_mm
    extent = (0, width, height, 0)
    if image.ndim == 3:
        image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)  # colours, which matplotlib does not scale
    ax.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), extent=extent, aspect="equal")
    classes = np.setdiff1d(np.union1d(reference, prediction), 0).tolist()
    fill = np.zeros((max(classes, default=0) + 1, 4))
    fill[classes] = [(*label_color(index), 0.18) for index in classes] or 0
    ax.imshow(fill[reference], extent=extent, aspect="equal", interpolation="nearest")
    _draw_outlines(ax, reference, size_mm, "solid", 1.0)
    _draw_outlines(ax, prediction, size_mm, PREDICTION_DASHES, 1.6)
    ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    return set(classes)


def _draw_outlines(ax: Axes, mask: np.ndarray, size_mm: np.ndarray, style: str | Dashes, line_width: float) -> None:
    """The outline of every class of a plane, in its colour."""
    from scipy.ndimage import find_objects

    for index, place in enumerate(find_objects(mask), start=1):
        if place is None:
            continue
        # One voxel of nothing around the label closes its outline.
        y, x = (
            (np.arange(part.start - 1, part.stop + 1) + 0.5) * size / count
            for part, size, count in zip(place, size_mm, mask.shape)
        )
        ax.contour(
            x,
            y,
            np.pad(mask[place] == index, 1),
            levels=[0.5],
            colors=[label_color(index)],
            linestyles=[style],
            linewidths=line_width,
        )


def _letter(ax: Axes, letters: str) -> None:
    """Writes the patient's directions at the left, right, top and bottom of a view."""
    places = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.98, "center", "top"),
        (0.5, 0.02, "center", "bottom"),
    )
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
