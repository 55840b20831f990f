"""Which axis of an image its slices are stacked along, and which lie in the slice."""

from __future__ import annotations

import numpy as np

from segfw.images.volume import Volume

THICKER = 1.2  # times the other voxel edges: such an axis is that of the slices


def slice_axis(volume: Volume) -> int:
    """The axis (0, 1, 2) of (Z, Y, X) that slices are stacked along.

    It is the axis of a single slice, else the one whose voxel edge is clearly the longest, else the one that runs
    nearest to head and foot; of pictures the first.
    """
    geometry = volume.geometry
    if 1 in geometry.shape:
        return geometry.shape.index(1)
    if not volume.is_placed:
        return 0
    lengths_mm = sorted(geometry.spacing_mm)
    if lengths_mm[2] > THICKER * lengths_mm[1]:
        return int(np.argmax(geometry.spacing_mm))
    towards_head = np.abs(geometry.matrix[2, :3]) / geometry.spacing_mm
    return int(np.argmax(towards_head))


def in_plane_axes(volume: Volume) -> tuple[int, int]:
    """The two axes of (Z, Y, X) that lie in a slice, in the order of the array."""
    first, second = (axis for axis in range(3) if axis != slice_axis(volume))
    return first, second
