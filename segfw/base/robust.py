"""Outliers among cases, by statistics that a few bad cases cannot move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST_CASES = 8  # below, nobody can say what is usual
THRESHOLD = 6.0  # robust standard deviations; measured values have longer tails than the normal distribution
RAREST_SHARE = 8  # more than one case in eight on one side is a second kind of case, not a slip
NORMAL_QUANTILE = 1.15  # of the normal distribution at 1 - 1 / RAREST_SHARE
MAD_TO_STD = 1.4826  # of a normal distribution: its deviation in median absolute deviations
WIDEST_GAP = 0.25  # of the distance to the median lies between an outlier and the case next to it, or it is a tail


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """Which value stands out, by how many robust standard deviations (negative: low), and the range of the others."""

    index: int
    z: float
    usual: tuple[float, float]


def most_outliers(cases: int) -> int:
    """How many of so many cases may be slips; more than that are a second kind of case."""
    return -(-cases // RAREST_SHARE)


def robust_spread(values: np.ndarray) -> float:
    """Standard deviation by the median absolute deviation, which half of the values cannot move."""
    return float(MAD_TO_STD * np.median(np.abs(values - np.median(values))))


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
    few = 1 + 2 / len(values)
    most = most_outliers(len(values))
    spread = robust_spread(values) * few
    found = []
    for sign in (-1, 1):
        above = sign * (values - middle)
        tail = np.sort(above)[-most - 1] / NORMAL_QUANTILE * few
        z = above / max(least / threshold, spread, tail)
        far = np.flatnonzero(z > threshold)
        if not 0 < len(far) <= most:
            continue
        if z[far].min() - np.delete(z, far).max() < WIDEST_GAP * z[far].min():
            continue
        others = np.delete(values, far)
        usual = (float(others.min()), float(others.max()))
        found += [Outlier(index=int(index), z=float(sign * z[index]), usual=usual) for index in far]
    return found
