"""Outliers among cases, by statistics that a few bad cases cannot move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST_CASES = 8  # below, nobody can say what is usual
THRESHOLD = 6.0  # robust standard deviations; measured values have longer tails than the normal distribution
RAREST_SHARE = 8  # more than one case in eight on one side is a second kind of case, not a slip
WIDEST_GAP = 0.25  # of the distance to the median lies between an outlier and the case next to it, or it is a tail


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """Which value stands out, by how many robust standard deviations (negative: low), and the range of the others."""

    index: int
    z: float
    usual: tuple[float, float]


def find_outliers(values: np.ndarray, *, floor: float, threshold: float = THRESHOLD) -> list[Outlier]:
    """Values far from the median on either side; none if there are fewer than FEWEST_CASES.

    The standard deviation of each side is the largest of: the median absolute deviation of all, the distance of the
    side's 10 % quantile (both scaled to a normal distribution's), and ``floor``; widened where cases are few.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < FEWEST_CASES:
        return []
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    found = []
    for sign in (-1, 1):
        above = sign * (values - middle)
        tail = np.quantile(above, 0.9, method="lower") / 1.2816
        z = above / max(floor, max(spread, tail) * (1 + 4 / len(values)))
        far = np.flatnonzero(z > threshold)
        if not 0 < len(far) <= max(1, len(values) // RAREST_SHARE):
            continue
        if z[far].min() - np.delete(z, far).max() < WIDEST_GAP * z[far].min():
            continue
        others = np.delete(values, far)
        usual = (float(others.min()), float(others.max()))
        found += [Outlier(index=int(index), z=float(sign * z[index]), usual=usual) for index in far]
    return found
