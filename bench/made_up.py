"""Made-up images on their way through segfw."""

from __future__ import annotations

import numpy as np

from segfw.grid.preprocess import PreprocessRecord
from segfw.images.geometry import Geometry, Shape, Spacing

# Array axes (z, y, x) to millimetres (x, y, z): the affine of an image that lies as segfw stores it.
CANONICAL_AFFINE = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])


def uncropped_record(shape: Shape, spacing_mm: Spacing, network_shape: Shape) -> PreprocessRecord:
    """What preprocessing notes of an image that is resampled as a whole, without a crop, to ``network_shape``."""
    network_mm = tuple(mm * size / kept for mm, size, kept in zip(spacing_mm, shape, network_shape))
    return PreprocessRecord(
        original=Geometry.of(shape, CANONICAL_AFFINE),
        box=tuple((0, size) for size in shape),
        axis_order=(0, 1, 2),
        cropped_shape=shape,
        cropped_spacing_mm=spacing_mm,
        shape=network_shape,
        spacing_mm=network_mm,
    )
