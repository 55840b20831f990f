"""Small pictures for the page of a check: slices in true proportions with the labels' outlines, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from segfw.base.figures import VIEWS, label_color, shown_plane
from segfw.checkup.case_measures import CaseMeasure, Slice, as_grey
from segfw.dataset.cases import Case, apply_map
from segfw.dataset.verify import as_integers
from segfw.grid.preprocess import stack_channels
from segfw.images.formats import read_mask, read_volume
from segfw.images.geometry import stored_like, to_canonical

FILL = 0.16
MARK_RADIUS = 11  # pixels, of the ring around a place


class View(NamedTuple):
    """A PNG of one slice, its size on the page, and the directions at its left, right, top and bottom."""

    png: bytes
    width: int
    height: int
    letters: str
    title: str


def thumbnail(case: CaseMeasure, classes: Mapping[int, int], pixels: int = 150) -> View:
    """The slice with most foreground, from what was kept when the case was read."""
    kept = case.thumbnail
    shown = Slice(image=kept.image[::-1, ::-1], mask=kept.mask[::-1, ::-1], size_mm=kept.size_mm)
    return _view(shown, pixels / max(kept.size_mm), classes, VIEWS[0][2], case.id)


def views_of_place(
    case: Case, measure: CaseMeasure, place: Sequence[int], classes: Mapping[int, int], pixels: int = 300
) -> list[View]:
    """The three slices through a voxel (z, y, x in canonical orientation), which is marked; reads the case again."""
    stored = stack_channels([read_volume(path) for path in case.images])
    mask = replace(stored_like(read_mask(case.label), stored), geometry=stored.geometry)
    image = to_canonical(stored)
    values = apply_map(as_integers(to_canonical(mask).array), case.label_map)[0]
    size_mm = np.array(measure.size_mm)
    views = []
    for name, axis, letters in VIEWS:
        if min(np.delete(values.shape, axis)) == 1:
            continue
        plane, mask = (shown_plane(array, axis, place[axis], (slice(None),) * 3) for array in (image.array[0], values))
        shown = Slice(
            image=as_grey(plane, measure.channels[0].window), mask=mask, size_mm=tuple(np.delete(size_mm, axis))
        )
        inside = [
            1 - (index + 0.5) / size for index, size in zip(np.delete(place, axis), np.delete(values.shape, axis))
        ]
        scale = pixels / max(size_mm)
        title = f"{name}, slice {place[axis] + 1} of {values.shape[axis]}"
        views.append(_view(shown, scale, classes, letters, title, mark=inside))
    return views


def _view(
    shown: Slice,
    scale: float,
    classes: Mapping[int, int],
    letters: str,
    title: str,
    mark: Sequence[float] | None = None,
) -> View:
    """``shown`` already lies as it is to be seen; ``mark`` is a place in it as shares of height and width."""
    height, width = (max(8, round(size * scale)) for size in shown.size_mm)
    fine = (2 * height, 2 * width)  # twice the pixels of the page, for sharp outlines
    picture = np.repeat(_resized(shown.image, fine)[..., None] / 255, 3, axis=2)
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old // new, old - 1).astype(int) for new, old in zip(fine, shown.mask.shape)
    )
    mask = shown.mask[rows][:, columns]
    edges = np.zeros(fine, bool)
    for axis in (0, 1):
        for step in (-1, 1):
            edges |= np.roll(mask, step, axis) != mask
    for value in np.intersect1d(np.unique(mask), list(classes)):
        color, inside = np.array(label_color(classes[int(value)])), mask == value
        picture[inside] = (1 - FILL) * picture[inside] + FILL * color
        picture[inside & edges] = color
    if mark is not None:
        _ring(picture, (mark[0] * fine[0], mark[1] * fine[1]))
    return View(_png(picture), width, height, letters, title)


def _resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    factors = [new / old for new, old in zip(shape, image.shape)]
    return ndimage.zoom(image.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True)


def _ring(picture: np.ndarray, centre: tuple[float, float]) -> None:
    y, x = np.ogrid[: picture.shape[0], : picture.shape[1]]
    distance = np.hypot(y - centre[0], x - centre[1])
    picture[np.abs(distance - 2 * MARK_RADIUS) < 3] = (0, 0, 0)
    picture[np.abs(distance - 2 * MARK_RADIUS) < 1.6] = (1, 1, 0.2)


def _png(picture: np.ndarray) -> bytes:
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, (255 * picture.clip(0, 1)).round().astype(np.uint8), format="png", metadata={"Software": None})
    return file.getvalue()
