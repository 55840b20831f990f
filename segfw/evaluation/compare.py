"""Two predictions of the same cases against each other, case by case."""

from __future__ import annotations

from collections.abc import Mapping

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
    tables = [value_table({case: scores[case] for case in cases}, labels) for scores in (first, second)]
    for row, case in enumerate(cases):
        for column, label in enumerate(labels):
            outcomes = [scores[case][label].outcome for scores in (first, second)]
            if set(outcomes) == {"both empty", "invented"}:
                empty, invented = (tables[outcomes.index(what)][row, column] for what in ("both empty", "invented"))
                best = np.array([metric.best for metric in METRICS.values()])
                empty[:] = np.where(np.isfinite(invented), best, np.nan)
    return Comparison(
        first=names[0],
        second=names[1],
        cases=cases,
        only_first=tuple(case for case in first if case not in second),
        only_second=tuple(case for case in second if case not in first),
        labels={label: _paired(*(table[:, column] for table in tables)) for column, label in enumerate(labels)},
        foreground=_paired(*_case_means(*tables)),
        second_cases={case: dict(scores) for case, scores in second.items()},
    )


def _paired(first_nm: np.ndarray, second_nm: np.ndarray) -> dict[str, Paired]:
    found = {
        name: paired(first_nm[:, column], second_nm[:, column], metric.larger_is_better)
        for column, (name, metric) in enumerate(METRICS.items())
    }
    return {name: result for name, result in found.items() if result is not None}


def _case_means(first_nlm: np.ndarray, second_nlm: np.ndarray) -> list[np.ndarray]:
    """Means (N, M) over the labels that exist in both."""
    both = np.isfinite(first_nlm) & np.isfinite(second_nlm)
    with np.errstate(invalid="ignore"):
        return [np.where(both, table, 0.0).sum(1) / both.sum(1) for table in (first_nlm, second_nlm)]
