"""Monotone maps from a score to a value: pool adjacent violators, and straight lines between the blocks.

Ayer et al., Annals of Mathematical Statistics 1955. Of all non-decreasing functions of the score this one has the least
squared error in the items that it was fitted on.
"""

# N items

from __future__ import annotations

import numpy as np
from pydantic import model_validator

from segfw.base.records import Record


class IsotonicMap(Record):
    """A monotone function by its knots: straight lines between them, and flat outside.

    ``at`` rises strictly; ``values`` never fall, or never rise.
    """

    at: tuple[float, ...]
    values: tuple[float, ...]

    @model_validator(mode="after")
    def _is_monotone(self) -> IsotonicMap:
        if len(self.at) != len(self.values) or not self.at:
            raise ValueError("needs one value per knot, and at least one")
        if np.any(np.diff(self.at) <= 0):
            raise ValueError("knots must rise")
        steps = np.diff(self.values)
        if np.any(steps < 0) and np.any(steps > 0):
            raise ValueError("values must all rise or all fall")
        return self

    def __call__(self, scores_n: np.ndarray) -> np.ndarray:
        """Values (N,) of scores (N,)."""
        return np.interp(np.asarray(scores_n, dtype=float), self.at, self.values)


def fit_isotonic(
    scores_n: np.ndarray, targets_n: np.ndarray, weights_n: np.ndarray | None = None, *, is_rising: bool = True
) -> IsotonicMap:
    """The monotone map of least weighted squared error.

    Parameters
    ----------
    scores_n, targets_n
        What is known of each item, and what is to be told of it.
    weights_n
        How much each item counts; by default all the same.
    is_rising
        False for a map that falls.

    Returns
    -------
    IsotonicMap
        A knot at the mean score of each block of equal values.

    Raises
    ------
    ValueError
        If there is no item.
    """
    scores = np.asarray(scores_n, dtype=float)
    if not len(scores):
        raise ValueError("no item to fit a monotone map on")
    sign = 1.0 if is_rising else -1.0
    weights = np.ones(len(scores)) if weights_n is None else np.asarray(weights_n, dtype=float)
    # Items of one score have one value.
    at, group_of = np.unique(scores, return_inverse=True)
    weight_of = np.bincount(group_of, weights)
    target_of = sign * np.bincount(group_of, weights * np.asarray(targets_n, dtype=float)) / weight_of
    blocks = _pooled(at, target_of, weight_of)
    return IsotonicMap(
        at=tuple(block[0] for block in blocks),
        values=tuple(sign * block[1] + 0.0 for block in blocks),  # + 0.0: no -0
    )


def _pooled(at: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> list[tuple[float, float, float]]:
    """Blocks (mean score, value, weight) whose values rise strictly."""
    blocks: list[tuple[float, float, float]] = []
    for place, target, weight in zip(at.tolist(), targets.tolist(), weights.tolist()):
        block = (place, target, weight)
        while blocks and blocks[-1][1] >= block[1]:
            block = _joined(blocks.pop(), block)
        blocks.append(block)
    return blocks


def _joined(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float, float]:
    weight = first[2] + second[2]
    place = (first[0] * first[2] + second[0] * second[2]) / weight
    value = (first[1] * first[2] + second[1] * second[2]) / weight
    return place, value, weight
