"""Scores component by component: which lesions were found, and which of the predicted ones are real, by size.

Legend: Z Y X space. Components hang together over faces, edges and corners (26 neighbours; 8 in a single slice).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segfw.records import Record

COUNTED = ("reference", "found", "predicted", "right")


class LesionCounts(Record):
    """Components of one size class, in one case or over all: of the reference and found, predicted and right.

    A component belongs to the class from ``from_ml`` up to below ``to_ml`` (None: no bound) by its own volume.
    """

    from_ml: float
    to_ml: float | None
    reference: int
    found: int
    predicted: int
    right: int

    @property
    def tpr(self) -> float | None:
        """Share of the reference's components that were found; None without any."""
        return ratio(self.found, self.reference)

    @property
    def precision(self) -> float | None:
        """Share of the predicted components that are right; 0 if there are none to be right but some to be found."""
        return ratio(self.right, self.predicted) if self.predicted or not self.reference else 0.0

    @property
    def f1(self) -> float | None:
        """Harmonic mean of both; 0 if one of them is 0 or does not exist; None without any component."""
        if not self.reference and not self.predicted:
            return None
        tpr, precision = self.tpr or 0.0, self.precision or 0.0
        return 2 * tpr * precision / (tpr + precision) if tpr and precision else 0.0


def lesion_counts(
    reference_zyx: np.ndarray, prediction_zyx: np.ndarray, voxel_ml: float, strata_ml: Sequence[float], least_iou: float
) -> tuple[LesionCounts, ...]:
    """Components of two masks (boolean, Z, Y, X) and how many have a counterpart, by their own volume.

    Two components belong together if they share a voxel (``least_iou`` 0, the rule of the multiple sclerosis and stroke
    challenges: Carass et al., NeuroImage 2017), or if their intersection over union is at least ``least_iou`` (above
    0.5 at most one can: Kirillov et al., CVPR 2019). One component may have several counterparts: it then counts as
    found or right once.
    """
    from scipy.ndimage import label

    every_neighbour = np.ones((3, 3, 3), bool)
    reference, references = label(reference_zyx, every_neighbour)
    predicted, predictions = label(prediction_zyx, every_neighbour)
    sizes = [
        np.bincount(components.ravel(), minlength=number + 1)
        for components, number in ((reference, references), (predicted, predictions))
    ]
    both = (reference > 0) & (predicted > 0)
    # One number per pair of components: sorting these is several times faster than sorting pairs.
    joint, shared = np.unique(reference[both] * np.int64(predictions + 1) + predicted[both], return_counts=True)
    pairs = np.stack(np.divmod(joint, predictions + 1))
    iou = shared / (sizes[0][pairs[0]] + sizes[1][pairs[1]] - shared)
    pairs = pairs[:, iou >= least_iou]
    edges = [0.0, *strata_ml, np.inf]
    columns = []
    for size, partners in zip(sizes, pairs):
        is_matched = np.zeros(len(size), bool)
        is_matched[partners] = True
        stratum = np.searchsorted(edges, size[1:] * voxel_ml, side="right") - 1
        columns += [stratum, stratum[is_matched[1:]]]
    counts = [np.bincount(column, minlength=len(edges) - 1).tolist() for column in columns]
    return tuple(
        LesionCounts(
            from_ml=low, to_ml=None if high == np.inf else high, reference=n, found=found, predicted=m, right=right
        )
        for low, high, n, found, m, right in zip(edges, edges[1:], *counts)
    )


def lesion_total(strata: Sequence[LesionCounts]) -> LesionCounts | None:
    """All size classes as one; None without any."""
    if not strata:
        return None
    counts = {key: sum(getattr(part, key) for part in strata) for key in COUNTED}
    return LesionCounts(from_ml=0.0, to_ml=None, **counts)


def pooled(cases: Sequence[Sequence[LesionCounts]]) -> tuple[LesionCounts, ...]:
    """The sum over cases, size class by size class; cases without counts are skipped."""
    kept = [strata for strata in cases if strata]
    return tuple(
        strata[0].model_copy(update={key: sum(getattr(part, key) for part in strata) for key in COUNTED})
        for strata in zip(*kept, strict=True)
    )


def ratio(part: float, whole: float) -> float | None:
    """``part / whole``; None if there is no whole."""
    return part / whole if whole else None
