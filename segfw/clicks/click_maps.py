"""What a refining network sees besides the image: the structure, its neighbours, and clicks as maps."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import numpy as np

from segfw.images.geometry import Shape, Spacing

CLICK_SIGMA = 2.0  # of the Gaussian that a click is, in finest spacings
REACH_SIGMA = 4.0  # where a Gaussian ends: it is 0.0003 there
CHANNELS = ("structure", "others", "inside", "outside")  # after the image's own channels, in this order

VoxelPoint = Sequence[float]  # (z, y, x) in voxels; between their centres, too


def click_map(shape_zyx: Shape, spacing_mm_zyx: Spacing, points_zyx: Sequence[VoxelPoint]) -> np.ndarray:
    """Float32 (Z, Y, X): exp(-d^2 / (2 sigma^2)) of the distance d in mm to the nearest click, 0 without clicks.

    Sigma is ``CLICK_SIGMA`` times the finest spacing. Beyond ``REACH_SIGMA`` of them along an axis a click is nothing.
    Points may lie outside the grid: what they reach of it is there.
    """
    found = np.zeros(shape_zyx, dtype=np.float32)
    sigma_mm = CLICK_SIGMA * min(spacing_mm_zyx)
    for point in points_zyx:
        box = []
        falls = []
        for size, spacing_mm, place in zip(shape_zyx, spacing_mm_zyx, point):
            reach = REACH_SIGMA * sigma_mm / spacing_mm
            start = min(size, max(0, ceil(place - reach)))
            stop = max(start, min(size, floor(place + reach) + 1))
            distance_mm = (np.arange(start, stop) - place) * spacing_mm
            box.append(slice(start, stop))
            falls.append(np.exp(-(distance_mm**2) / (2 * sigma_mm**2)))
        z, y, x = falls
        part = found[tuple(box)]
        np.maximum(part, (z[:, None, None] * y[:, None] * x).astype(np.float32), out=part)
    return found


def refiner_channels(
    structure_zyx: np.ndarray,
    others_zyx: np.ndarray,
    inside_points: Sequence[VoxelPoint],
    outside_points: Sequence[VoxelPoint],
    spacing_mm: Spacing,
) -> np.ndarray:
    """Float32 (4, Z, Y, X): the channels of ``CHANNELS``, on the grid of the two masks."""
    shape = structure_zyx.shape
    return np.stack(
        [
            structure_zyx.astype(np.float32),
            others_zyx.astype(np.float32),
            click_map(shape, spacing_mm, inside_points),
            click_map(shape, spacing_mm, outside_points),
        ]
    )
