"""Two predictions of the same cases against each other, case by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segfw.evaluation.metrics import METRICS, Comparison, LabelScore
from segfw.evaluation.statistics import Paired, paired
from segfw.evaluation.summary import value_table


def compare_cases(
    first: Mapping[str, Mapping[str, LabelScore]],
    second: Mapping[str, Mapping[str, LabelScore]],
    names: tuple[str, str],
) -> Comparison:
    """Compares {case id: {label: score}} of two predictions, called ``names``, in the cases that both have."""
    cases = tuple(case for case in first if case in second)
    labels = tuple(next(iter(first.values()), {}))
    first_nlm, second_nlm = paired_tables(first, second, cases, labels)
    return Comparison(
        first=names[0],
        second=names[1],
        cases=cases,
        only_first=tuple(case for case in first if case not in second),
        only_second=tuple(case for case in second if case not in first),
        labels={label: _paired(first_nlm[:, column], second_nlm[:, column]) for column, label in enumerate(labels)},
        foreground=_paired(*case_means(first_nlm, second_nlm)),
        second_cases={case: dict(scores) for case, scores in second.items()},
    )


def paired_tables(
    first: Mapping[str, Mapping[str, LabelScore]],
    second: Mapping[str, Mapping[str, LabelScore]],
    cases: Sequence[str],
    labels: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Every metric of every label in the same cases by both, (N, L, M) each; NaN where it does not exist.

    Where one is rightly empty and the other invented the label, the former counts as perfect, as it is a pair.
    """
    first_nlm = value_table({case: first[case] for case in cases}, labels)
    second_nlm = value_table({case: second[case] for case in cases}, labels)
    best_m = np.array([metric.best for metric in METRICS.values()])
    for row, case in enumerate(cases):
        for column, label in enumerate(labels):
            outcomes = (first[case][label].outcome, second[case][label].outcome)
            values = (first_nlm[row, column], second_nlm[row, column])
            if set(outcomes) == {"both empty", "invented"}:
                empty_m = values[outcomes.index("both empty")]
                invented_m = values[outcomes.index("invented")]
                empty_m[:] = np.where(np.isfinite(invented_m), best_m, np.nan)
    return first_nlm, second_nlm


def _paired(first_nm: np.ndarray, second_nm: np.ndarray) -> dict[str, Paired]:
    found = {
        name: paired(first_nm[:, column], second_nm[:, column], metric.larger_is_better)
        for column, (name, metric) in enumerate(METRICS.items())
    }
    return {name: result for name, result in found.items() if result is not None}


def case_means(first_nlm: np.ndarray, second_nlm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (N, M) over the labels that exist in both."""
    both = np.isfinite(first_nlm) & np.isfinite(second_nlm)
    with np.errstate(invalid="ignore"):
        first_nm = np.where(both, first_nlm, 0.0).sum(1) / both.sum(1)
        second_nm = np.where(both, second_nlm, 0.0).sum(1) / both.sum(1)
    return first_nm, second_nm
