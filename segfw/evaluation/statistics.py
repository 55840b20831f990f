"""How sure a mean over cases is, and whether two sets of predictions of the same cases differ.

Legend: N cases, M columns (a metric of a label), B resamples. NaN is a value that does not exist in a case.
"""

from __future__ import annotations

import warnings

import numpy as np

from segfw.base.records import Record

RESAMPLES = 2000
LEAST_CASES = 5  # fewer hold too little to draw from: an interval would look narrow because they are few
TIE = 1e-9


class Paired(Record):
    """One metric in the cases where both predictions have it: first against second.

    ``difference`` is the mean of first - second with its 95 % bootstrap interval ``low`` to ``high`` (None for fewer
    than LEAST_CASES cases); ``p`` is of Wilcoxon's signed-rank test, two-sided, 1 where nothing differs. ``wins`` are
    cases in which the first is better. Where nothing is better or worse (a bias), they are cases closer to 0.
    """

    cases: int
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    p: float
    wins: int
    losses: int
    ties: int


def resample_means(values_nm: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Means of every column over cases drawn anew with replacement, (B, M); NaN where none drawn has a value.

    All columns see the same draws, so that labels and metrics of one case stay together. One product of matrices, for
    which how often each case was drawn is all that matters.
    """
    cases = len(values_nm)
    drawn_bn = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=RESAMPLES).astype(float)
    exists_nm = np.isfinite(values_nm)
    sums_bm = drawn_bn @ np.where(exists_nm, values_nm, 0.0)
    with np.errstate(invalid="ignore"):
        return sums_bm / (drawn_bn @ exists_nm.astype(float))


def intervals(
    resampled_bm: np.ndarray, cases_m: np.ndarray, *, coverage: float = 0.95
) -> list[tuple[float, float] | None]:
    """Percentile intervals (Efron and Tibshirani 1993, chapter 13) per column; None below LEAST_CASES cases."""
    tail = 100 * (1 - coverage) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of nothing but NaN
        low_m, high_m = np.nanpercentile(resampled_bm, (tail, 100 - tail), axis=0)
    bounds = zip(low_m.tolist(), high_m.tolist())
    return [pair if cases >= LEAST_CASES else None for pair, cases in zip(bounds, cases_m)]


def paired(first: np.ndarray, second: np.ndarray, larger_is_better: bool | None, *, seed: int = 0) -> Paired | None:
    """Compares two values of every case, (N,) each; cases where one is NaN are left out. None without any."""
    from scipy.stats import wilcoxon

    both = np.isfinite(first) & np.isfinite(second)
    first = first[both]
    second = second[both]
    if not len(first):
        return None
    difference = first - second
    is_tie = np.abs(difference) <= TIE
    if larger_is_better is None:
        gain = np.abs(second) - np.abs(first)
    else:
        gain = difference if larger_is_better else -difference
    interval = intervals(resample_means(difference[:, None], seed=seed), np.array([len(first)]))[0]
    low, high = interval or (None, None)
    return Paired(
        cases=len(first),
        first=float(first.mean()),
        second=float(second.mean()),
        difference=float(difference.mean()),
        low=low,
        high=high,
        p=1.0 if is_tie.all() else float(wilcoxon(np.where(is_tie, 0.0, difference)).pvalue),
        wins=int((gain > TIE).sum()),
        losses=int((gain < -TIE).sum()),
        ties=int((np.abs(gain) <= TIE).sum()),
    )
