"""Whether slices make one volume: distances along their normal that are even, and no two at one place."""

from __future__ import annotations

import numpy as np

from segfw.base.words import count
from segfw.images.voxels import Refusal

UNEVEN = 0.1  # share of the slice distance by which distances may differ: far above rounding, far below a slice


def check_distances(places_mm: np.ndarray, name: str) -> None:
    """Raises Refusal unless sorted places along the normal of slices are even; ``name`` is what has them."""
    steps = np.diff(places_mm)
    usual = float(np.median(steps[steps > 1e-3 * steps.max()])) if steps.max() > 0 else 0.0
    distinct = 1 + int((steps > UNEVEN * usual).sum()) if usual else 1
    if distinct < len(places_mm):
        what = f"{name}: its {count(len(places_mm), 'slice')} lie at {count(distinct, 'position')}, several at one"
        raise Refusal(f"{what} (b-values, echoes or time points?); keep one file per position")
    wrong = np.flatnonzero(np.abs(steps - usual) > UNEVEN * usual)
    if len(wrong):
        first = places_mm[wrong[0]]
        step = steps[wrong[0]]
        what = f"{name}: between {first:.1f} and {first + step:.1f} mm along their normal two slices are {step:.2f} mm "
        what += f"apart, the others {usual:.2f} mm (slices missing?)"
        raise Refusal(f"{what}; complete the series or resample it evenly")
