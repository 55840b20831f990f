"""Bounds that hold for a stated share of new cases, if these come from where the calibration's came from.

Split conformal prediction (Vovk et al. 2005; Lei et al., JASA 2018). With n residuals of calibration and one of a new
case, all exchangeable, the new one is at most the ceil((n + 1)(1 - alpha))-th smallest with a probability of at least
1 - alpha. It is patients that are exchangeable, not their slices or phases: of each patient one residual counts.
"""

# N items, P patients

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

import numpy as np


def conformal_rank(patients: int, alpha: float) -> int | None:
    """Which of the sorted residuals, from 1 on, bounds a new one; None where so few can bound none."""
    # As a fraction of the decimal that was typed: 0.9 x 10 in binary is a little more than 9.
    rank = ceil((patients + 1) * (1 - Fraction(str(alpha))))
    return rank if rank <= patients else None


def least_patients(alpha: float) -> int:
    """The fewest patients of whom a bound can be told: 9 for 0.1."""
    share = Fraction(str(alpha))
    return ceil((1 - share) / share)


def upper_bound(residuals_p: np.ndarray, alpha: float) -> float | None:
    """What a new residual exceeds with a probability of at most ``alpha``; None of too few patients.

    Parameters
    ----------
    residuals_p
        One of each patient.
    alpha
        Above 0, below 1.
    """
    rank = conformal_rank(len(residuals_p), alpha)
    return None if rank is None else float(np.sort(residuals_p)[rank - 1])


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
