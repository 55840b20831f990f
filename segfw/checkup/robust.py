"""Outliers among cases, by statistics that a few bad cases cannot move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST_CASES = 8  # below, nobody can say what is usual
THRESHOLD = 6.0  # robust standard deviations; measured values have longer tails than the normal distribution
RAREST_SHARE = 8  # more than one case in eight on one side is a second kind of case, not a slip
NORMAL_QUANTILE = 1.1503  # of the normal distribution at 1 - 1 / RAREST_SHARE
WIDEST_GAP = 0.25  # of the distance to the median lies between an outlier and the case next to it, or it is a tail


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """Which value stands out, by how many robust standard deviations (negative: low), and the range of the others."""

    index: int
    z: float
    usual: tuple[float, float]


def robust_spread(values: np.ndarray) -> float:
    """Standard deviation by the median absolute deviation, which half of the values cannot move."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def find_outliers(values: np.ndarray, *, least: float, threshold: float = THRESHOLD) -> list[Outlier]:
    """Values far from the median on either side; none if there are fewer than FEWEST_CASES.

    The standard deviation of each side is the largest of: the median absolute deviation of all, the distance of the
    quantile that just leaves out as many as may be outliers (both scaled to a normal distribution's and widened where
    cases are few), and what makes a deviation of ``least`` just count.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < FEWEST_CASES:
        return []
    middle = np.median(values)
    few = 1 + 4 / len(values)
    spread = robust_spread(values) * few
    found = []
    for sign in (-1, 1):
        above = sign * (values - middle)
        tail = np.quantile(above, 1 - 1 / RAREST_SHARE, method="lower") / NORMAL_QUANTILE * few
        z = above / max(least / threshold, spread, tail)
        far = np.flatnonzero(z > threshold)
        if not 0 < len(far) <= max(1, len(values) // RAREST_SHARE):
            continue
        if z[far].min() - np.delete(z, far).max() < WIDEST_GAP * z[far].min():
            continue
        others = np.delete(values, far)
        usual = (float(others.min()), float(others.max()))
        found += [Outlier(index=int(index), z=float(sign * z[index]), usual=usual) for index in far]
    return found
