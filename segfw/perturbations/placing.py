"""Changes of where an image is and how it is stored: turned anatomy, a smaller field of view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segfw.grid.boxes import Box, cut
from segfw.images.geometry import Geometry, as_spacing, unit_axes
from segfw.images.volume import Volume


def within_box(volume: Volume, box: Box) -> Volume:
    """What lies in a box of the array, where it was in space."""
    affine = volume.geometry.matrix.copy()
    corner = np.array([start for start, _ in box], dtype=float)
    affine[:3, 3] += affine[:3, :3] @ corner
    array = np.ascontiguousarray(cut(volume.array, box))
    return replace(volume, array=array, geometry=Geometry.of(array.shape[1:], affine))


def turned_unsaid(volume: Volume, order: Sequence[int], is_flipped: Sequence[bool]) -> Volume:
    """The anatomy turned by right angles or mirrored, and a header that does not tell.

    Axis ``i`` of the result holds what was on axis ``order[i]``, the other way round where ``is_flipped[i]``. Voxels
    keep their sizes, axes their directions in space, and the middle of the image its place.
    """
    array = volume.array.transpose(0, *(axis + 1 for axis in order))
    array = np.ascontiguousarray(array[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in is_flipped))])
    geometry = volume.geometry
    lengths_mm = [geometry.spacing_mm[axis] for axis in order]
    affine = np.eye(4)
    affine[:3, :3] = unit_axes(geometry.matrix) * lengths_mm
    old_middle = geometry.matrix[:3, :3] @ _middle(geometry.shape) + geometry.matrix[:3, 3]
    affine[:3, 3] = old_middle - affine[:3, :3] @ _middle(array.shape[1:])
    stated_mm = volume.stated_mm
    if stated_mm is not None:
        stated_mm = as_spacing(stated_mm[axis] for axis in order)
    return replace(volume, array=array, geometry=Geometry.of(array.shape[1:], affine), stated_mm=stated_mm)


def _middle(shape: Sequence[int]) -> np.ndarray:
    return (np.array(shape, dtype=float) - 1) / 2
