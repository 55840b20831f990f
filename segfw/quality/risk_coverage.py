"""What a score of confidence is worth: whether trusting the most confident masks first leaves the bad ones to the end.

Confidence descends; risk(i) is the mean of 1 - Dice over the i most confident items; AURC is the mean of risk over all
i (Geifman and El-Yaniv 2017). nAURC sets it between that of sorting by the true Dice (0) and that of sorting by nothing
(1). Items of equal confidence are averaged over all their orders.
"""

# N items

from __future__ import annotations

import numpy as np

from segfw.base.records import Record


class ScoreWorth(Record):
    """How well a score tells good masks from bad ones; None where that does not exist.

    ``spearman`` and ``auroc`` (of Dice below what counts as failed) are 1 and ``naurc`` is 0 at best; ``mae`` and
    ``bias`` (score minus Dice) are of scores that claim to be a Dice.
    """

    items: int
    spearman: float | None
    auroc: float | None
    naurc: float | None
    mae: float | None = None
    bias: float | None = None


def risk_curve(confidence_n: np.ndarray, dice_n: np.ndarray) -> np.ndarray:
    """Mean of 1 - Dice over the 1, 2, ... N most confident items, (N,); averaged over the orders of equal ones."""
    confidence = np.asarray(confidence_n, dtype=float)
    order = np.argsort(-confidence, kind="stable")
    # Within equal ones, each place holds the mean of their risks: the expectation over all orders.
    _, group_of = np.unique(-confidence[order], return_inverse=True)
    risks = 1 - np.asarray(dice_n, dtype=float)[order]
    means = np.bincount(group_of, risks) / np.bincount(group_of)
    return np.cumsum(means[group_of]) / np.arange(1, len(risks) + 1)


def aurc(confidence_n: np.ndarray, dice_n: np.ndarray) -> float:
    """Mean of the risk over all coverages; smaller is better."""
    return float(risk_curve(confidence_n, dice_n).mean())


def naurc(confidence_n: np.ndarray, dice_n: np.ndarray) -> float | None:
    """0 of an oracle, 1 of chance, more of what is worse; None where all Dice are equal."""
    best = aurc(dice_n, dice_n)
    chance = float(np.mean(1 - np.asarray(dice_n, dtype=float)))
    if chance - best < 1e-12:
        return None
    return (aurc(confidence_n, dice_n) - best) / (chance - best)


def spearman(first_n: np.ndarray, second_n: np.ndarray) -> float | None:
    """Correlation of ranks, of equal values the mean of their ranks; None where either has one value only."""
    first = ranks_of(first_n)
    second = ranks_of(second_n)
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def auroc(confidence_n: np.ndarray, is_wrong_n: np.ndarray) -> float | None:
    """Chance that a wrong mask has less confidence than a right one, a half where equal; None without both kinds."""
    is_wrong = np.asarray(is_wrong_n, dtype=bool)
    wrong = int(is_wrong.sum())
    right = len(is_wrong) - wrong
    if not wrong or not right:
        return None
    ranks = ranks_of(confidence_n)
    above = float(ranks[~is_wrong].sum()) - right * (right + 1) / 2
    return above / (wrong * right)


def worth_of(
    confidence_n: np.ndarray, dice_n: np.ndarray, is_wrong_n: np.ndarray, *, is_dice: bool = False
) -> ScoreWorth:
    """All figures of one score; items whose score is no number are left out."""
    is_there = np.isfinite(confidence_n)
    confidence = np.asarray(confidence_n, dtype=float)[is_there]
    dice = np.asarray(dice_n, dtype=float)[is_there]
    is_wrong = np.asarray(is_wrong_n, dtype=bool)[is_there]
    if not len(dice):
        return ScoreWorth(items=0, spearman=None, auroc=None, naurc=None)
    return ScoreWorth(
        items=len(dice),
        spearman=spearman(confidence, dice),
        auroc=auroc(confidence, is_wrong),
        naurc=naurc(confidence, dice),
        mae=float(np.abs(confidence - dice).mean()) if is_dice else None,
        bias=float((confidence - dice).mean()) if is_dice else None,
    )


def ranks_of(values_n: np.ndarray) -> np.ndarray:
    """Rank (N,) of each value from 1 on, of equal ones the mean of theirs."""
    _, group_of, counts = np.unique(np.asarray(values_n), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group_of]
