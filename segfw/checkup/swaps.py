"""Labels that lie on the wrong side of each other: swapped values, or a mirrored case.

K labels, N cases, A axes (z, y, x). In canonical orientation x ascends to the patient's right.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np

from segfw.base.robust import FEWEST_CASES, most_outliers, robust_spread
from segfw.checkup.case_details import CheckedCase

CONSISTENT = 4.0  # the median distance of two labels along an axis, in robust standard deviations of it
REVERSED = 0.5  # a swap turns the distance into its negative; half of that tells it from an odd anatomy
FEWEST_MM = 3.0
EXPLAINED = 0.6  # an exchange, or a mirror, that leaves more than this of the misfit is no explanation
AXES = ("z", "y", "x")
X_AXIS = 2


@dataclass(frozen=True, kw_only=True)
class Swap:
    """In ``case``, the labels ``pair`` lie as if they were exchanged along ``axis``; or the whole case is mirrored."""

    case: int  # index
    pair: tuple[int, int]
    axis: int
    usual_mm: float
    found_mm: float
    is_mirrored: bool = False


def find_swaps(cases: list[CheckedCase]) -> list[Swap]:
    """The most telling swap of every case in which labels lie the other way round than in nearly all cases."""
    values = sorted(set(chain.from_iterable(case.labels for case in cases)))
    if len(cases) < FEWEST_CASES or len(values) < 2:
        return []
    centroids_NKA = np.full((len(cases), len(values), 3), np.nan)
    for row, case in enumerate(cases):
        for value, label in case.labels.items():
            centroids_NKA[row, values.index(value)] = label.centroid_mm
    usual = _usual_distances(centroids_NKA)
    reversed_in: dict[int, list[tuple[int, int, int]]] = {}
    for (first, second, axis), (median_mm, _) in usual.items():
        distances = centroids_NKA[:, first, axis] - centroids_NKA[:, second, axis]
        rows = np.flatnonzero(distances * np.sign(median_mm) < -REVERSED * abs(median_mm))
        if len(rows) <= most_outliers(int(np.isfinite(distances).sum())):
            for row in rows.tolist():
                reversed_in.setdefault(row, []).append((first, second, axis))
    swaps = [_explain(row, centroids_NKA[row], pairs, usual, values) for row, pairs in sorted(reversed_in.items())]
    return [swap for swap in swaps if swap is not None]


def _usual_distances(centroids_NKA: np.ndarray) -> dict[tuple[int, int, int], tuple[float, float]]:
    """Median distance of two labels along an axis, and its multiple of the spread, where nearly all cases agree."""
    usual = {}
    for first, second in combinations(range(centroids_NKA.shape[1]), 2):
        distances_NA = centroids_NKA[:, first] - centroids_NKA[:, second]
        distances_NA = distances_NA[np.isfinite(distances_NA[:, 0])]
        if len(distances_NA) < FEWEST_CASES:
            continue
        median_A = np.median(distances_NA, 0)
        few = 1 + 4 / len(distances_NA)
        for axis in range(3):
            median_mm = float(median_A[axis])
            spread_mm = robust_spread(distances_NA[:, axis]) * few
            strength = abs(median_mm) / max(spread_mm, 1e-6)
            if abs(median_mm) >= FEWEST_MM and strength >= CONSISTENT:
                usual[first, second, axis] = (median_mm, strength)
    return usual


def _explain(
    row: int,
    centroids_KA: np.ndarray,
    pairs: list[tuple[int, int, int]],
    usual: dict[tuple[int, int, int], tuple[float, float]],
    values: list[int],
) -> Swap | None:
    """The one exchange, or the mirror, that puts the pairs right again; None if neither does, as in odd anatomy."""

    def misfit(places_KA: np.ndarray) -> float:
        total_mm = 0.0
        for (first, second, axis), (median_mm, _) in usual.items():
            distance_mm = places_KA[first, axis] - places_KA[second, axis]
            if np.isfinite(distance_mm):
                total_mm += abs(distance_mm - median_mm)
        return total_mm

    def exchanged(first: int, second: int) -> np.ndarray:
        changed = centroids_KA.copy()
        changed[[first, second]] = changed[[second, first]]
        return changed

    candidates = sorted({(first, second) for first, second, _ in pairs})
    best = min(candidates, key=lambda pair: misfit(exchanged(*pair)))
    axes = [axis for first, second, axis in pairs if (first, second) == best]
    axis = max(axes, key=lambda axis: usual[(*best, axis)][1])
    mirrored = centroids_KA * np.where(np.arange(3) == axis, -1, 1)
    before = misfit(centroids_KA)
    after = misfit(exchanged(*best))
    turned = misfit(mirrored)
    is_mirrored = len(values) > 2 and turned < 0.8 * after
    if min(after, turned if is_mirrored else after) > EXPLAINED * before:
        return None
    return Swap(
        case=row,
        pair=(values[best[0]], values[best[1]]),
        axis=axis,
        usual_mm=usual[(*best, axis)][0],
        found_mm=float(centroids_KA[best[0], axis] - centroids_KA[best[1], axis]),
        is_mirrored=is_mirrored,
    )
