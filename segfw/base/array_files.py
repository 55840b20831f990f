"""Chunked and compressed arrays on disk, of which any box is read without the rest."""

from __future__ import annotations

import os
from pathlib import Path

import blosc2
import numpy as np

from segfw.base.files import whole_file

StoredArray = blosc2.NDArray | np.ndarray  # slicing gives an array, and decompresses only what is asked for

SMALL_ARRAY_VOXELS = 1 << 18
LARGEST_BLOCK = (1, 16, 32, 32)
LARGEST_CHUNK = (1, 64, 256, 256)
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
    blocks: tuple[int, ...]
    chunks: tuple[int, ...]
    if array.ndim == 1:
        blocks = (max(1, len(array)),)
        chunks = blocks
    elif array.size <= SMALL_ARRAY_VOXELS:
        blocks = array.shape
        chunks = blocks
    else:
        blocks = _at_most(array.shape, LARGEST_BLOCK)
        chunks = _at_most(array.shape, LARGEST_CHUNK)
    # Compressed in memory and written at once: blosc2 itself opens the file anew for every chunk.
    compression = {"codec": blosc2.Codec.ZSTD, "clevel": 1}
    array = np.ascontiguousarray(array)
    compressed = blosc2.asarray(array, chunks=chunks, blocks=blocks, contiguous=True, cparams=compression)
    with whole_file(path) as partial:
        partial.write_bytes(compressed.to_cframe())


def _at_most(shape: tuple[int, ...], limits: tuple[int, ...]) -> tuple[int, ...]:
    """The shape, cut along each of its axes to the last of ``limits``."""
    return tuple(min(size, limit) for size, limit in zip(shape, limits[-len(shape) :]))
