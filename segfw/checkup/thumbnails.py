"""Small pictures for the page of a check: slices in true proportions with the labels' outlines, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from segfw.base.figures import VIEWS, label_color, shown_plane
from segfw.checkup.case_details import CaseDetails, Slice, as_bytes, shown_channels
from segfw.dataset.cases import Case
from segfw.dataset.labels import apply_map
from segfw.grid.preprocess import stack_channels
from segfw.images.formats import read_mask, read_volume
from segfw.images.geometry import Shape
from segfw.images.values import as_integers
from segfw.images.volume import stored_like, to_canonical

FILL = 0.16
MARK_RADIUS = 11  # pixels, of the ring around a place


class View(NamedTuple):
    """A PNG of one slice, its size on the page, and the directions at its left, right, top and bottom, if any."""

    png: bytes
    width: int
    height: int
    letters: str
    title: str


def thumbnail(case_id: str, details: CaseDetails, classes: Mapping[int, int], pixels: int = 150) -> View:
    """The slice with most foreground, from what was kept when the case was read."""
    kept = details.thumbnail
    shown = Slice(image=kept.image[::-1, ::-1], mask=kept.mask[::-1, ::-1], size_mm=kept.size_mm)
    return _view(shown, pixels / max(kept.size_mm), classes, VIEWS[0][2] if details.has_directions else "", case_id)


def views_of_place(
    case: Case, window: tuple[float, float], place: Shape, classes: Mapping[int, int], pixels: int = 300
) -> list[View]:
    """The three slices through a voxel (z, y, x in canonical orientation), which is marked; reads the case again."""
    if case.label is None:
        return []
    stored = stack_channels([read_volume(path) for path in case.images])
    mask = replace(stored_like(read_mask(case.label), stored), geometry=stored.geometry)
    image = to_canonical(stored)
    values = apply_map(as_integers(to_canonical(mask).array), case.label_map)[0]
    size_mm = np.multiply(image.geometry.shape, image.geometry.spacing_mm)
    whole = (slice(None), slice(None), slice(None))
    views = []
    for name, axis, letters in VIEWS:
        vertical, horizontal = (each for each in range(3) if each != axis)
        if min(values.shape[vertical], values.shape[horizontal]) == 1:
            continue
        shown = Slice(
            image=as_bytes(shown_plane(shown_channels(image), axis, place[axis], whole), window),
            mask=shown_plane(values, axis, place[axis], whole),
            size_mm=(float(size_mm[vertical]), float(size_mm[horizontal])),
        )
        mark = (
            1 - (place[vertical] + 0.5) / values.shape[vertical],
            1 - (place[horizontal] + 0.5) / values.shape[horizontal],
        )
        title = f"slice {place[axis] + 1} of {values.shape[axis]}"
        if image.is_picture:
            letters = ""
        else:
            title = f"{name}, {title}"
        views.append(_view(shown, pixels / size_mm.max(), classes, letters, title, mark=mark))
    return views


def _view(
    shown: Slice,
    scale: float,
    classes: Mapping[int, int],
    letters: str,
    title: str,
    mark: tuple[float, float] | None = None,
) -> View:
    """``shown`` already lies as it is to be seen; ``mark`` is a place in it as shares of height and width."""
    height = max(8, round(shown.size_mm[0] * scale))
    width = max(8, round(shown.size_mm[1] * scale))
    fine = (2 * height, 2 * width)  # twice the pixels of the page, for sharp outlines
    picture = _resized(np.broadcast_to(np.atleast_3d(shown.image), (*shown.image.shape[:2], 3)), fine) / 255
    mask = _nearest(shown.mask, fine)
    edges = np.zeros(fine, bool)
    for axis in (0, 1):
        for step in (-1, 1):
            edges |= np.roll(mask, step, axis) != mask
    for value in np.intersect1d(np.unique(mask), list(classes)):
        color = np.array(label_color(classes[int(value)]))
        inside = mask == value
        picture[inside] = (1 - FILL) * picture[inside] + FILL * color
        picture[inside & edges] = color
    if mark is not None:
        _ring(picture, (mark[0] * fine[0], mark[1] * fine[1]))
    return View(_png(picture), width, height, letters, title)


def _nearest(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The mask in another size, every pixel with the value at its place."""
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old // new, old - 1).astype(int) for new, old in zip(shape, mask.shape)
    )
    return mask[rows][:, columns]


def _resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Colours (Y, X, 3) in another size."""
    factors = [*(new / old for new, old in zip(shape, image.shape)), 1]
    return ndimage.zoom(image.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True)


def _ring(picture: np.ndarray, centre: tuple[float, float]) -> None:
    y, x = np.ogrid[: picture.shape[0], : picture.shape[1]]
    distance = np.hypot(y - centre[0], x - centre[1])
    picture[np.abs(distance - 2 * MARK_RADIUS) < 3] = (0, 0, 0)
    picture[np.abs(distance - 2 * MARK_RADIUS) < 1.6] = (1, 1, 0.2)


def _png(picture: np.ndarray) -> bytes:
    from matplotlib.image import imsave

    file = io.BytesIO()
    without_version: dict[str, Any] = {"Software": None}  # the same bytes from every version of matplotlib
    imsave(file, (255 * picture.clip(0, 1)).round().astype(np.uint8), format="png", metadata=without_version)
    return file.getvalue()
