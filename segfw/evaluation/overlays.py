"""Pictures of single cases: the masks over the image, in the slices where the expert drew most.

Legend: masks hold class indices, (Z, Y, X) in canonical orientation (z to the head, y to the front, x to the
patient's right); matplotlib is imported where it is used, because importing segfw must stay light.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from segfw.base.figures import label_color, letters_of_names, palette_png, png_of, scale_bar, shown_plane, views_of
from segfw.dataset.drawn_names import drawn_name
from segfw.evaluation.metrics import Scores, mean_dice
from segfw.images.geometry import Spacing
from segfw.images.units import SCAN, Units

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND_ENTRIES = 12
LEAST_MARGIN_MM = 20.0  # around the foreground
# In inches
WIDTH = 10.5
HEIGHT = 4.2  # of the highest view, at most
GUTTER = 0.3  # at each side of a view, where its letters stand: never on what is looked at
ABOVE = 0.56  # title and letter
BELOW = 0.5  # letter and scale bar
LEGEND_ROW = 0.22
LEGEND_COLUMN = 2.1
PREDICTION_DASHES = (0.0, (3.0, 1.5))
# Pictures are dark in light pages too, as at a reading station.
GROUND = "#12161b"
TEXT = "#e6eaee"
NO_IMAGE = "#3d444d"
BAR_SHARE = 0.3  # of a view's width that the scale bar may take
# Values below this are Hounsfield units: nothing but CT goes there.
LEAST_OF_CT = -500.0
# What is looked at in CT by the median in the structures: up to which, centre and width of its window in HU.
CT_WINDOWS = ((-300.0, -600, 1500), (200.0, 40, 400), (math.inf, 400, 1800))


class Window(NamedTuple):
    """Which values are black and white, and the same in words."""

    low: float
    high: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """A picture of one case: its id, its rank ('worst', 'median', 'best' ...), its mean Dice, and the PNG file.

    ``has_image`` is False for masks without their image, ``has_directions`` for a picture without letters.
    """

    case: str
    rank: str
    dice: float | None
    image_png: bytes
    has_image: bool = True
    has_directions: bool = True


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
    prediction_zyx: np.ndarray | None,
    spacing_mm: Spacing,
    names: Sequence[str],
    *,
    has_directions: bool = True,
    units: Units = SCAN,
    called: tuple[str, str] = ("reference", "prediction"),
) -> bytes:
    """PNG of up to three views through the slices with most of the reference, on one scale, cropped around the masks.

    Masks are class indices in canonical orientation, ``names`` their names from class 0 on. Where the reference is
    empty the prediction says which slices are shown. The reference is filled with a solid outline, the prediction a
    dashed outline; without a prediction one mask is shown by itself. The image may have colours, (Z, Y, X, 3); without
    an image the ground is grey. A volume of one slice gives one view. Letters beside the views say where the patient's
    sides are, unless it is a picture that has none (``has_directions``). ``units`` are those of ``spacing_mm``, in
    which the scale bar is written. ``called`` is what the two masks are in the legend.
    """
    centre = shown_slices(reference_zyx, np.zeros_like(reference_zyx) if prediction_zyx is None else prediction_zyx)
    masks = MasksOverImage(
        image_zyx=image_zyx,
        reference_zyx=reference_zyx,
        prediction_zyx=prediction_zyx,
        spacing_mm=spacing_mm,
        names=names,
        has_directions=has_directions,
        units=units,
        called=called,
    )
    return draw_slices(masks, centre)


@dataclass(frozen=True, kw_only=True)
class MasksOverImage:
    """What a picture is drawn of: see ``draw_overlay``."""

    image_zyx: np.ndarray | None
    reference_zyx: np.ndarray
    prediction_zyx: np.ndarray | None = None
    spacing_mm: Spacing
    names: Sequence[str]
    has_directions: bool = True
    units: Units = SCAN
    called: tuple[str, str] = ("reference", "prediction")


def draw_slices(drawn: MasksOverImage, centre: tuple[int, int, int]) -> bytes:
    """PNG of up to three views through the voxel ``centre``, as ``draw_overlay`` draws them."""
    from PIL import Image

    image_zyx = drawn.image_zyx
    reference_zyx = drawn.reference_zyx
    is_pair = drawn.prediction_zyx is not None
    prediction_zyx = np.zeros_like(reference_zyx) if drawn.prediction_zyx is None else drawn.prediction_zyx
    foreground = (reference_zyx > 0) | (prediction_zyx > 0)
    box = _box_with(_shown_box(foreground, drawn.spacing_mm), centre)
    views = views_of(foreground.shape)
    images = [None if image_zyx is None else shown_plane(image_zyx, axis, centre[axis], box) for _, axis, _ in views]
    masks = [
        (shown_plane(reference_zyx, axis, centre[axis], box), shown_plane(prediction_zyx, axis, centre[axis], box))
        for _, axis, _ in views
    ]
    sizes_mm = [
        np.delete(drawn.spacing_mm, axis) * reference.shape for (_, axis, _), (reference, _) in zip(views, masks)
    ]
    window = None if image_zyx is None else window_of(image_zyx, foreground, images)
    numbers = _numbered_classes(masks)
    with letters_of_names():
        figure, axes = _panels(sizes_mm, len(_legend_classes(numbers)))
        for ax, (name, axis, letters), image, planes, size_mm in zip(axes, views, images, masks, sizes_mm):
            _draw_view(ax, image, planes, size_mm, window)
            _draw_numbers(ax, planes, size_mm, numbers)
            place = f"slice {centre[axis] + 1} of {foreground.shape[axis]}"
            if drawn.has_directions:
                _letter(ax, letters)
                ax.set_title(f"{name}, {place}", size=10, color=TEXT, pad=18)
            elif foreground.shape[axis] > 1:
                ax.set_title(place, size=10, color=TEXT)
        _scale_bar(axes[0], sizes_mm[0], drawn.units)
        _legend(figure, numbers, drawn.names, _ground_text(window), called=drawn.called if is_pair else None)
        with Image.open(io.BytesIO(png_of(figure))) as picture:
            return palette_png(picture.convert("RGB"))


def shown_slices(reference_zyx: np.ndarray, prediction_zyx: np.ndarray) -> tuple[int, int, int]:
    """The slice along each axis with most of the reference; without any, of the prediction; else the middle one."""
    shown = next((mask > 0 for mask in (reference_zyx, prediction_zyx) if mask.any()), None)
    if shown is None:
        z, y, x = (size // 2 for size in reference_zyx.shape)
    else:
        z, y, x = (int(shown.sum(tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3))
    return z, y, x


def window_of(image_zyx: np.ndarray, foreground: np.ndarray, planes: Sequence[np.ndarray | None]) -> Window:
    """What is shown as black and as white: of CT a window for what is marked, else percentiles of what is shown.

    A photograph is shown as any viewer does, from 0 to its largest value.
    """
    shown = np.concatenate([plane.ravel() for plane in planes if plane is not None]).astype(np.float32)
    shown = np.nan_to_num(shown)
    if image_zyx.ndim > 3:
        return Window(0, 255 if image_zyx.dtype == np.uint8 else max(float(shown.max()), 1e-6), "")
    if float(np.nan_to_num(image_zyx).min()) < LEAST_OF_CT:
        inside = image_zyx[foreground] if foreground.any() else shown
        median = float(np.nan_to_num(np.median(inside)))
        centre, width = next((centre, width) for most, centre, width in CT_WINDOWS if median < most)
        text = f"CT window: centre {centre} HU, width {width} HU"
        return Window(centre - width / 2, centre + width / 2, text)
    low, high = np.percentile(shown, (1, 99)).tolist()
    text = f"grey from {low:.4g} to {high:.4g} (percentiles 1 and 99 of what is shown)"
    return Window(low, max(high, low + 1e-6), text)


def _ground_text(window: Window | None) -> str:
    return "no image: masks on a grey ground" if window is None else window.text


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


def _box_with(box: tuple[slice, slice, slice], centre: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    """The box, large enough to hold the voxel that is shown."""
    z, y, x = (slice(min(part.start, at), max(part.stop, at + 1)) for part, at in zip(box, centre))
    return z, y, x


def _numbered_classes(masks: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[int, int]:
    """{class: pixels} of what is drawn in any view, in the order of classes."""
    pixels: dict[int, int] = {}
    for planes in masks:
        for plane in planes:
            for index, count in zip(*np.unique(plane[plane > 0], return_counts=True)):
                pixels[int(index)] = pixels.get(int(index), 0) + int(count)
    return dict(sorted(pixels.items()))


def _panels(sizes_mm: Sequence[np.ndarray], labels: int) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per (height, width), side by side, at the same number of inches per millimetre.

    Below there is room for a legend of so many ``labels``.
    """
    from matplotlib.figure import Figure

    height_mm = max(height for height, _ in sizes_mm)
    width_mm = sum(width for _, width in sizes_mm)
    gutters = 2 * GUTTER * len(sizes_mm)
    scale = min(HEIGHT / height_mm, (WIDTH - gutters) / width_mm)
    width = max(scale * width_mm + gutters, 6.0)
    legend = _legend_height(width, labels)
    height = scale * height_mm + ABOVE + BELOW + legend
    figure = Figure(figsize=(width, height), dpi=120, facecolor=GROUND)
    axes = []
    left = (width - scale * width_mm - gutters) / 2 + GUTTER
    for panel_height, panel_width in sizes_mm:
        bottom = legend + BELOW + scale * (height_mm - panel_height) / 2
        box = (left / width, bottom / height, scale * panel_width / width, scale * panel_height / height)
        axes.append(figure.add_axes(box))
        left += scale * panel_width + 2 * GUTTER
    return figure, axes


def _draw_view(
    ax: Axes,
    image: np.ndarray | None,
    planes: tuple[np.ndarray, np.ndarray],
    size_mm: np.ndarray,
    window: Window | None,
) -> None:
    """Draws an image's plane and those of reference and prediction, with row 0 on top."""
    reference, prediction = planes
    height, width = size_mm
    extent = (0, width, height, 0)
    ax.set_facecolor(NO_IMAGE)
    ax.spines[:].set_color("#5b6570")
    if image is not None and window is not None:
        if image.ndim == 3:  # colours, which matplotlib does not scale
            image = np.clip((image - window.low) / (window.high - window.low), 0, 1)
        ax.imshow(image, cmap="gray", vmin=window.low, vmax=window.high, extent=extent, aspect="equal")
    classes = np.setdiff1d(reference, 0).tolist()
    fill = np.zeros((max(classes, default=0) + 1, 4))
    fill[classes] = [(*label_color(index), 0.18) for index in classes] or 0
    ax.imshow(fill[reference], extent=extent, aspect="equal", interpolation="nearest")
    _draw_outlines(ax, reference, size_mm, "solid", 1.1)
    _draw_outlines(ax, prediction, size_mm, PREDICTION_DASHES, 1.7)
    ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])


def _draw_outlines(
    ax: Axes, mask: np.ndarray, size_mm: np.ndarray, style: str | tuple[float, tuple[float, ...]], line_width: float
) -> None:
    """The outline of every class of a plane, in its colour on a thin dark edge that sets it off from bright tissue."""
    from contourpy import contour_generator
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke
    from scipy.ndimage import find_objects

    lines: list[np.ndarray] = []
    colors: list[tuple[float, float, float]] = []
    for index, place in enumerate(find_objects(mask), start=1):
        if place is None:
            continue
        # One voxel of nothing around the label closes its outline.
        y, x = (
            (np.arange(part.start - 1, part.stop + 1) + 0.5) * size / count
            for part, size, count in zip(place, size_mm, mask.shape)
        )
        inside = np.pad(mask[place] == index, 1).astype(float)
        found = cast("list[np.ndarray]", contour_generator(x, y, inside, line_type="Separate").lines(0.5))
        lines += found
        colors += [label_color(index)] * len(found)
    drawn = LineCollection(lines, colors=colors, linestyles=[style], linewidths=line_width)
    drawn.set_path_effects([withStroke(linewidth=line_width + 1.2, foreground=(0, 0, 0, 0.55))])
    ax.add_collection(drawn, autolim=False)


def _draw_numbers(
    ax: Axes, planes: tuple[np.ndarray, np.ndarray], size_mm: np.ndarray, numbers: Mapping[int, int]
) -> None:
    """Writes the number of each class of the legend above its outline, where there are several: colours are not all."""
    from matplotlib.patheffects import withStroke

    if len(numbers) < 2:
        return
    for index in _legend_classes(numbers):
        plane = next((plane for plane in planes if (plane == index).any()), None)
        if plane is None:
            continue
        top, column = upper_edge(plane == index)
        y, x = np.array((top, column)) * size_mm / plane.shape
        is_at_edge = top < 0.05 * plane.shape[0]  # where the number would stand on a letter
        text = ax.annotate(
            str(index),
            (x, y),
            xytext=(0, -2.5 if is_at_edge else 2.5),
            textcoords="offset points",
            ha="center",
            va="top" if is_at_edge else "bottom",
            size=9,
            weight="bold",
            color=label_color(index),
        )
        text.set_path_effects([withStroke(linewidth=1.6, foreground=(0, 0, 0, 0.7))])


def upper_edge(mask: np.ndarray) -> tuple[int, float]:
    """Where the topmost row of a mask (Y, X) lies, and the middle of the longest run of pixels in it, in pixels.

    Of two organs side by side, such as kidneys, the middle of both would be neither.
    """
    top = int(np.flatnonzero(mask.any(1))[0])
    columns = np.flatnonzero(mask[top])
    run = max(np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1), key=len)
    return top, float(run.mean()) + 0.5


def _letter(ax: Axes, letters: str) -> None:
    """Writes the patient's directions beside a view: at its left, right, top and bottom."""
    places = (
        ((0, 0.5), (-6, 0), "right", "center"),
        ((1, 0.5), (6, 0), "left", "center"),
        ((0.5, 1), (0, 4), "center", "bottom"),
        ((0.5, 0), (0, -4), "center", "top"),
    )
    for letter, (place, offset, horizontal, vertical) in zip(letters, places):
        ax.annotate(
            letter,
            place,
            xycoords="axes fraction",
            xytext=offset,
            textcoords="offset points",
            ha=horizontal,
            va=vertical,
            size=11,
            weight="bold",
            color=TEXT,
        )


def length_text(length: float, units: Units) -> str:
    """A length in the unit of ``units``, such as '2 cm', '5 mm' or '100 px'."""
    if units.length == "mm" and length >= 10:
        return f"{length / 10:g} cm"
    return f"{length:g} {units.length}"


def _scale_bar(ax: Axes, size_mm: np.ndarray, units: Units) -> None:
    """A bar below the left end of a view, which holds for all of them."""
    length = scale_bar(float(size_mm[1]), BAR_SHARE)
    share = length / float(size_mm[1])
    down = -0.25 * 72  # points
    line = {"arrowstyle": "|-|,widthA=0.25,widthB=0.25", "color": TEXT, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    below = {"xycoords": ("axes fraction", "axes points"), "textcoords": ("axes fraction", "axes points")}
    ax.annotate("", (0, down), xytext=(share, down), arrowprops=line, annotation_clip=False, **below)
    ax.annotate(
        length_text(length, units),
        (share, down),
        xycoords=("axes fraction", "axes points"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        size=10,
        color=TEXT,
        annotation_clip=False,
    )


def _legend_classes(numbers: Mapping[int, int]) -> list[int]:
    """The classes that take most of what is shown, as many as a legend has room for, in order."""
    return sorted(sorted(numbers, key=lambda index: -numbers[index])[:LEGEND_ENTRIES])


def _legend_columns(width: float) -> int:
    return max(2, int(width / LEGEND_COLUMN))


def _legend_height(width: float, labels: int) -> float:
    """Inches; reference, prediction and what is left out are entries too."""
    return 0.2 + LEGEND_ROW * math.ceil((labels + 3) / _legend_columns(width))


def _legend(
    figure: Figure,
    numbers: Mapping[int, int],
    names: Sequence[str],
    ground: str,
    *,
    called: tuple[str, str] | None,
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = []
    if called is not None:
        entries = [
            (Patch(facecolor="#ffffff30", edgecolor=TEXT, lw=1.1), f"{called[0]}, solid"),
            (Line2D([], [], color=TEXT, lw=1.7, linestyle=PREDICTION_DASHES), f"{called[1]}, dashed"),
        ]
    shown = _legend_classes(numbers)
    # A leading space, because matplotlib before 3.10 leaves out entries that begin with an underscore.
    number = "{} " if len(numbers) > 1 else ""
    entries += [
        (Patch(color=label_color(index)), f" {number.format(index)}{drawn_name(names[index], index, 24)}")
        for index in shown
    ]
    if len(numbers) > len(shown):
        entries.append((Patch(alpha=0), f"and {len(numbers) - len(shown)} more"))
    if not entries:  # an empty mask by itself
        entries.append((Patch(alpha=0), "no structure is in this mask"))
    handles, texts = zip(*entries)
    columns = min(len(entries), _legend_columns(figure.get_figwidth()))
    style = {"fontsize": 10, "frameon": False, "handlelength": 2.2, "labelcolor": TEXT}
    figure.legend(handles, texts, loc="lower center", ncols=columns, **style)
    bottom = (_legend_height(figure.get_figwidth(), len(shown)) + 0.06) / figure.get_figheight()
    figure.text(0.985, bottom, ground, ha="right", va="bottom", size=9.5, color="#a5afba")
