"""Beside the quantile of ``patient_quantile``: one item of each patient, and how far coverage is off by chance."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np


def one_of_each_patient(patients: Sequence[str], seed: int = 0) -> np.ndarray:
    """Indices of one item of each patient, drawn, in the order in which patients first appear."""
    rng = np.random.default_rng(seed)
    drawn = rng.random(len(patients))
    best: dict[str, int] = {}
    for index, patient in enumerate(patients):
        if patient not in best or drawn[index] < drawn[best[patient]]:
            best[patient] = index
    return np.array(list(best.values()), dtype=int)


def coverage_spread(patients: int, alpha: float) -> float:
    """Standard deviation of the coverage over calibration sets of so many patients; 0.046 of 40 for 0.1.

    The coverage of one bound, over endlessly many new cases, is Beta(n + 1 - l, l) with l = floor((n + 1) alpha).
    """
    failing = int((patients + 1) * Fraction(str(alpha)))
    total = patients + 1
    return float(np.sqrt((total - failing) * failing / (total**2 * (total + 1))))
