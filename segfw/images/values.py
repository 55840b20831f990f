"""Whole numbers in a mask, counted and looked up in little memory: NumPy widens both to 8 bytes a voxel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

LARGEST_TABLE = 1 << 16  # values further apart than this are sorted or searched for instead of looked up in a table
CHUNK_VOXELS = 1 << 20  # voxels worked on at a time: NumPy widens what it counts or looks up to 8 bytes each
INTEGER_TOLERANCE = 1e-3  # masks stored as scaled or floating numbers come back as 0.99999997


def as_integers(mask: np.ndarray) -> np.ndarray:
    """Integer values of a mask; raises ValueError if a value is no integer, which means it was interpolated.

    Integers come back as they are, booleans as uint8 and floating numbers as int32.
    """
    if mask.dtype.kind in "iub":
        return mask.astype(np.uint8) if mask.dtype.kind == "b" else mask
    with np.errstate(invalid="ignore"):
        rounded = np.rint(mask)
        wrong = ~(np.abs(mask - rounded) <= INTEGER_TOLERANCE)
    if wrong.any():
        example = float(mask[wrong][0])
        raise ValueError(f"holds {int(wrong.sum())} values that are not integers, such as {example:.4g}")
    return rounded.astype(np.int32)


def count_values(mask: np.ndarray, *, chunk_voxels: int = CHUNK_VOXELS) -> dict[int, int]:
    """Voxels of each value of an integer mask, by value in ascending order.

    Values that lie close together are counted ``chunk_voxels`` at a time: NumPy's sort, and its count of all at once,
    take 8 bytes a voxel and time.
    """
    low = int(mask.min())
    high = int(mask.max())
    if high - low >= LARGEST_TABLE:
        values, counts = np.unique(mask, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist()))
    counts = np.zeros(high - low + 1, dtype=np.int64)
    flat = mask.ravel(order="K")  # in the order of memory, so that nothing is copied
    for start in range(0, len(flat), chunk_voxels):
        chunk = flat[start : start + chunk_voxels].astype(np.int64)
        counts += np.bincount(chunk - low, minlength=len(counts))
    present = np.flatnonzero(counts)
    return {int(index) + low: int(counts[index]) for index in present}


def look_up(
    mask: np.ndarray, meaning_of: Mapping[int, int], dtype: DTypeLike, *, chunk_voxels: int = CHUNK_VOXELS
) -> np.ndarray:
    """The meaning, 0 or more, of every voxel's value as ``dtype``; raises ValueError on a value that has none.

    Works on ``chunk_voxels`` at a time, so that little memory is needed beside the result.
    """
    values = np.asarray(sorted(meaning_of))
    meanings = np.asarray([meaning_of[value] for value in values.tolist()])
    result = np.empty(mask.shape, dtype=dtype)
    flat_mask = mask.reshape(-1)
    flat_result = result.reshape(-1)
    for start in range(0, mask.size, chunk_voxels):
        chunk = slice(start, start + chunk_voxels)
        flat_result[chunk] = _meanings(flat_mask[chunk], values, meanings)
    return result


def _meanings(mask: np.ndarray, values: np.ndarray, meanings: np.ndarray) -> np.ndarray:
    """``meanings`` at the places where ``values``, which ascend, hold the mask's; ValueError where they do not."""
    lowest = values[0]
    if values[-1] - lowest < LARGEST_TABLE and mask.dtype.kind in "iub":
        unknown = -1
        table = np.full(values[-1] - lowest + 1, unknown, dtype=np.int32)
        table[values - lowest] = meanings
        place = mask.astype(np.int64) - lowest
        found = table.take(place, mode="clip")
        is_inside = place.min(initial=0) >= 0 and place.max(initial=0) < len(table)
        is_known = is_inside and found.min(initial=0) > unknown
    else:
        place = np.searchsorted(values, mask).clip(0, len(values) - 1)
        found = meanings[place]
        is_known = np.array_equal(values[place], mask)
    if not is_known:
        raise ValueError(f"mask holds values outside {values.tolist()}")
    return found
