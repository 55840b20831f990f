"""Images and masks on other grids: by the two affines, so that turned, coarser and cut grids are one thing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
from scipy import ndimage

from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.perturbations.intensity_scale import intensity_scale

VOXELS_AT_ONCE = 2_000_000
SAME_VOXELS = 1e-3  # grids that differ by less, in voxels, are one grid
JITTER_VOXELS = 1e-3  # breaks ties between voxels at equal distances, evenly


def on_grid(volume: Volume, geometry: Geometry) -> Volume:
    """The image read at the voxels of another grid, linear between its own, float32.

    Beyond its outermost voxels' edges a channel has its lowest value.
    """
    to_index = np.linalg.solve(volume.geometry.matrix, geometry.matrix)
    outside = ~covered(volume.geometry, geometry)
    array = np.empty((len(volume.array), *geometry.shape), dtype=np.float32)
    for channel, voxels in enumerate(volume.array):
        ndimage.affine_transform(
            voxels.astype(np.float32),
            to_index[:3, :3],
            to_index[:3, 3],
            geometry.shape,
            output=array[channel],
            order=1,
            mode="nearest",
        )
        array[channel][outside] = intensity_scale(voxels).floor
    return replace(volume, array=array, geometry=geometry, stated_mm=None)


def covered(source: Geometry, target: Geometry) -> np.ndarray:
    """The voxels (Z, Y, X) of a target grid whose centres lie in a voxel of the source grid."""
    found = np.empty(target.shape, dtype=bool)
    for slices, index in _indices(source, target):
        inside = np.ones(index.shape[1:], dtype=bool)
        for at, size in zip(index, source.shape):
            inside &= (at > -0.5 - SAME_VOXELS) & (at < size - 0.5 + SAME_VOXELS)
        found[slices] = inside
    return found


def labels_on_grid(classes_zyx: np.ndarray, source: Geometry, target: Geometry, rng: np.random.Generator) -> np.ndarray:
    """A mask read at the voxels of another grid: the class with the largest linear weight, 0 where nothing is known.

    Voxels that lie just between two others take either at random, so that a structure grows by it as often as it
    shrinks. On the same voxels in another order of axes, or cut or padded by whole ones, it is exact.
    """
    found = np.zeros(target.shape, dtype=classes_zyx.dtype)
    for slices, index in _indices(source, target):
        nearest = np.rint(index)
        is_whole = bool(np.abs(index - nearest).max(initial=0) < SAME_VOXELS)
        if is_whole:
            known, at = _within(nearest, source)
            values = np.where(known, classes_zyx[tuple(at)], 0)
        else:
            known, _ = _within(nearest, source)
            jittered = index + rng.uniform(-JITTER_VOXELS, JITTER_VOXELS, index.shape)
            values = np.where(known, _heaviest(classes_zyx, jittered), 0)
        found[slices] = values
    return found


def _within(nearest: np.ndarray, source: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Which indices lie in the grid, and all of them brought into it."""
    limits = np.array(source.shape).reshape(3, 1, 1, 1) - 1
    known = np.logical_and.reduce((nearest >= 0) & (nearest <= limits))
    return known, np.clip(nearest, 0, limits).astype(np.int64)


def _heaviest(classes_zyx: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The class of largest linear weight among the eight voxels around each index (3, ...)."""
    limits = np.array(classes_zyx.shape).reshape(3, 1, 1, 1) - 1
    inside = np.clip(index, 0, limits)
    lower = np.floor(inside).astype(np.int64)
    share = inside - lower
    upper = np.minimum(lower + 1, limits)
    corners = []
    weights = []
    for corner in product((0, 1), repeat=3):
        at = tuple(upper[axis] if far else lower[axis] for axis, far in enumerate(corner))
        corners.append(classes_zyx[at])
        parts = [share[axis] if far else 1 - share[axis] for axis, far in enumerate(corner)]
        weights.append(parts[0] * parts[1] * parts[2])
    heaviest = corners[0]
    most = np.full(heaviest.shape, -1.0)
    for candidate in corners:
        total = np.zeros(heaviest.shape)
        for other, weight in zip(corners, weights):
            total += weight * (other == candidate)
        heaviest = np.where(total > most, candidate, heaviest)
        most = np.maximum(total, most)
    return heaviest


def _indices(source: Geometry, target: Geometry) -> Iterator[tuple[slice, np.ndarray]]:
    """For slabs of the target grid, where its voxels lie in the source grid: indices (3, z, Y, X)."""
    matrix = np.linalg.solve(source.matrix, target.matrix)
    depth, height, width = target.shape
    step = max(1, VOXELS_AT_ONCE // (height * width))
    y = np.arange(height).reshape(1, -1, 1)
    x = np.arange(width).reshape(1, 1, -1)
    for start in range(0, depth, step):
        stop = min(start + step, depth)
        z = np.arange(start, stop).reshape(-1, 1, 1)
        index = np.stack([row[0] * z + row[1] * y + row[2] * x + row[3] for row in matrix[:3]])
        yield slice(start, stop), index
