"""Minutes that an item of the queue takes a person: assumed at first, and learned from what the ledger has measured.

Beforehand an item takes LOOK_MINUTES for each of its slices and EDIT_MINUTES for each that is expected to be wrong, and
a case that is not open yet OPEN_MINUTES more. All three are assumptions. What is learned is by which factor they are
wrong, whose logarithm is linear in log(1 + slices), log(1 + wrong mm2) and whether the case had to be opened: a ridge
toward 'they are right' that weighs as much as PRIOR_ITEMS measured items. So without a ledger the assumptions stand.
"""

# N items

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segfw.base.records import Record

OPEN_MINUTES = 0.5
LOOK_MINUTES = 0.05  # a slice
EDIT_MINUTES = 0.25  # a slice that is wrong
WRONG_SLICES_PER_LOSS = 3.0  # share of slices that are wrong, by the Dice that is missing: all of them from 1/3 on
PRIOR_ITEMS = 10.0
LEAST_MINUTES = 0.02  # about a second: no item is free
MOST_FACTOR = 10.0  # by which the assumptions may turn out to be wrong
TERMS = ("constant", "log(1+slices)", "log(1+wrong mm2)", "new case")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What minutes depend on, (N,) each: slices to look at, slices and surface expected to be wrong, whether the case
    has to be opened."""

    slices: np.ndarray
    wrong_slices: np.ndarray
    wrong_mm2: np.ndarray
    is_new: np.ndarray

    @property
    def assumed_minutes(self) -> np.ndarray:
        """What they take by the assumptions, (N,)."""
        minutes = OPEN_MINUTES * self.is_new + LOOK_MINUTES * self.slices + EDIT_MINUTES * self.wrong_slices
        return np.maximum(LEAST_MINUTES, minutes)

    @property
    def terms(self) -> np.ndarray:
        """What the correction is linear in, (N, 4)."""
        ones = np.ones(len(self.slices))
        return np.stack([ones, np.log1p(self.slices), np.log1p(self.wrong_mm2), self.is_new.astype(float)], 1)


class MinutesModel(Record):
    """The correction of the assumptions: ``weights`` are of TERMS; ``measured`` items of the ledger went into it."""

    weights: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    measured: int = 0

    def minutes(self, effort: Effort) -> np.ndarray:
        """What the items take, (N,)."""
        log_factor = np.clip(effort.terms @ np.array(self.weights), -np.log(MOST_FACTOR), np.log(MOST_FACTOR))
        return np.maximum(LEAST_MINUTES, effort.assumed_minutes * np.exp(log_factor))


def fitted_minutes(measured: Effort, minutes: Sequence[float] | np.ndarray, usual: Effort) -> MinutesModel:
    """The model of what was measured.

    Parameters
    ----------
    measured
        Items that someone worked on.
    minutes
        What they took, above 0; those of 0 are left out, because nobody looked.
    usual
        Items of the queue: the prior speaks of as many items like these as PRIOR_ITEMS says.
    """
    taken = np.asarray(minutes, dtype=float)
    is_there = taken > 0
    count = int(is_there.sum())
    if not count:
        return MinutesModel()
    terms = measured.terms[is_there]
    # Logs of factors; a single item that was left open over lunch must not count for more than the limit.
    logs = np.log(np.maximum(taken[is_there], LEAST_MINUTES) / measured.assumed_minutes[is_there])
    logs = np.clip(logs, -np.log(MOST_FACTOR), np.log(MOST_FACTOR))
    of_prior = usual.terms if len(usual.slices) else terms
    penalty = of_prior.T @ of_prior * (PRIOR_ITEMS / len(of_prior))
    # Where no item differs in something, such as all being new, nothing is learned of it.
    matrix = terms.T @ terms + penalty + 1e-6 * np.eye(len(TERMS))
    constant, of_slices, of_surface, of_new = np.linalg.solve(matrix, terms.T @ logs).tolist()
    return MinutesModel(weights=(constant, of_slices, of_surface, of_new), measured=count)


def wrong_slices(slices: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """How many of a structure's slices are expected to be wrong, by its predicted Dice; an assumption."""
    return slices * np.clip(WRONG_SLICES_PER_LOSS * (1 - quality), 0, 1)


def ball_surface_mm2(volume_mm3: np.ndarray) -> np.ndarray:
    """Surface of a ball of that volume: the least that anything of the size has."""
    return (36 * np.pi) ** (1 / 3) * np.maximum(volume_mm3, 0) ** (2 / 3)
