"""Voxels of every pair of classes in one pass: the joint histogram that all overlap scores come from.

Legend: K classes (0 is the background), Z Y X space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Voxels per step of the histogram: bincount widens its input to 8 bytes a voxel, and small steps stay in the cache.
CHUNK_VOXELS = 1 << 17


class Counts(NamedTuple):
    """Voxels of one label: in both masks, in the prediction only, in the reference only."""

    tp: int
    fp: int
    fn: int


def confusion(
    reference_zyx: np.ndarray, prediction_zyx: np.ndarray, classes: int, *, chunk_voxels: int = CHUNK_VOXELS
) -> np.ndarray:
    """Voxels of every pair (reference class, prediction class), int64 (K, K); rows are the reference.

    Both masks hold class indices 0..K-1 on the same grid. Raises ValueError if the shapes differ or a value does not
    fit. Needs a few megabytes beside the masks (and a copy of a mask that is not contiguous).
    """
    if reference_zyx.shape != prediction_zyx.shape:
        raise ValueError(
            f"reference has shape {reference_zyx.shape} and prediction {prediction_zyx.shape}; must be equal"
        )
    for name, mask in (("reference", reference_zyx), ("prediction", prediction_zyx)):
        if mask.size and not (mask.min() >= 0 and mask.max() < classes):
            raise ValueError(f"{name} has classes {mask.min()}..{mask.max()}; must be within 0..{classes - 1}")
    reference = reference_zyx.reshape(-1)
    prediction = prediction_zyx.reshape(-1)
    counts = np.zeros(classes * classes, dtype=np.int64)
    for start in range(0, reference.size, chunk_voxels):
        joint = reference[start : start + chunk_voxels].astype(np.intp)
        joint *= classes
        joint += prediction[start : start + chunk_voxels]
        counts += np.bincount(joint, minlength=counts.size)
    return counts.reshape(classes, classes)


def label_counts(confusion_kk: np.ndarray, classes: int | Sequence[int]) -> Counts:
    """TP, FP and FN voxels of a class, or of the union of several, from a confusion matrix (reference in rows)."""
    members = np.atleast_1d(classes)
    tp = int(confusion_kk[np.ix_(members, members)].sum())
    predicted = int(confusion_kk[:, members].sum())
    wanted = int(confusion_kk[members].sum())
    return Counts(tp=tp, fp=predicted - tp, fn=wanted - tp)


def dice(counts: Sequence[int]) -> float | None:
    """Dice of (tp, fp, fn); None where both masks are empty."""
    tp, fp, fn = counts
    return ratio(2 * tp, 2 * tp + fp + fn)


def ratio(part: float, whole: float) -> float | None:
    """``part / whole``; None if there is no whole."""
    return part / whole if whole else None
