"""Voxels whose centres lie inside of closed polygons, by the rule of even and odd: to prove what was written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class FilledBox:
    """Voxels (Z, Y, X) of a part of a volume that begins at ``corner``; outside of it there are none."""

    corner: tuple[int, int, int]
    inside: np.ndarray

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where it lies in the volume."""
        z, y, x = (slice(start, start + size) for start, size in zip(self.corner, self.inside.shape))
        return z, y, x


def filled(corners_yx: np.ndarray, starts: np.ndarray, slices: np.ndarray) -> FilledBox:
    """Fills polygons: those of one slice together, so that a polygon within another one is a hole.

    Parameters
    ----------
    corners_yx
        (N, 2), in voxels; the centre of a voxel has whole numbers.
    starts
        (P + 1,); polygon p has the corners from ``starts[p]`` to ``starts[p + 1]``.
    slices
        (P,), the slice of each.
    """
    if len(slices) == 0:
        return FilledBox(corner=(0, 0, 0), inside=np.zeros((0, 0, 0), bool))
    following = np.arange(1, len(corners_yx) + 1)
    following[starts[1:] - 1] = starts[:-1]
    low = np.ceil(corners_yx.min(0)).astype(int)
    high = np.floor(corners_yx.max(0)).astype(int)
    corner = (int(slices.min()), int(low[0]), int(low[1]))
    shape = (int(slices.max()) - corner[0] + 1, int(high[0] - low[0]) + 1, int(high[1] - low[1]) + 1)
    if 0 in shape:  # between the centres of voxels
        return FilledBox(corner=corner, inside=np.zeros(shape, bool))

    # Each edge toggles all voxels to the right of it, in the rows whose centres it passes.
    y0, x0 = (corners_yx - low).T
    y1 = y0[following]
    x1 = x0[following]
    first_row = np.ceil(np.minimum(y0, y1)).astype(np.int64)
    rows = np.ceil(np.maximum(y0, y1)).astype(np.int64) - first_row
    edge = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows) + first_row[edge]
    crossing = x0[edge] + (row - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    column = np.ceil(crossing).astype(np.int64)
    z = np.repeat(slices - corner[0], np.diff(starts))[edge]
    toggles = np.zeros((*shape[:2], shape[2] + 1), np.uint8)
    np.bitwise_xor.at(toggles, (z, row, column), 1)
    inside = np.bitwise_xor.accumulate(toggles, axis=2)[:, :, :-1]
    return FilledBox(corner=corner, inside=inside.view(bool))
