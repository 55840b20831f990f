"""A quantile whose unit is the patient: images of one patient are alike, and count together as one.

With one image a patient it is the conformal quantile: the ceil((n + 1) level)-th smallest of n values. With several,
each image has an equal share of its patient's weight, which gives a new patient's image, drawn at random, the same
promise (Lee, Barber and Willett 2023, arXiv 2306.06342: conformal prediction of hierarchical data).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

ROUNDING = 1e-9  # shares of patients that are sums of thirds and sevenths


def patient_quantile(values: Sequence[float] | np.ndarray, patients: Sequence[str], level: float) -> float:
    """What the value of a new patient's image exceeds with a probability of at most 1 - ``level``.

    Infinite where there are too few patients: fewer than level / (1 - level). ValueError if the lists differ in length.
    """
    if len(values) != len(patients):
        raise ValueError(f"{len(values)} values of {len(patients)} patients")
    weights = patient_weights(patients)
    number = len(set(patients))
    needed = (number + 1) * level
    order = np.argsort(np.asarray(values, dtype=np.float64), kind="stable")
    reached = np.flatnonzero(np.cumsum(weights[order]) >= needed - ROUNDING)
    return float(values[order[reached[0]]]) if len(reached) else float("inf")


def patient_weights(patients: Sequence[str]) -> np.ndarray:
    """Weight of each image, so that those of a patient add up to 1."""
    _, index, counts = np.unique(np.asarray(patients, dtype=object), return_inverse=True, return_counts=True)
    return 1 / counts[index]


def fewest_patients(level: float) -> int:
    """The smallest number of patients with which ``patient_quantile`` is finite: 9 for 0.9, 39 for 0.975."""
    return ceil(level / (1 - level) - ROUNDING)
