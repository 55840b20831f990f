"""Boxes of a grid: what they cut out of an array, and how they are divided into blocks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from segfw.images.geometry import Shape

Bounds = tuple[int, int]
Box = tuple[Bounds, Bounds, Bounds]  # first voxel and the one behind the last along (z, y, x); as records keep it
Block = tuple[slice, slice, slice]  # the same with explicit bounds, to index with


def whole_grid(shape: Shape) -> Block:
    """The block that is all of a grid."""
    z, y, x = shape
    return slice(0, z), slice(0, y), slice(0, x)


def blocks(within: Block, size: Shape) -> Iterator[Block]:
    """Blocks of at most ``size`` voxels that together are ``within``, the last axis first."""
    z, y, x = (_parts(along, step) for along, step in zip(within, size))
    yield from product(z, y, x)


def _parts(along: slice, step: int) -> list[slice]:
    return [slice(start, min(start + step, along.stop)) for start in range(along.start, along.stop, step)]


def relative(block: Block, origin: Block) -> Block:
    """A block as it is counted from the first voxel of another one."""
    z, y, x = (slice(part.start - base.start, part.stop - base.start) for part, base in zip(block, origin))
    return z, y, x


def common(first: Block, second: Block) -> Block:
    """What two blocks of one grid have in common; along an axis where that is nothing, an empty part of the first."""
    parts = []
    for one, other in zip(first, second):
        start = min(max(one.start, other.start), one.stop)
        parts.append(slice(start, max(start, min(one.stop, other.stop))))
    z, y, x = parts
    return z, y, x


def shape_of(block: Block) -> Shape:
    """Voxels along each axis."""
    z, y, x = (part.stop - part.start for part in block)
    return z, y, x


def cut(array: np.ndarray, box: Box) -> np.ndarray:
    """View of the last three axes inside ``box``."""
    z, y, x = (slice(start, stop) for start, stop in box)
    return array[..., z, y, x]


def block_of(mask_zyx: np.ndarray) -> Block | None:
    """The smallest block that holds all of a mask; None of an empty one."""
    parts = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(mask_zyx.any(others))
        if not len(places):
            return None
        parts.append(slice(int(places[0]), int(places[-1]) + 1))
    z, y, x = parts
    return z, y, x


def nonzero_box(image_czyx: np.ndarray) -> Box:
    """Smallest box that holds every voxel that is not zero in some channel; the whole image if there is none."""
    _, depth, height, width = image_czyx.shape
    whole: Box = ((0, depth), (0, height), (0, width))
    box = list(whole)
    for axis in range(3):
        z, y, x = box
        slices = np.moveaxis(cut(image_czyx, (z, y, x)), axis + 1, 0)
        # Only slices at the border are looked at: most images end there, where something is.
        empty_before = next((index for index, part in enumerate(slices) if part.any()), None)
        if empty_before is None:
            return whole
        empty_behind = next(index for index, part in enumerate(slices[::-1]) if part.any())
        box[axis] = (empty_before, box[axis][1] - empty_behind)
    z, y, x = box
    return z, y, x
