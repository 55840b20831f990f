"""Overlap scores of label masks from one joint histogram per case, and their means over cases.

Legend: K classes (0 is the background), Z Y X space. TP, FP, FN are voxel counts; all metrics lie in 0..1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segfw.records import Record

METRICS = ("dice", "jaccard", "tpr", "precision")

EMPTY_MASK_POLICY = (
    "A label that is in neither mask of a case has no scores there and is left out of the means (both empty); a label "
    "predicted where the reference has none (invented) has Dice, Jaccard and precision 0 and no TPR; a label the "
    "prediction lacks altogether (missed) has 0 in all of them, so that missing a structure never improves a mean."
)

# Voxels per step of the histogram: bincount widens its input to 8 bytes a voxel, which a whole CT cannot afford.
CHUNK_VOXELS = 1 << 20


class LabelScore(Record):
    """Agreement on one label in one case; None is a metric that does not exist there (see ``label_score``)."""

    dice: float | None
    jaccard: float | None
    tpr: float | None
    precision: float | None
    tp: int
    fp: int
    fn: int

    @property
    def outcome(self) -> str:
        """'both empty', 'missed', 'invented', or '' where both masks have the label."""
        in_reference, in_prediction = self.tp + self.fn > 0, self.tp + self.fp > 0
        if in_reference:
            return "" if in_prediction else "missed"
        return "invented" if in_prediction else "both empty"


class MeanScores(Record):
    """Mean of each metric over where it exists; None if it exists nowhere."""

    dice: float | None
    jaccard: float | None
    tpr: float | None
    precision: float | None


class LabelSummary(MeanScores):
    """One label over all cases: means, and how many cases counted for Dice, or had an empty mask of which kind."""

    cases: int
    both_empty: int
    missed: int
    invented: int


class Scores(Record):
    """All scores of an evaluation, as in scores.json. ``foreground_mean`` is the mean over labels of their means."""

    labels: dict[str, LabelSummary]
    foreground_mean: MeanScores
    cases: dict[str, dict[str, LabelScore]]
    empty_mask_policy: str = EMPTY_MASK_POLICY
    notes: tuple[str, ...] = ()


class Counts(NamedTuple):
    """Voxels of one label: in both masks, in the prediction only, in the reference only."""

    tp: int
    fp: int
    fn: int


def confusion(reference_zyx: np.ndarray, prediction_zyx: np.ndarray, classes: int) -> np.ndarray:
    """Voxels of every pair (reference class, prediction class), int64 (K, K); rows are the reference.

    Both masks hold class indices 0..K-1 on the same grid. Raises ValueError if the shapes differ or a value does not
    fit. Needs a few megabytes beside the masks (and a copy of a mask that is not contiguous).
    """
    if reference_zyx.shape != prediction_zyx.shape:
        raise ValueError(
            f"reference has shape {reference_zyx.shape} and prediction {prediction_zyx.shape}; must be equal"
        )
    for name, mask in (("reference", reference_zyx), ("prediction", prediction_zyx)):
        if mask.size and not (mask.min() >= 0 and mask.max() < classes):
            raise ValueError(f"{name} has classes {mask.min()}..{mask.max()}; must be within 0..{classes - 1}")
    reference, prediction = reference_zyx.reshape(-1), prediction_zyx.reshape(-1)
    counts = np.zeros(classes * classes, dtype=np.int64)
    for start in range(0, reference.size, CHUNK_VOXELS):
        joint = reference[start : start + CHUNK_VOXELS].astype(np.intp)
        joint *= classes
        joint += prediction[start : start + CHUNK_VOXELS]
        counts += np.bincount(joint, minlength=counts.size)
    return counts.reshape(classes, classes)


def label_counts(confusion_kk: np.ndarray, classes: int | Sequence[int]) -> Counts:
    """TP, FP and FN voxels of a class, or of the union of several, from a confusion matrix (reference in rows)."""
    members = np.atleast_1d(classes)
    tp = int(confusion_kk[np.ix_(members, members)].sum())
    return Counts(tp, int(confusion_kk[:, members].sum()) - tp, int(confusion_kk[members].sum()) - tp)


def label_score(confusion_kk: np.ndarray, classes: int | Sequence[int]) -> LabelScore:
    """Scores of a class, or of the union of several, from a (K, K) confusion matrix with the reference in rows.

    Empty masks: if both lack the class, every metric is None (left out of means, but counted). If only the reference
    lacks it, Dice, Jaccard and precision are 0, and TPR is None since there was nothing to find. If only the
    prediction lacks it, all are 0, so that missing a structure never raises a mean; that goes for precision too,
    which strictly does not exist there.
    """
    tp, fp, fn = label_counts(confusion_kk, classes)
    return LabelScore(
        dice=_ratio(2 * tp, 2 * tp + fp + fn),
        jaccard=_ratio(tp, tp + fp + fn),
        tpr=_ratio(tp, tp + fn),
        precision=_ratio(tp, tp + fp) if tp + fp or not fn else 0.0,
        tp=tp,
        fp=fp,
        fn=fn,
    )


def summarize(cases: Mapping[str, Mapping[str, LabelScore]], notes: Iterable[str] = ()) -> Scores:
    """Means over cases and labels of {case id: {label name: score}}; every case must have the same labels."""
    names = next(iter(cases.values()), {})
    labels = {name: _summary([scores[name] for scores in cases.values()]) for name in names}
    return Scores(
        labels=labels,
        foreground_mean=MeanScores(**_means(labels.values())),
        cases={case: dict(scores) for case, scores in cases.items()},
        notes=tuple(notes),
    )


def mean_dice(scores: Mapping[str, LabelScore]) -> float | None:
    """Mean Dice of one case over the labels that have one there; None if none has."""
    return _mean(score.dice for score in scores.values())


def scores_table(scores: Scores) -> str:
    """The means of every label as plain text columns, for the console."""
    rows = [("label", "Dice", "Jaccard", "TPR", "precision", "cases", "missed", "invented")]
    for name, label in scores.labels.items():
        counts = (str(label.cases), str(label.missed), str(label.invented))
        rows.append((name, *(_three_digits(getattr(label, metric)) for metric in METRICS), *counts))
    means = scores.foreground_mean
    rows.append(("foreground mean", *(_three_digits(getattr(means, metric)) for metric in METRICS), "", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]) for row in rows]
    return "\n".join(line.rstrip() for line in [*lines, *scores.notes])


def _summary(scores: list[LabelScore]) -> LabelSummary:
    outcomes = [score.outcome for score in scores]
    return LabelSummary(
        **_means(scores),
        cases=sum(score.dice is not None for score in scores),
        both_empty=outcomes.count("both empty"),
        missed=outcomes.count("missed"),
        invented=outcomes.count("invented"),
    )


def _means(scores: Iterable[LabelScore | MeanScores]) -> dict[str, float | None]:
    scores = list(scores)
    return {metric: _mean(getattr(score, metric) for score in scores) for metric in METRICS}


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _three_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
