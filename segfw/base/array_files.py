"""Chunked and compressed arrays on disk, of which any box is read without the rest.

Blosc2 keeps no checksum, so that a changed byte comes out as other values. A seal follows the frame, whose own length
its header says: a mark and the CRC-32 of all bytes before. What reads such a file checks it first. Files that were
written before there were seals end with the frame.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import blosc2
import numpy as np

from segfw.base.files import whole_file
from segfw.base.records import UserError

StoredArray = blosc2.NDArray | np.ndarray  # slicing gives an array, and decompresses only what is asked for

SMALL_ARRAY_VOXELS = 1 << 18
LARGEST_BLOCK = (1, 16, 32, 32)
LARGEST_CHUNK = (1, 64, 256, 256)
# Cases and batches run in threads already, and blosc2 starts four of its own anew for every array that it writes: the
# one way to stop that is the variable that its library asks.
os.environ["BLOSC_NTHREADS"] = "1"


SEAL_MARK = b"segfwcrc"
SEAL_BYTES = len(SEAL_MARK) + 4
FRAME_LENGTH_AT = slice(16, 24)  # of the frame's header, big-endian
READ_BYTES = 1 << 22  # read at a time while a checksum is made


# What blosc2 raises of a damaged file; the overflow is of a number in its header.
UNREADABLE = (RuntimeError, ValueError, OverflowError, MemoryError, TypeError)


def open_array(path: Path) -> blosc2.NDArray:
    """Opens an array without reading it; UserError if its header is damaged."""
    try:
        return blosc2.open(str(path), mode="r")
    except UNREADABLE as error:
        raise UserError(f"{path}: is damaged ({error}); delete it and make it again, or copy it again") from None


def open_checked_array(path: Path, *, remedy: str) -> blosc2.NDArray:
    """Opens an array whose file was first read whole and found to be as it was written; UserError if it is not.

    A file without a seal, of an older version, is unpacked once: only what blosc2 itself sees of damage is known.
    """
    problem = damage(path)
    if not problem:
        try:
            array = blosc2.open(str(path), mode="r")
            if path.stat().st_size == _frame_bytes(path):  # without a seal: only reading it tells more
                _read_whole(array)
            return array
        except UNREADABLE as error:
            problem = str(error)
    raise UserError(f"{path}: is damaged ({problem}); {remedy}")


def _frame_bytes(path: Path) -> int:
    """How long the frame is by its own header."""
    with open(path, "rb") as file:
        return int.from_bytes(file.read(FRAME_LENGTH_AT.stop)[FRAME_LENGTH_AT], "big")


def _read_whole(array: blosc2.NDArray) -> None:
    """Unpacks every chunk, one after the other along the first axis, and keeps none."""
    step = max(1, array.chunks[0])
    for start in range(0, array.shape[0], step):
        array[start : start + step]


def seal(path: Path) -> None:
    """Writes the seal behind a finished frame."""
    checksum = _crc32(path, path.stat().st_size)
    with open(path, "ab") as file:
        file.write(SEAL_MARK + checksum.to_bytes(4, "big"))


def damage(path: Path) -> str:
    """What is wrong with a file of an array, in words; '' if it is as it was written, or has no seal."""
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        header = file.read(FRAME_LENGTH_AT.stop)
        if len(header) < FRAME_LENGTH_AT.stop:
            return f"it has {size} bytes, fewer than any array"
        frame_bytes = int.from_bytes(header[FRAME_LENGTH_AT], "big")
        file.seek(max(0, size - SEAL_BYTES))
        end = file.read()
    if size == frame_bytes:  # of an older version
        return ""
    if size != frame_bytes + SEAL_BYTES or end[: len(SEAL_MARK)] != SEAL_MARK:
        return f"it has {size} bytes and no seal where its header says that it ends"
    is_right = _crc32(path, frame_bytes).to_bytes(4, "big") == end[len(SEAL_MARK) :]
    return "" if is_right else "its checksum does not fit"


def _crc32(path: Path, count: int) -> int:
    """Of the first ``count`` bytes of a file."""
    checksum = 0
    with open(path, "rb") as file:
        while count > 0:
            part = file.read(min(count, READ_BYTES))
            if not part:
                break
            checksum = zlib.crc32(part, checksum)
            count -= len(part)
    return checksum


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
        seal(partial)


def _at_most(shape: tuple[int, ...], limits: tuple[int, ...]) -> tuple[int, ...]:
    """The shape, cut along each of its axes to the last of ``limits``."""
    return tuple(min(size, limit) for size, limit in zip(shape, limits[-len(shape) :]))
