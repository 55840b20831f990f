"""Chunked and compressed arrays on disk, of which any box is read without the rest."""

from __future__ import annotations

import os
from pathlib import Path

import blosc2
import numpy as np

from segfw.base.records import whole_file

StoredArray = blosc2.NDArray | np.ndarray  # slicing gives an array, and decompresses only what is asked for

SMALL_ARRAY_VOXELS = 1 << 18
# Cases and batches run in threads already, and blosc2 starts four of its own anew for every array that it writes: the
# one way to stop that is the variable that its library asks.
os.environ["BLOSC_NTHREADS"] = "1"


def open_array(path: Path) -> blosc2.NDArray:
    """Opens an array without reading it."""
    return blosc2.open(str(path), mode="r")


def save_array(path: Path, array: np.ndarray) -> None:
    """Writes an array of one to four axes, atomically."""
    # Blocks are what is decompressed for a patch; chunks are what is written at a time, the fewer the faster. Small
    # arrays are one block: blocks are padded to their full size, of which they would mostly consist.
    is_small = array.size <= SMALL_ARRAY_VOXELS
    blocks, chunks = (
        array.shape if is_small else tuple(min(size, limit) for size, limit in zip(array.shape, limits[-array.ndim :]))
        for limits in ((1, 16, 32, 32), (1, 64, 256, 256))
    )
    if array.ndim == 1:
        blocks = chunks = (max(1, len(array)),)
    # Compressed in memory and written at once: blosc2 itself opens the file anew for every chunk.
    settings = {"codec": blosc2.Codec.ZSTD, "clevel": 1}
    array = np.ascontiguousarray(array)
    compressed = blosc2.asarray(array, chunks=chunks, blocks=blocks, contiguous=True, cparams=settings)
    with whole_file(path) as partial:
        partial.write_bytes(compressed.to_cframe())
