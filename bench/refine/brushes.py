"""What a click is worth without a network: a ball around it that is painted with what the click says."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bench.refine.clicked_item import Item
from segfw.clicks.simulated_clicks import ErrorComponent, Point, error_components

Radius = Callable[[ErrorComponent, Item], float]


def radius_of_equal_volume(error: ErrorComponent, item: Item) -> float:
    """Of a ball that is as large as the error, in mm."""
    return float((3 * error.voxels * math.prod(item.spacing_mm) / (4 * math.pi)) ** (1 / 3))


def radius_that_fits(error: ErrorComponent, item: Item) -> float:
    """Of the largest ball that has room in the error, in mm."""
    return float(error.depth_zyx.max())


BRUSHES: dict[str, Radius] = {"brush": radius_of_equal_volume, "fitting brush": radius_that_fits}


class Brush:
    """An arm: paints a ball, and spares other structures where nobody allowed to overwrite them."""

    def __init__(self, automatic_zyx: np.ndarray, item: Item, radius_mm: Radius) -> None:
        self._values_zyx = automatic_zyx.copy()
        self._item = item
        self._radius_mm = radius_mm

    @property
    def values_zyx(self) -> np.ndarray:
        """The mask as it is now."""
        return self._values_zyx

    def click(self, point: Point, *, inside: bool, may_overwrite: bool) -> None:
        """Paints."""
        error = self._error_at(point, inside=inside)
        radius_mm = self._radius_mm(error, self._item) if error is not None else 0.0
        box, ball_zyx = ball_around(point, radius_mm, self._item)
        part_zyx = self._values_zyx[box]
        if not inside:
            part_zyx[ball_zyx & (part_zyx == self._item.value)] = 0
        elif may_overwrite:
            part_zyx[ball_zyx] = self._item.value
        else:
            part_zyx[ball_zyx & (part_zyx == 0)] = self._item.value

    def _error_at(self, point: Point, *, inside: bool) -> ErrorComponent | None:
        """The error that a click means: the one that it lies in, or the largest where it missed."""
        given_zyx = self._values_zyx == self._item.value
        found = error_components(given_zyx, self._item.wanted_zyx, self._item.spacing_mm)
        meant = [error for error in found if error.is_missing == inside]
        return next((error for error in meant if error.holds(point)), meant[0] if meant else None)


def ball_around(point: Point, radius_mm: float, item: Item) -> tuple[tuple[slice, ...], np.ndarray]:
    """A box of the image around a point, and which of its voxels are at most ``radius_mm`` away from it."""
    sides = []
    for at, length_mm, size in zip(point, item.spacing_mm, item.wanted_zyx.shape, strict=True):
        reach = int(radius_mm / length_mm)
        sides.append(slice(max(0, at - reach), min(size, at + reach + 1)))
    axes = [
        (np.arange(side.start, side.stop) - at) * length_mm
        for side, at, length_mm in zip(sides, point, item.spacing_mm, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return tuple(sides), z**2 + y**2 + x**2 <= radius_mm**2
