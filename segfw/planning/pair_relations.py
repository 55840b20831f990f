"""How two labels lie to each other in the cases: along which axis apart, how steadily, and of what sizes.

N cases, K classes, A axes (z, y, x in canonical orientation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from segfw.base.robust import robust_spread
from segfw.dataset.labels import LabelSet
from segfw.dataset.sides import stem_of
from segfw.planning.case_measure import CaseMeasure

AGREEING = 0.9  # share of the cases in which the labels lie the same way round; a few may be swapped by mistake
STEADY = 4.0  # median distance in robust standard deviations
LEVEL = 0.25  # distance along the other axes as a share of that between the sides
MOST_ACROSS = 200  # cases of each label of a pair that no case has both of

Pair = tuple[int, int]  # classes


@dataclass(frozen=True, kw_only=True)
class Relation:
    """How two classes lie to each other in the cases that have both; medians over these."""

    cases: int
    axis: int  # along which they lie farthest apart
    agrees: bool  # the same way round in nearly all cases
    is_like_mirrored: bool  # steadily apart along the axis, and on one level along the others
    times_larger: float
    apart_edges: float


class Places(NamedTuple):
    """Where each class lies in each case, from the middle of the image, and how large it is; nan where it is not."""

    volumes_NK: np.ndarray
    centroids_NKA: np.ndarray  # mm


def places_of(labels: LabelSet, cases: Sequence[CaseMeasure]) -> Places:
    """Of every class in every case."""
    volumes_NK = np.full((len(cases), len(labels.values)), np.nan)
    centroids_NKA = np.full((len(cases), len(labels.values), 3), np.nan)
    for row, case in enumerate(cases):
        middle_A = (np.array(case.shape) - 1) / 2 * case.spacing_mm
        for index, value in enumerate(labels.values):
            if str(value) in case.label_centroids_mm:
                volumes_NK[row, index] = case.label_voxels[str(value)] * np.prod(case.spacing_mm)
                centroids_NKA[row, index] = case.label_centroids_mm[str(value)] - middle_A
    return Places(volumes_NK, centroids_NKA)


def relations_of(labels: LabelSet, places: Places, named: Sequence[Pair]) -> dict[Pair, Relation]:
    """Of the named pairs, and of classes whose names do not tell them apart."""
    volumes_NK, centroids_NKA = places
    stems = [stem_of(name) for name in labels.names]
    silent = [pair for pair in combinations(labels.foreground.values(), 2) if stems[pair[0]] == stems[pair[1]]]
    relations = {}
    for first, second in dict.fromkeys((*named, *silent)):
        has_both = np.isfinite(volumes_NK[:, first] + volumes_NK[:, second])
        if has_both.any():
            distances_NA = (centroids_NKA[:, first] - centroids_NKA[:, second])[has_both]
            ratio = float(np.median(volumes_NK[has_both, first] / volumes_NK[has_both, second]))
            edge_mm = float(np.cbrt(np.median(volumes_NK[has_both][:, (first, second)])))
            relations[first, second] = _relation(distances_NA, ratio, edge_mm)
    return relations


def relation_across_cases(places: Places, pair: Pair) -> Relation | None:
    """Of two classes that no case has both of: each case of one beside each case of the other; None without any.

    Images are centred on the patient by hand, so this can tell along which axis they lie apart, and no more.
    """
    volumes_NK, centroids_NKA = places
    first, second = pair
    rows, others = (np.flatnonzero(np.isfinite(volumes_NK[:, index]))[:MOST_ACROSS] for index in pair)
    if not (len(rows) and len(others)):
        return None
    distances_NA = (centroids_NKA[rows, first][:, None] - centroids_NKA[others, second]).reshape(-1, 3)
    volumes = np.median(volumes_NK[rows, first]), np.median(volumes_NK[others, second])
    relation = _relation(distances_NA, float(volumes[0] / volumes[1]), float(np.cbrt(np.median(volumes))))
    return replace(relation, cases=min(len(rows), len(others)))


def _relation(distances_NA: np.ndarray, ratio: float, edge_mm: float) -> Relation:
    """``ratio`` of their volumes; ``edge_mm`` of a cube of the volume of one."""
    median_A = np.median(distances_NA, 0)
    axis = int(np.median(np.abs(distances_NA), 0).argmax())
    along_N = distances_NA[:, axis]
    apart_mm = abs(median_A[axis])
    spread_mm = robust_spread(along_N)
    is_level = np.abs(np.delete(median_A, axis)).max() <= LEVEL * apart_mm
    return Relation(
        cases=len(distances_NA),
        axis=axis,
        agrees=max((along_N > 0).mean(), (along_N < 0).mean()) >= AGREEING,
        is_like_mirrored=bool(is_level and apart_mm >= STEADY * spread_mm),
        times_larger=max(ratio, 1 / ratio),
        apart_edges=float(apart_mm / edge_mm),
    )
