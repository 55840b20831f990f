"""From which predicted quality on masks may be used unseen, so that at most a stated share of them is wrong.

Thresholds are tested from strict to lax, one after the other, and the walk stops at the first that fails (fixed
sequence testing; Angelopoulos et al. 2021, "Learn then test"). Taking the best of all that pass would void the
promise. The walk begins with the smallest number of patients that could pass at all, which is known beforehand.
"""

# P patients, one item each

from __future__ import annotations

from math import ceil, log

import numpy as np

from segfw.base.records import Record

CONFIDENCE = 0.9  # that the share of wrong masks is not larger than said


class UseRule(Record):
    """From which predicted quality on a mask is 'use': ``threshold``, or None, and ``why`` in words.

    ``patients`` were released at the threshold, ``wrong`` of them had a Dice below what counts as failed, and
    ``bound`` is what the share of wrong ones is not larger than, with a confidence of ``confidence``.
    """

    target: float
    confidence: float = CONFIDENCE
    threshold: float | None
    patients: int
    wrong: int
    bound: float | None
    of_patients: int
    why: str


def share_bound(wrong: int, patients: int, confidence: float = CONFIDENCE) -> float:
    """Upper end of Clopper and Pearson's one-sided interval of a share (Biometrika 1934); 1 where all are wrong."""
    from scipy.special import betaincinv

    return 1.0 if wrong >= patients else float(betaincinv(wrong + 1, patients - wrong, confidence))


def least_released(target: float, confidence: float = CONFIDENCE) -> int:
    """The fewest patients, none of them wrong, that show a share of at most ``target``: 45 for 5 %, 22 for 10 %."""
    found = ceil(log(1 - confidence) / log(1 - target) - 1e-9)
    return max(1, found)


def use_rule(quality_p: np.ndarray, is_wrong_p: np.ndarray, target: float, confidence: float = CONFIDENCE) -> UseRule:
    """Walks from the best quality down, and stops before the first threshold at which the bound exceeds the target.

    Parameters
    ----------
    quality_p
        Predicted quality, by a model that did not see the patient; one item of each.
    is_wrong_p
        Whether its Dice is below what counts as failed.
    target
        Largest share of wrong ones among those that are released: above 0, below 1.
    confidence
        With which that holds.

    Returns
    -------
    UseRule
        Without a threshold where there are too few patients, or where the first one fails.
    """
    order = np.argsort(-quality_p, kind="stable")
    quality = quality_p[order]
    wrong_until = np.cumsum(is_wrong_p[order])
    total = len(quality)
    first = least_released(target, confidence)
    best: tuple[int, int, float] | None = None
    for number in range(first, total + 1):
        if number < total and quality[number] == quality[number - 1]:
            continue  # whoever releases the one releases the other too
        wrong = int(wrong_until[number - 1])
        bound = share_bound(wrong, number, confidence)
        if bound > target:
            break
        best = (number, wrong, bound)
    said = f"at most {100 * target:g} % wrong with {100 * confidence:g} % confidence"
    if best is None:
        why = (
            f"{total} patients are too few for {said}, which takes {first} without any wrong mask"
            if total < first
            else f"among the best {first} of {total} patients too many masks are wrong for {said}"
        )
        return UseRule(
            target=target,
            confidence=confidence,
            threshold=None,
            patients=0,
            wrong=0,
            bound=None,
            of_patients=total,
            why=why,
        )
    number, wrong, bound = best
    return UseRule(
        target=target,
        confidence=confidence,
        threshold=float(quality[number - 1]),
        patients=number,
        wrong=wrong,
        bound=bound,
        of_patients=total,
        why=f"{number} of {total} patients are released and {wrong} of them wrongly: {said}",
    )
