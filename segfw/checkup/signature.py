"""Whether two images show the same scan: told from the fine structure of small, coarse copies of them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

GRID = (24, 24, 24)  # blocks that every image is averaged over, in proportion to its size
GRID_2D = (1, 48, 48)
MOST_SAMPLES = 128  # voxels per axis that are averaged; of larger images every n-th is taken


def signature(image_czyx: np.ndarray) -> np.ndarray:
    """Fine structure of the first channel, of unit length: block means less their neighbourhood's mean.

    The overall shape, which all patients share, is taken out with the neighbourhood; a shift, a scale, noise or
    another data type change little. All zero where there is no structure.
    """
    image = image_czyx[0]
    steps = [-(-size // MOST_SAMPLES) for size in image.shape]
    image = image[tuple(slice(None, None, step) for step in steps)].astype(np.float32)
    low, high = np.percentile(image, (1, 99))
    grid = GRID if min(image.shape) > 1 else GRID_2D
    blocks = image.clip(low, high)
    for axis, blocks_along in enumerate(grid):
        blocks = np.moveaxis(np.tensordot(_averaging(image.shape[axis], blocks_along), blocks, (1, axis)), 0, axis)
    fine = blocks - ndimage.uniform_filter(blocks, 5, mode="nearest")
    length = float(np.linalg.norm(fine))
    rounding = 1e-4 * max(abs(low), abs(high))
    return (fine / length if length > rounding else fine * 0).astype(np.float32)


def _averaging(size: int, blocks: int) -> np.ndarray:
    """Matrix (blocks, size) of mean values over blocks of equal length, parts of voxels counted as such."""
    edges = np.linspace(0, size, blocks + 1)
    starts = edges[:-1, None]
    stops = edges[1:, None]
    voxels = np.arange(size)
    overlap = (np.minimum(stops, voxels + 1) - np.maximum(starts, voxels)).clip(0)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)
