"""Changes of the grid of an image: other axes, another place, fewer voxels; header and array together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segfw.grid.boxes import Box, cut
from segfw.images.geometry import Geometry, as_spacing, unit_axes
from segfw.images.volume import Volume
from segfw.perturbations.regridding import on_grid
from segfw.perturbations.sharpness import averaged_coarsely, coarse_positions
from segfw.perturbations.slice_axis import in_plane_axes, slice_axis

MOVED_MM = 300.0
FEWEST_TO_CUT = 8  # voxels of an axis


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


def moved(volume: Volume) -> Volume:
    """The same voxels MOVED_MM further along every axis of the world."""
    affine = volume.geometry.matrix.copy()
    affine[:3, 3] += MOVED_MM
    return replace(volume, geometry=Geometry.of(volume.geometry.shape, affine))


def cut_per_side(volume: Volume, share: float) -> Volume:
    """A smaller field of view: a share of every axis gone at each of its ends; axes of few voxels stay."""
    bounds = []
    for size in volume.geometry.shape:
        lost = round(share * size) if size >= FEWEST_TO_CUT else 0
        bounds.append((lost, size - lost))
    first, second, third = bounds
    return within_box(volume, (first, second, third))


def padded(volume: Volume) -> Volume:
    """One voxel more at every end of every axis but that of a single slice, of the lowest value of each channel."""
    widths = [0 if size == 1 else 1 for size in volume.geometry.shape]
    around = [(width, width) for width in widths]
    array = np.stack([np.pad(channel, around, constant_values=channel.min()) for channel in volume.array])
    affine = volume.geometry.matrix.copy()
    affine[:3, 3] -= affine[:3, :3] @ widths
    return replace(volume, array=array, geometry=Geometry.of(array.shape[1:], affine))


def every_nth_slice(volume: Volume, step: int) -> Volume:
    """Every so many slices alone, at the distance that they then have."""
    axis = slice_axis(volume)
    affine = volume.geometry.matrix.copy()
    affine[:3, axis] *= step
    kept = np.arange(0, volume.geometry.shape[axis], step)
    array = np.take(volume.array, kept, axis + 1)
    return replace(volume, array=array, geometry=Geometry.of(array.shape[1:], affine), stated_mm=None)


def of_larger_voxels(volume: Volume, factor: float) -> Volume:
    """As scanned with voxels ``factor`` times as long along every axis of more than one; float32."""
    array = volume.array.astype(np.float32)
    affine = volume.geometry.matrix.copy()
    for axis, size in enumerate(volume.geometry.shape):
        if size > 1:
            array = averaged_coarsely(array, axis + 1, factor)
            affine[:3, 3] += affine[:3, axis] * coarse_positions(size, factor)[0]
    for axis, size in enumerate(volume.geometry.shape):
        if size > 1:
            affine[:3, axis] *= factor
    return replace(volume, array=array, geometry=Geometry.of(array.shape[1:], affine), stated_mm=None)


def shifted_by_half(volume: Volume) -> Volume:
    """The image on a grid that lies half a voxel further along the last axis in the slices; float32."""
    axis = in_plane_axes(volume)[1]
    affine = volume.geometry.matrix.copy()
    affine[:3, 3] += affine[:3, axis] / 2
    return on_grid(volume, Geometry.of(volume.geometry.shape, affine))


def rotated(volume: Volume, degrees: float) -> Volume:
    """As scanned with the slices turned about their middle, on a grid of the same size and spacing; float32.

    The header tells it: the anatomy stays where it is, and lies obliquely in the array.
    """
    geometry = volume.geometry
    first, second = in_plane_axes(volume)
    axes = unit_axes(geometry.matrix)
    angle = np.deg2rad(degrees)
    turned = axes.copy()
    turned[:, first] = np.cos(angle) * axes[:, first] + np.sin(angle) * axes[:, second]
    turned[:, second] = np.cos(angle) * axes[:, second] - np.sin(angle) * axes[:, first]
    affine = np.eye(4)
    affine[:3, :3] = turned * geometry.spacing_mm
    middle = _middle(geometry.shape)
    affine[:3, 3] = geometry.matrix[:3, :3] @ middle + geometry.matrix[:3, 3] - affine[:3, :3] @ middle
    return on_grid(volume, Geometry.of(geometry.shape, affine))
