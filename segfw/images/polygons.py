"""Which voxel centres of a slice lie within closed polygons, by the rule of even and odd crossings.

A centre is inside if a line from it to smaller columns crosses the polygons an odd number of times. So a polygon within
another is a hole, a hole that is joined to its outline by a line there and back (a keyhole) stays one, and an area that
two polygons share is outside. A centre on an edge belongs to the side of the larger index: of two polygons that share
an edge each has its own centres, and none is in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

# Positions are rounded to so many decimals of a voxel: what is off by less is rounding of numbers in files and of
# the way to voxels, which must not decide on which side of an edge a centre lies.
DECIMALS = 5
MOST_CROSSINGS = 1 << 22  # in memory at a time


def fill(polygons: Iterable[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Boolean (rows, columns) of ``shape``: which centres are inside of an odd number of ``polygons``.

    Each polygon is (N, 2), its corners (row, column) in voxels, where the centre of the first voxel is (0, 0); the last
    corner is joined to the first one. What lies outside the slice is cut off.
    """
    rows, columns = shape
    toggles = np.zeros((rows, columns + 1), dtype=np.uint32)
    for polygon in polygons:
        for crossed_rows, crossed_columns in _crossings(np.round(polygon, DECIMALS), rows):
            first_inside = np.clip(np.ceil(crossed_columns), 0, columns).astype(np.int64)
            np.add.at(toggles, (crossed_rows, first_inside), 1)
    return (np.cumsum(toggles[:, :columns], axis=1) & 1).astype(bool)


def _crossings(
    polygon: np.ndarray, rows: int, most_edges: int = MOST_CROSSINGS
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Where the edges cross the lines through the centres of rows: the rows (M,), and the columns (M,) as fractions.

    So many at a time that they take little memory.
    """
    at_once = max(1, most_edges // max(rows, 1))
    following = np.roll(polygon, -1, axis=0)
    for first in range(0, len(polygon), at_once):
        yield _crossings_of_edges(polygon[first : first + at_once], following[first : first + at_once], rows)


def _crossings_of_edges(start: np.ndarray, end: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    goes_down = start[:, 0] <= end[:, 0]
    upper = np.where(goes_down[:, None], start, end)
    lower = np.where(goes_down[:, None], end, start)
    # A row is crossed by an edge that holds its line, the upper end included and the lower one not.
    first = np.clip(np.ceil(upper[:, 0]), 0, rows).astype(np.int64)
    beyond = np.clip(np.ceil(lower[:, 0]), 0, rows).astype(np.int64)
    counts = beyond - first
    edges = np.repeat(np.arange(len(start)), counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    crossed_rows = np.repeat(first, counts) + np.arange(len(edges)) - before
    height = lower[edges, 0] - upper[edges, 0]
    share = (crossed_rows - upper[edges, 0]) / height
    crossed = upper[edges, 1] + share * (lower[edges, 1] - upper[edges, 1])
    return crossed_rows, np.round(crossed, DECIMALS)
