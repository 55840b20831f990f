"""Figures of what was said of kept-out masks: means over the quality models, with intervals by patient.

Every figure is the mean over S quality models, each fitted on other patients of the calibration. Its 95 % interval
comes from the kept-out patients drawn anew, DRAWS times with all their masks, for all models alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bench.trust.judged import ARE_DICE, PAIR, PREDICTED, SHIPPED, KeptMasks, Split
from bench.trust.kept_cases import TrustedModel
from segfw.base.records import Record
from segfw.quality.quality_model import CLEAN
from segfw.quality.risk_coverage import auroc, naurc, spearman

DRAWS = 100
LEAST_PATIENTS = 5
POOLED = "all"

OfMasks = Callable[[np.ndarray, np.ndarray, np.ndarray], float | None]


class Figure(Record):
    """A mean over quality models, and its interval; None where it does not exist, or patients are too few."""

    mean: float | None
    low: float | None = None
    high: float | None = None


class ScoreRow(Record):
    """What one score is worth on the masks of one kind: CLEAN, a shift, or POOLED."""

    score: str
    kind: str
    masks: int
    failed: int
    naurc: Figure
    spearman: Figure
    auroc: Figure
    mae: Figure
    bias: Figure


class DifferenceRow(Record):
    """nAURC of a score less that of pairwise fold Dice, by the same draws: below 0 is better."""

    score: str
    kind: str
    difference: Figure


class BoundRow(Record):
    """The 90 % bound under one shift: of models that saw the shift in their fit, and of such that did not."""

    kind: str
    masks: int
    dice: float
    covered: Figure
    margin: Figure
    covered_unseen: Figure
    mae_unseen: Figure
    bias_unseen: Figure


class UseRow(Record):
    """The verdict 'use': share of the good masks that get it, and share of failed ones among those that do."""

    kind: str
    good: int
    models_with_use: int
    good_released: Figure
    wrong_share: Figure


class GateRow(Record):
    """The input gate under one shift: share of images called odd or far, and AUROC of its score against clean ones."""

    kind: str
    images: int
    flagged: float | None
    auroc: float | None


class _Draws:
    """Rows of the masks of drawn patients; the first are those of all patients once."""

    def __init__(self, patients: np.ndarray, draws: int, seed: int = 0) -> None:
        names, group_of = np.unique(patients, return_inverse=True)
        members = [np.flatnonzero(group_of == index) for index in range(len(names))]
        rng = np.random.default_rng(seed)
        self.every = np.arange(len(patients))
        self.drawn: list[np.ndarray] = []
        if len(names) >= LEAST_PATIENTS:
            for _ in range(draws):
                self.drawn.append(np.concatenate([members[one] for one in rng.integers(len(names), size=len(names))]))

    def figure(self, of_rows: Callable[[np.ndarray], float | None]) -> Figure:
        """The figure of all masks, and the interval of those of the draws."""
        mean = of_rows(self.every)
        found = [value for value in (of_rows(rows) for rows in self.drawn) if value is not None]
        if mean is None or len(found) < max(1, len(self.drawn) // 2):
            return Figure(mean=mean)
        low, high = np.percentile(found, (2.5, 97.5)).tolist()
        return Figure(mean=mean, low=low, high=high)


def _over_models(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(present)) if present else None


def kinds_of(masks: KeptMasks) -> list[str]:
    """POOLED, CLEAN, and every shift."""
    shifts = sorted(set(masks.shift.tolist()) - {CLEAN})
    return [POOLED, CLEAN, *shifts]


def masks_of_kind(masks: KeptMasks, kind: str) -> KeptMasks:
    """Those of one shift, or all."""
    return masks if kind == POOLED else masks.of(masks.shift == kind)


def score_rows(masks: KeptMasks, kinds: Sequence[str], draws: int = DRAWS) -> list[ScoreRow]:
    """What every score is worth."""
    rows = []
    for kind in kinds:
        chosen = masks_of_kind(masks, kind)
        drawn = _Draws(chosen.patient, draws)
        for score, values_sj in chosen.scores.items():
            rows.append(
                ScoreRow(
                    score=score,
                    kind=kind,
                    masks=len(chosen.dice),
                    failed=int(chosen.is_wrong.sum()),
                    naurc=drawn.figure(_of_score(values_sj, lambda s, dice, _: naurc(s, dice), chosen)),
                    spearman=drawn.figure(_of_score(values_sj, lambda s, dice, _: spearman(s, dice), chosen)),
                    auroc=drawn.figure(_of_score(values_sj, lambda s, _, wrong: auroc(s, wrong), chosen)),
                    mae=_of_dice(drawn, score, values_sj, chosen, np.abs),
                    bias=_of_dice(drawn, score, values_sj, chosen, lambda difference: difference),
                )
            )
    return rows


def _of_score(values_sj: np.ndarray, worth: OfMasks, masks: KeptMasks) -> Callable[[np.ndarray], float | None]:
    """The figure of drawn rows, as mean over the models; masks of which a score says nothing are the least sure."""
    filled_sj = np.where(np.isfinite(values_sj), values_sj, -1e9)

    def of_rows(rows: np.ndarray) -> float | None:
        return _over_models([worth(s[rows], masks.dice[rows], masks.is_wrong[rows]) for s in filled_sj])

    return of_rows


def _of_dice(
    drawn: _Draws,
    score: str,
    values_sj: np.ndarray,
    masks: KeptMasks,
    of_difference: Callable[[np.ndarray], np.ndarray],
) -> Figure:
    """Mean over masks of something of score less Dice, of scores that claim to be a Dice."""
    if score not in ARE_DICE:
        return Figure(mean=None)
    return drawn.figure(_mean_of(of_difference(values_sj - masks.dice)))


def _mean_of(values_sj: np.ndarray) -> Callable[[np.ndarray], float | None]:
    """Mean over masks and models of what there is, of drawn rows."""

    def of_rows(rows: np.ndarray) -> float | None:
        drawn = values_sj[:, rows]
        exists = np.isfinite(drawn)
        if not exists.any():
            return None
        sums = np.where(exists, drawn, 0.0).sum(1)
        counts = exists.sum(1)
        return _over_models((sums[counts > 0] / counts[counts > 0]).tolist())

    return of_rows


def difference_rows(masks: KeptMasks, kinds: Sequence[str], draws: int = DRAWS) -> list[DifferenceRow]:
    """Of the shipped ranking and of the predicted Dice; nothing of one fold, which has no pairs."""
    rows: list[DifferenceRow] = []
    for kind in kinds:
        chosen = masks_of_kind(masks, kind)
        if PAIR not in chosen.scores:
            continue
        drawn = _Draws(chosen.patient, draws)
        pair = _of_score(chosen.scores[PAIR], lambda s, dice, _: naurc(s, dice), chosen)
        for score in (SHIPPED, PREDICTED):
            own = _of_score(chosen.scores[score], lambda s, dice, _: naurc(s, dice), chosen)
            rows.append(DifferenceRow(score=score, kind=kind, difference=drawn.figure(_less(own, pair))))
    return rows


def _less(
    first: Callable[[np.ndarray], float | None], second: Callable[[np.ndarray], float | None]
) -> Callable[[np.ndarray], float | None]:
    def of_rows(rows: np.ndarray) -> float | None:
        one = first(rows)
        other = second(rows)
        return None if one is None or other is None else one - other

    return of_rows


def bound_rows(masks: KeptMasks, kinds: Sequence[str], draws: int = DRAWS) -> list[BoundRow]:
    """Coverage of the bound, by models that saw the shift and by such that did not."""
    rows = []
    for kind in kinds:
        chosen = masks_of_kind(masks, kind)
        drawn = _Draws(chosen.patient, draws)
        missed_sj = chosen.unseen_predicted - chosen.dice
        rows.append(
            BoundRow(
                kind=kind,
                masks=len(chosen.dice),
                dice=float(chosen.dice.mean()),
                covered=drawn.figure(_mean_of(_covered(chosen.lower, chosen.dice))),
                margin=drawn.figure(_mean_of(chosen.scores[PREDICTED] - chosen.lower)),
                covered_unseen=drawn.figure(_mean_of(_covered(chosen.unseen_lower, chosen.dice))),
                mae_unseen=drawn.figure(_mean_of(np.abs(missed_sj))),
                bias_unseen=drawn.figure(_mean_of(missed_sj)),
            )
        )
    return rows


def _covered(lower_sj: np.ndarray, dice_j: np.ndarray) -> np.ndarray:
    """1 where the Dice is not below its bound, 0 where it is, NaN where there is no bound."""
    return np.where(np.isfinite(lower_sj), (dice_j >= lower_sj).astype(float), np.nan)


def use_rows(masks: KeptMasks, kinds: Sequence[str], splits: Sequence[Split], draws: int = DRAWS) -> list[UseRow]:
    """What the verdict 'use' releases, and how much of it is wrong."""
    models = sum(split.model.use_rule.threshold is not None for split in splits)
    rows = []
    for kind in kinds:
        chosen = masks_of_kind(masks, kind)
        drawn = _Draws(chosen.patient, draws)
        released_sj = np.where(chosen.is_wrong, np.nan, chosen.used.astype(float))
        wrong_sj = np.where(chosen.used, chosen.is_wrong.astype(float), np.nan)
        rows.append(
            UseRow(
                kind=kind,
                good=int((~chosen.is_wrong).sum()),
                models_with_use=models,
                good_released=drawn.figure(_mean_of(released_sj)),
                wrong_share=drawn.figure(_mean_of(wrong_sj)),
            )
        )
    return rows


def gate_rows(model: TrustedModel, gates: Mapping[tuple[str, str], np.ndarray]) -> list[GateRow]:
    """What the gates of all models say of the images."""
    rows = []
    of_kind = {
        kind: np.array([scores for (_, shift), scores in gates.items() if shift == kind]).T
        for kind in (CLEAN, *model.shifts)
    }
    for kind, scores_sn in of_kind.items():
        images = scores_sn.shape[1]
        if not np.isfinite(scores_sn).all():
            rows.append(GateRow(kind=kind, images=images, flagged=None, auroc=None))
            continue
        is_shift = np.repeat([False, True], images)
        found = [auroc(-np.concatenate([clean, own]), is_shift) for clean, own in zip(of_kind[CLEAN], scores_sn)]
        rows.append(
            GateRow(
                kind=kind,
                images=images,
                flagged=float((scores_sn > 1).mean()),
                auroc=None if kind == CLEAN else _over_models(found),
            )
        )
    return rows
