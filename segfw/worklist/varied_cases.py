"""For the model rather than for the masks: cases that are worth correcting and unlike one another.

A batch of the worst cases may be twenty copies of one problem. Among the third of cases that pays most, each next one
is that which is farthest from all before it (greedy k-centre, Sener and Savarese 2018). Distances are of the features
of all structures as ``quality/CASE.json`` tells them (means over folds), each in standard deviations over the cases:
what networks compute at their bottleneck is not kept with the masks.
"""

# C cases, F features of all structures

from __future__ import annotations

import numpy as np

SHARE = 1 / 3  # of the cases, among which variety counts
MOST_DEVIATIONS = 4.0


def standardised(features_csf: np.ndarray) -> np.ndarray:
    """Features of each case, (C, F), in standard deviations over the cases; 0 where there is none."""
    flat = features_csf.reshape(len(features_csf), -1).astype(np.float64)
    is_there = np.isfinite(flat)
    counts = np.maximum(1, is_there.sum(0))
    means = np.where(is_there, flat, 0).sum(0) / counts
    away = np.where(is_there, flat - means, 0)
    deviations = np.sqrt((away**2).sum(0) / counts)
    is_told = deviations > 1e-9
    scaled = away[:, is_told] / deviations[is_told]
    return np.clip(scaled, -MOST_DEVIATIONS, MOST_DEVIATIONS)


def varied_order(worth_c: np.ndarray, features_cf: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Numbers of all cases: the worthiest first, then of the worthiest third always the one least like those before
    it, then the others by what they are worth."""
    by_worth = np.argsort(-worth_c, kind="stable")
    number = min(len(by_worth), max(1, round(share * len(by_worth)))) if len(by_worth) else 0
    first = by_worth[:number]
    if number < 2:
        return by_worth
    rows = features_cf[first]
    nearest = np.full(number, np.inf)
    order = [0]
    while len(order) < number:
        nearest = np.minimum(nearest, ((rows - rows[order[-1]]) ** 2).sum(1))
        nearest[order] = -1.0
        order.append(int(np.argmax(nearest)))  # of equal ones the worthier
    return np.concatenate([first[order], by_worth[number:]])
