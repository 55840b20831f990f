"""How far a feature is the same again: the intraclass correlation of repeated measurements."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Verdict = Literal["stable", "moderate", "unstable", ""]
STABLE = 0.9  # of the lower bound
MODERATE = 0.75
FEWEST_CASES = 10
CONFIDENCE = 0.95  # of the interval, both ends
FOLLOWS_VOLUME = 0.8  # size of the rank correlation above which a feature says little but the volume


class Agreement(NamedTuple):
    """ICC(1,1) and the lower end of its 95 % interval."""

    icc: float
    low: float


def icc_1_1(values_nk: np.ndarray) -> Agreement | None:
    """Of n cases measured k times each: (MSB - MSW) / (MSB + (k - 1) MSW), one-way random effects.

    The interval is that of Shrout and Fleiss 1979. None for fewer than two cases or measurements, or if all values are
    equal.
    """
    from scipy.stats import f

    cases, times = values_nk.shape
    if cases < 2 or times < 2:
        return None
    means = values_nk.mean(1)
    between = times * float(((means - means.mean()) ** 2).sum()) / (cases - 1)
    within = float(((values_nk - means[:, None]) ** 2).sum()) / (cases * (times - 1))
    scale = float(np.abs(values_nk).max()) ** 2
    if between + within <= 1e-24 * scale or not scale:  # equal but for rounding
        return None
    icc = (between - within) / (between + (times - 1) * within)
    if within <= 1e-24 * scale:
        return Agreement(icc=icc, low=icc)
    limit = float(f.ppf((1 + CONFIDENCE) / 2, cases - 1, cases * (times - 1)))
    ratio = between / within / limit
    return Agreement(icc=icc, low=(ratio - 1) / (ratio + times - 1))


def verdict_of(low: float | None) -> Verdict:
    """By the lower bound; '' where there is none."""
    if low is None:
        return ""
    if low >= STABLE:
        return "stable"
    return "moderate" if low >= MODERATE else "unstable"


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's rho; None of fewer than three pairs, or where one side is all the same."""
    from scipy.stats import rankdata

    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
