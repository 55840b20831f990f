"""Patients dealt into folds, each with its share of events."""

from __future__ import annotations

import numpy as np


def stratified_folds(has_event_n: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """The fold of each patient: sizes differ by one at most, and so do the events in them."""
    with_event = rng.permutation(np.flatnonzero(has_event_n))
    without = rng.permutation(np.flatnonzero(~has_event_n))
    fold_n = np.empty(len(has_event_n), dtype=np.int64)
    fold_n[np.concatenate([with_event, without])] = np.arange(len(has_event_n)) % folds
    return fold_n


def events_of(has_event_n: np.ndarray) -> int:
    """The number of patients with the rarer outcome, on which everything stands."""
    events = int(has_event_n.sum())
    return min(events, len(has_event_n) - events)


def permuted_in_folds(has_event_n: np.ndarray, fold_n: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Outcomes dealt anew among the patients of each fold.

    Every fold keeps its events. Where outcomes have nothing to do with features, such an order is as likely as the
    true one, and all that does not look at outcomes stays the same for all orders.
    """
    permuted_n = has_event_n.copy()
    for fold in range(int(fold_n.max()) + 1):
        members = np.flatnonzero(fold_n == fold)
        permuted_n[members] = has_event_n[rng.permutation(members)]
    return permuted_n
