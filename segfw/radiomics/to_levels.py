"""From an image and a mask to the voxels whose features are told: one size of voxels, a range, and grey levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segfw.base.records import UserError
from segfw.radiomics.radiomics_settings import LOWEST_HU, MOST_LEVELS, ChannelProcessing

INSIDE = 0.5 - 1e-6  # of a mask between voxels; a half counts, also where it came out as 0.4999999
MOST_VOXELS = 1 << 31  # of a new grid; more take 16 GB
REACH = 4  # standard deviations to which a filter reaches
SLACK = 1e-6  # voxels by which a grid may miss a whole number of them
# Of a bin or a whole number: what lies on the border of two but for rounding goes to the upper one, in whichever order
# an image is stored.
ON_BORDER = 1e-9
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class NewGrid:
    """Voxels on which an image is looked up: number n of them lies at ``steps @ n + start`` of the old ones.

    ``axes_mm`` are their steps along z, y and x as columns.
    """

    steps: np.ndarray
    start: np.ndarray
    shape: tuple[int, ...]
    axes_mm: np.ndarray

    def grown(self, margin: Sequence[int] | np.ndarray) -> NewGrid:
        """With so many more voxels on both sides of each axis."""
        more = np.asarray(margin)
        shape = tuple(int(each) for each in np.asarray(self.shape) + 2 * more)
        return NewGrid(steps=self.steps, start=self.start - self.steps @ more, shape=shape, axes_mm=self.axes_mm)

    def part(self, box: Box) -> NewGrid:
        """Only the voxels in a box."""
        first = np.array([each.start for each in box])
        shape = tuple(each.stop - each.start for each in box)
        return NewGrid(steps=self.steps, start=self.start + self.steps @ first, shape=shape, axes_mm=self.axes_mm)


def edges_of(axes_mm: np.ndarray, voxel_mm: float, *, is_by_slice: bool) -> np.ndarray:
    """The edges of new voxels along each axis; where texture is told by slice the first axis keeps its own."""
    edges = np.full(3, voxel_mm)
    if is_by_slice:
        edges[0] = np.linalg.norm(axes_mm[:, 0])
    return edges


def grid_around(box: Box, shape: Sequence[int], axes_mm: np.ndarray, edges_mm: np.ndarray) -> NewGrid:
    """The new voxels around a box of an image that a mask in the box can reach.

    The grid of the whole image has its centre where the old one has it, and covers at least as much (IBSI).
    """
    sizes = np.asarray(shape)
    old_mm = np.linalg.norm(axes_mm, axis=0)
    ratio = edges_mm / old_mm
    number = np.ceil(sizes / ratio - SLACK).astype(int)
    zero = (sizes - 1) / 2 - (number - 1) / 2 * ratio
    low = np.array([each.start - 1 for each in box])
    high = np.array([each.stop for each in box])
    first = np.maximum(np.ceil((low - zero) / ratio - SLACK).astype(int), 0)
    last = np.minimum(np.floor((high - zero) / ratio + SLACK).astype(int), number - 1)
    return NewGrid(
        steps=np.diag(ratio),
        start=zero + first * ratio,
        shape=tuple(int(each) for each in last - first + 1),
        axes_mm=axes_mm * ratio,
    )


def looked_up(array: np.ndarray, grid: NewGrid, origin: np.ndarray, *, beyond: str) -> np.ndarray:
    """An array on new voxels, linearly between the old ones; its own first voxel is number ``origin`` of the image.

    What lies ``beyond`` it is 'nearest', mirrored ('reflect') or 0 ('constant').
    """
    from scipy.ndimage import affine_transform

    _require_room_for(grid)
    diagonal = np.diag(grid.steps)
    is_straight = np.array_equal(np.diag(diagonal), grid.steps)
    matrix = diagonal if is_straight else grid.steps
    found = affine_transform(
        array.astype(np.float64), matrix, grid.start - origin, grid.shape, order=1, mode=beyond, prefilter=False
    )
    return np.asarray(found, np.float64)


def _require_room_for(grid: NewGrid) -> None:
    """UserError for more voxels than any structure has, as settings of another unit of length ask for."""
    voxels = math.prod(grid.shape)
    if voxels > MOST_VOXELS:
        smallest_mm = float(np.linalg.norm(grid.axes_mm, axis=0).min())
        raise UserError(
            f"a structure and what its filters reach would be {voxels:.0e} voxels of {smallest_mm:g} mm; correct "
            "voxel_mm and log_mm of the settings, which are in mm"
        )


def image_on(image_zyx: np.ndarray, grid: NewGrid, *, beyond: str = "nearest") -> np.ndarray:
    """An image on new voxels; only what they reach of it is converted."""
    corners = np.array(np.meshgrid(*((0, size - 1) for size in grid.shape), indexing="ij")).reshape(3, -1)
    places = grid.steps @ corners + grid.start[:, None]
    sizes = np.asarray(image_zyx.shape)
    low = np.clip(np.floor(places.min(1)).astype(int) - 1, 0, sizes - 1)
    high = np.clip(np.ceil(places.max(1)).astype(int) + 2, low + 1, sizes)
    z, y, x = (slice(int(start), int(stop)) for start, stop in zip(low, high))
    return looked_up(image_zyx[z, y, x], grid, low, beyond=beyond)


def mask_on(inside_zyx: np.ndarray, origin: np.ndarray, grid: NewGrid) -> np.ndarray:
    """A mask, whose first voxel is number ``origin`` of the image, on new voxels: where at least half of it is inside.

    What lies at the border of the image goes on half a voxel beyond it, as the image does.
    """
    return looked_up(np.pad(inside_zyx, 1), grid, origin - 1, beyond="constant") >= INSIDE


def tight(mask_zyx: np.ndarray) -> Box | None:
    """The smallest box around a mask; None around nothing."""
    if not mask_zyx.any():
        return None
    z, y, x = (np.flatnonzero(mask_zyx.any(tuple(axis for axis in range(3) if axis != each))) for each in range(3))
    return slice(z[0], z[-1] + 1), slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1)


def laplacian_of_gaussian(image_zyx: np.ndarray, grid: NewGrid, sigma_mm: float, *, is_by_slice: bool) -> np.ndarray:
    """The sum of second derivatives of the image, blurred by ``sigma_mm``, on new voxels (IBSI 2: per squared voxel).

    By slice it is that of each slice. The axes along which it is taken have voxels of one size.
    """
    from scipy.ndimage import gaussian_filter1d

    spacing_mm = np.linalg.norm(grid.axes_mm, axis=0)
    axes = (1, 2) if is_by_slice else (0, 1, 2)
    margin = np.zeros(3, int)
    margin[list(axes)] = np.ceil(REACH * sigma_mm / spacing_mm[list(axes)]).astype(int) + 1
    around = image_on(image_zyx, grid.grown(margin), beyond="reflect")
    total = np.zeros_like(around)
    for second in axes:
        part = around
        for axis in axes:
            order = 2 if axis == second else 0
            part = gaussian_filter1d(part, sigma_mm / spacing_mm[axis], axis, order, mode="reflect", truncate=REACH)
        total += part
    z, y, x = (slice(int(more), int(more) + size) for more, size in zip(margin, grid.shape))
    return total[z, y, x]


def whole_numbers(values: np.ndarray) -> np.ndarray:
    """The nearest whole numbers; halves go up."""
    return np.asarray(np.floor(values + 0.5 + ON_BORDER))


def within_range(values_zyx: np.ndarray, inside: np.ndarray, wanted: tuple[float, float] | None) -> np.ndarray:
    """The voxels of a mask whose values are in the range; all without one."""
    if wanted is None:
        return inside
    return inside & (values_zyx >= wanted[0]) & (values_zyx <= wanted[1])


def levels_of(values: np.ndarray, processing: ChannelProcessing) -> np.ndarray | None:
    """The grey level of each value, from 1 on; None if there are more than ``MOST_LEVELS``."""
    if processing.bin_width is None:
        return _so_many_levels(values, processing.levels or 1)
    lowest = LOWEST_HU if processing.range is None else processing.range[0]
    levels = np.maximum(np.floor((values - lowest) / processing.bin_width + ON_BORDER) + 1, 1)
    return levels.astype(np.int64) if levels.max() <= MOST_LEVELS else None


def _so_many_levels(values: np.ndarray, number: int) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.ones(len(values), np.int64)
    return np.minimum(np.floor(number * (values - low) / (high - low) + ON_BORDER) + 1, number).astype(np.int64)
