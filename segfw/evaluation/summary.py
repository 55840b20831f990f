"""From the scores of single cases to means, spreads and intervals."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from segfw.evaluation.lesions import pooled
from segfw.evaluation.metrics import (
    METRICS,
    NOT_ANNOTATED,
    LabelScore,
    LabelSummary,
    MeanScores,
    Measures,
    Scores,
    Spread,
    mean,
)
from segfw.evaluation.statistics import LEAST_CASES, RESAMPLES, intervals, resample_means


def summarize(
    cases: Mapping[str, Mapping[str, LabelScore]], notes: Iterable[str] = (), measures: Measures | None = None
) -> Scores:
    """Means over cases and labels of {case id: {label name: score}}; every case must have the same labels."""
    names = tuple(next(iter(cases.values()), {}))
    values_nlm = value_table(cases, names)
    resampled_blm = None
    if len(values_nlm):
        means = resample_means(values_nlm.reshape(len(values_nlm), -1))
        resampled_blm = means.reshape(-1, *values_nlm.shape[1:])
    labels = {}
    for index, name in enumerate(names):
        resampled_bm = None if resampled_blm is None else resampled_blm[:, index]
        scores = [by_label[name] for by_label in cases.values()]
        labels[name] = _summary(scores, values_nlm[:, index], resampled_bm)
    return Scores(
        labels=labels,
        foreground_mean=MeanScores(**_means(labels.values())),
        cases={case: dict(scores) for case, scores in cases.items()},
        notes=tuple(notes),
        foreground_interval=_foreground_interval(values_nlm, resampled_blm),
        measures=measures,
    )


def value_table(cases: Mapping[str, Mapping[str, LabelScore]], names: Iterable[str]) -> np.ndarray:
    """Every metric (last axis) of every label in every case, (cases, labels, metrics); NaN where it does not exist."""
    names = tuple(names)
    table_nlm = np.empty((len(cases), len(names), len(METRICS)))
    for row, scores in enumerate(cases.values()):
        for column, name in enumerate(names):
            table_nlm[row, column] = [getattr(scores[name], metric) for metric in METRICS]  # None becomes NaN
    return table_nlm


def empty_mask_counts(scores: Scores) -> dict[str, int]:
    """How often a label was 'missed', 'invented' and 'both empty', over all cases and labels."""
    found = Counter(score.outcome for by_label in scores.cases.values() for score in by_label.values())
    return {outcome: found[outcome] for outcome in ("missed", "invented", "both empty")}


def empty_mask_sentences(scores: Scores) -> list[str]:
    """What the means do with labels that a mask lacks, of each kind that occurred; nothing where none did."""
    sentences = {
        "missed": "missed: the reference has the label and the prediction lacks it altogether. That counts 0 in every "
        "share, and in HD95 and ASSD the diagonal of the image",
        "invented": "invented: the prediction has a label that the reference lacks. That counts like a missed one, but "
        "has no TPR, specificity or volume difference",
        "both empty": "both empty: neither mask has the label. There are no scores, and the means leave it out",
        NOT_ANNOTATED: "not annotated: nobody drew the label in the case. There are no scores, whatever was predicted, "
        "and the means leave it out",
    }
    counts = empty_mask_counts(scores)
    counts[NOT_ANNOTATED] = sum(label.not_annotated for label in scores.labels.values())
    return [f"{counts[kind]} {sentence}." for kind, sentence in sentences.items() if counts[kind]]


INTERVALS = (
    f"Intervals hold the mean with 95 % confidence: percentiles of {RESAMPLES} bootstrap samples of the cases (seed 0) "
    f"for {LEAST_CASES} cases or more; with fewer than about 20 they tend to be too narrow"
)


def _summary(scores: list[LabelScore], values_nm: np.ndarray, resampled_bm: np.ndarray | None) -> LabelSummary:
    outcomes = Counter(score.outcome for score in scores)
    found: list[tuple[float, float] | None] = []
    if resampled_bm is not None:
        found = intervals(resampled_bm, np.isfinite(values_nm).sum(0))
    spread = {}
    for metric, column, interval in zip(METRICS, values_nm.T, found):
        present = column[np.isfinite(column)]
        if present.size:
            q1, median, q3 = np.percentile(present, (25, 50, 75)).tolist()
            low, high = interval or (None, None)
            std = float(present.std(ddof=1)) if present.size > 1 else None
            spread[metric] = Spread(cases=present.size, median=median, std=std, q1=q1, q3=q3, low=low, high=high)
    return LabelSummary(
        **_means(scores),
        cases=sum(score.dice is not None for score in scores),
        both_empty=outcomes["both empty"],
        missed=outcomes["missed"],
        invented=outcomes["invented"],
        not_annotated=outcomes[NOT_ANNOTATED],
        spread=spread,
        lesions=pooled([score.lesions for score in scores]),
    )


def _foreground_interval(values_nlm: np.ndarray, resampled_blm: np.ndarray | None) -> dict[str, tuple[float, float]]:
    """Interval of the mean over labels of their means over cases, by metric."""
    if resampled_blm is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a metric that exists for no label
        means_bm = np.nanmean(resampled_blm, axis=1)
    found = intervals(means_bm, np.isfinite(values_nlm).any(1).sum(0))
    return {metric: interval for metric, interval in zip(METRICS, found) if interval is not None}


def _means(scores: Iterable[MeanScores]) -> dict[str, float | None]:
    scores = list(scores)
    return {metric: mean(getattr(score, metric) for score in scores) for metric in METRICS}
