"""Means over cases and how sure they are, by drawing patients anew with all their cases, and seeds where that is asked.

Legend: P patients, R runs (one a seed), S structures, B resamples. NaN is a value that does not exist in a case.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from bench.accuracy.results import Result
from segfw.evaluation.metrics import METRICS
from segfw.evaluation.statistics import LEAST_CASES, resample_means

Values = dict[str, np.ndarray]  # by case, (S,)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over structures of their means over cases, and its 95 % interval; None for fewer than five patients."""

    mean: float
    low: float | None
    high: float | None
    of_structures: tuple[float, ...]  # NaN for one that no case has
    cases: int
    patients: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def estimate(runs: Sequence[Values], patient_of: Mapping[str, str], *, draws_runs: bool = False) -> Estimate:
    """The mean over runs of their means over cases, and its interval.

    A patient is drawn with all cases and the same for every run (a cluster bootstrap; Davison and Hinkley 1997, section
    3.8), so that two scans of one heart do not count as two. Cases weigh alike, as in ``segfw evaluate``. With
    ``draws_runs`` runs are drawn as well, independently (a pigeonhole bootstrap; Owen, Annals of Applied Statistics 1,
    2007): then the interval is of patients and seeds that nobody has tried.
    """
    sums_prs, counts_prs = _sums_and_counts(runs, patient_of)
    patients = len(sums_prs)
    columns_pm = np.hstack([sums_prs.reshape(patients, -1), counts_prs.reshape(patients, -1)])
    # Both are means over the same draws of patients, so that their ratio is the mean over the cases drawn.
    drawn_sums_bm, drawn_counts_bm = np.split(resample_means(columns_pm), 2, axis=1)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # a structure that no case, or none that was drawn, has
        means_rs = sums_prs.sum(0) / counts_prs.sum(0)
        mean = float(np.nanmean(means_rs, axis=1).mean())
        drawn_brs = (drawn_sums_bm / drawn_counts_bm).reshape(-1, *means_rs.shape)
        drawn_br = np.nanmean(drawn_brs, axis=2)
        of_structures = np.nanmean(means_rs, axis=0)
    weight_br = np.isfinite(drawn_br).astype(float)  # runs of other folds may have none of the patients drawn
    if draws_runs:
        weight_br *= np.random.default_rng(0).multinomial(len(runs), np.full(len(runs), 1 / len(runs)), len(drawn_br))
    with np.errstate(invalid="ignore"):
        drawn_b = (np.nan_to_num(drawn_br) * weight_br).sum(1) / weight_br.sum(1)
    bounds: list[float | None] = [None, None]
    if patients >= LEAST_CASES:
        bounds = np.nanquantile(drawn_b, expanded_levels(patients)).tolist()
    return Estimate(
        mean=mean,
        low=bounds[0],
        high=bounds[1],
        of_structures=tuple(of_structures.tolist()),
        cases=len({case for values in runs for case in values}),
        patients=patients,
    )


def _sums_and_counts(runs: Sequence[Values], patient_of: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the values that there are, and how many these are, (P, R, S) each."""
    row = {name: number for number, name in enumerate(sorted({patient_of[case] for run in runs for case in run}))}
    structures = len(next(iter(runs[0].values())))
    sums_prs = np.zeros((len(row), len(runs), structures))
    counts_prs = np.zeros_like(sums_prs)
    for column, values in enumerate(runs):
        for case, value_s in values.items():
            sums_prs[row[patient_of[case]], column] += np.nan_to_num(value_s)
            counts_prs[row[patient_of[case]], column] += np.isfinite(value_s)
    return sums_prs, counts_prs


def expanded_levels(patients: int, level: float = 0.95) -> tuple[float, float]:
    """The quantiles of drawn means that bound an interval: for few patients further out than 0.025 and 0.975.

    Drawn means spread too little by the root of (n - 1) / n, and as if the deviation were known: intervals of 5
    patients would leave out the truth in 15 % instead of 5 %, of 40 in 6 % (expanded percentiles; Hesterberg, The
    American Statistician 69, 2015).
    """
    wide = math.sqrt(patients / (patients - 1)) * float(student.ppf(0.5 + level / 2, patients - 1))
    outside = float(norm.cdf(-wide))
    return outside, 1 - outside


def values_of(result: Result, structures: Sequence[str], metric: str) -> Values:
    """One metric of every structure in every case of a result."""
    return {
        case: np.array([scores.structures.get(name, {}).get(metric, np.nan) for name in structures])
        for case, scores in result.cases.items()
    }


def patients_in(results: Sequence[Result]) -> dict[str, str]:
    """Patient of every case."""
    return {case: scores.patient for result in results for case, scores in result.cases.items()}


def by_seed(several: Sequence[tuple[int, Values]]) -> list[Values]:
    """The values of each seed, of all its folds together."""
    merged: dict[int, Values] = {}
    for seed, values in several:
        merged.setdefault(seed, {}).update(values)
    return list(merged.values())


def differences(first: Values, second: Values, metric: str) -> Values:
    """First - second in the cases of both.

    Where one is rightly empty and the other invented the structure, the former counts as perfect, as in ``segfw
    evaluate --compare``.
    """
    best = METRICS[metric].best
    found = {}
    for case in first:
        if case not in second:
            continue
        neither = ~(np.isfinite(first[case]) | np.isfinite(second[case]))
        both = [np.where(np.isfinite(each[case]), each[case], best) for each in (first, second)]
        found[case] = np.where(neither, np.nan, both[0] - both[1])
    return found


def paired_difference(
    first: Sequence[Result],
    second: Sequence[Result],
    structures: Sequence[str],
    metric: str,
    *,
    draws_runs: bool = False,
) -> Estimate | None:
    """First - second, paired by fold, seed and case; None where they have no such pair in common."""
    other = {(result.fold, result.seed): result for result in second}
    pairs = [(result, other[result.fold, result.seed]) for result in first if (result.fold, result.seed) in other]
    found = [
        (one.seed, differences(values_of(one, structures, metric), values_of(two, structures, metric), metric))
        for one, two in pairs
    ]
    return estimate(by_seed(found), patients_in(first), draws_runs=draws_runs) if found else None
