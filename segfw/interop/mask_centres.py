"""How many voxels of a series each structure has, and where their centre is: what every written file is held to."""

from __future__ import annotations

import numpy as np

from segfw.interop.reference_series import ReferenceSeries

CENTROID_MM = 0.01  # by which a written structure may be off: far more than the rounding of decimals


def sizes_and_centres(numbers_zyx: np.ndarray, series: ReferenceSeries) -> dict[int, tuple[int, np.ndarray]]:
    """{structure: (voxels, LPS centre in mm)} of all that are there, by the place of each slice."""
    most = int(numbers_zyx.max(initial=0)) + 1
    sums = np.zeros((most, 4))
    _, height, width = numbers_zyx.shape
    row_of = np.repeat(np.arange(height), width)
    column_of = np.tile(np.arange(width), height)
    for z, numbers_yx in enumerate(numbers_zyx):
        inside = np.flatnonzero(numbers_yx)
        numbers = numbers_yx.ravel()[inside].astype(np.int64)
        amount = np.bincount(numbers, minlength=most)
        y_sum = np.bincount(numbers, weights=row_of[inside], minlength=most)
        x_sum = np.bincount(numbers, weights=column_of[inside], minlength=most)
        along_y, along_x = series.steps_mm[z]
        sums[:, 0] += amount
        sums[:, 1:] += np.outer(amount, series.positions_mm[z]) + np.outer(y_sum, along_y) + np.outer(x_sum, along_x)
    return {number: (int(row[0]), row[1:] / row[0]) for number, row in enumerate(sums) if number and row[0]}
