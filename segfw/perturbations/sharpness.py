"""Changes of what an image resolves, on the grid that it has: blur, coarser voxels and back, lost slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from segfw.images.volume import Volume
from segfw.perturbations.slice_axis import in_plane_axes, slice_axis

SD_OF_FULL_WIDTH = 1 / 2.355  # of a Gaussian, of its full width at half of its height
FEWEST_COARSE = 2  # voxels that an axis keeps, however coarse


def at_positions(array: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    """The array read at fractional indices along an axis: linear between voxels, the last voxel beyond the ends."""
    size = array.shape[axis]
    inside = np.clip(positions, 0, size - 1)
    lower = np.floor(inside).astype(np.int64)
    upper = np.minimum(lower + 1, size - 1)
    sizes = [1] * array.ndim
    sizes[axis] = len(positions)
    weight = (inside - lower).astype(np.float32).reshape(sizes)
    below = np.take(array, lower, axis).astype(np.float32, copy=False)
    above = np.take(array, upper, axis).astype(np.float32, copy=False)
    return below + (above - below) * weight


def blurred(volume: Volume, sigmas: Sequence[float]) -> Volume:
    """Gaussian blur by standard deviations (z, y, x) in voxels; float32."""
    smooth = volume.array.astype(np.float32)
    for axis, sigma in enumerate(sigmas):
        if sigma > 0 and volume.geometry.shape[axis] > 1:
            smooth = ndimage.gaussian_filter1d(smooth, sigma, axis=axis + 1, mode="nearest")
    return replace(volume, array=smooth)


def blurred_in_plane(volume: Volume, sigma: float) -> Volume:
    """Gaussian blur in the slices alone, ``sigma`` in units of the slices' finer voxel edge; float32."""
    first, second = in_plane_axes(volume)
    edges = volume.geometry.spacing_mm
    finest = min(edges[first], edges[second])
    sigmas = [sigma * finest / edge if axis in (first, second) else 0.0 for axis, edge in enumerate(edges)]
    return blurred(volume, sigmas)


def coarse_positions(size: int, factor: float) -> np.ndarray:
    """Where, counted in voxels of an axis, the centres of voxels lie that are ``factor`` times as long.

    They cover the same extent, symmetrically about the same middle.
    """
    count = max(min(FEWEST_COARSE, size), round(size / factor))
    return (np.arange(count) - (count - 1) / 2) * factor + (size - 1) / 2


def averaged_coarsely(array: np.ndarray, axis: int, factor: float) -> np.ndarray:
    """Voxels ``factor`` times as long along an axis of the array, each a mean of what it covers; float32."""
    if factor <= 1 or array.shape[axis] == 1:
        return array.astype(np.float32)
    # What the finer voxels have blurred already is not blurred twice.
    sigma = SD_OF_FULL_WIDTH * np.sqrt(factor**2 - 1)
    smooth = ndimage.gaussian_filter1d(array.astype(np.float32), sigma, axis=axis, mode="nearest")
    return at_positions(smooth, axis, coarse_positions(array.shape[axis], factor))


def coarsening(volume: Volume, factor: float) -> tuple[float, float, float]:
    """How much longer voxels become along (z, y, x) so that no edge is under ``factor`` times the finest one."""
    edges = [edge for edge, size in zip(volume.geometry.spacing_mm, volume.geometry.shape) if size > 1] or list(
        volume.geometry.spacing_mm
    )
    wanted = factor * min(edges)
    z, y, x = (
        max(1.0, wanted / edge) if size > 1 else 1.0
        for edge, size in zip(volume.geometry.spacing_mm, volume.geometry.shape)
    )
    return z, y, x


def of_low_resolution(volume: Volume, factor: float) -> Volume:
    """As if scanned with voxels ``factor`` times the finest edge, and brought back to its grid by lines; float32."""
    array = volume.array.astype(np.float32)
    for axis, longer in enumerate(coarsening(volume, factor)):
        size = volume.geometry.shape[axis]
        if longer > 1:
            coarse = averaged_coarsely(array, axis + 1, longer)
            first = coarse_positions(size, longer)[0]
            array = at_positions(coarse, axis + 1, (np.arange(size) - first) / longer)
    return replace(volume, array=array)


def lost_slices(volume: Volume, lost: Sequence[int]) -> Volume:
    """The slices of these numbers taken over from the nearest slice that is left, as readers fill gaps.

    A picture, or a scan of one slice, loses lines. Raises ValueError if nothing is left.
    """
    axis = axis_of_losses(volume)
    size = volume.geometry.shape[axis]
    kept = np.setdiff1d(np.arange(size), lost)
    if not kept.size:
        raise ValueError("no slice is left")
    nearest = kept[np.abs(np.arange(size)[:, None] - kept[None]).argmin(1)]
    return replace(volume, array=np.take(volume.array, nearest, axis + 1))


def axis_of_losses(volume: Volume) -> int:
    """The axis whose slices get lost: that of the slices, or of a single slice that of its lines."""
    axis = slice_axis(volume)
    return axis if volume.geometry.shape[axis] > 1 else in_plane_axes(volume)[0]
