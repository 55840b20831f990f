"""Scores component by component: which lesions were found, and which of the predicted ones are real, by size.

Legend: Z Y X space. Components hang together over faces, edges and corners (26 neighbours; 8 in a single slice).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import model_validator

from segfw.base.components import connected_components
from segfw.base.records import Record
from segfw.evaluation.confusion import ratio
from segfw.images.units import SCAN

COUNTED = ("reference", "found", "predicted", "right")


class LesionCounts(Record):
    """Components of one size class, in one case or over all: of the reference and found, predicted and right.

    A component belongs to the class from ``from_size`` up to below ``to_size`` (None: no bound) by its own size in
    ``unit``, a volume or an area, and a predicted one by that of the reference's component that it found, if any: both
    are then counted in one class.
    """

    from_size: float
    to_size: float | None
    unit: str = SCAN.size
    reference: int
    found: int
    predicted: int
    right: int

    @model_validator(mode="before")
    @classmethod
    def _sizes_in_ml(cls, values: Any) -> Any:
        """Files of before there were areas have ``from_ml`` and ``to_ml``."""
        if isinstance(values, dict) and "from_ml" in values:
            return {key.replace("_ml", "_size"): value for key, value in values.items()}
        return values

    @property
    def tpr(self) -> float | None:
        """Share of the reference's components that were found; None without any."""
        return ratio(self.found, self.reference)

    @property
    def precision(self) -> float | None:
        """Share of the predicted components that are right; without any 0 if some were to be found and none was.

        None if components of other classes found all that was, since one over several lesions counts with one of them.
        """
        if not self.predicted:
            return 0.0 if self.reference and not self.found else None
        return self.right / self.predicted

    @property
    def f1(self) -> float | None:
        """Harmonic mean of both; 0 if one of them is 0 or all is invented; None without a precision."""
        if self.precision is None:
            return None
        tpr = self.tpr or 0.0
        return 2 * tpr * self.precision / (tpr + self.precision) if tpr and self.precision else 0.0


def lesion_counts(
    reference_zyx: np.ndarray,
    prediction_zyx: np.ndarray,
    voxel_size: float,
    strata: Sequence[float],
    least_iou: float,
    unit: str = SCAN.size,
) -> tuple[LesionCounts, ...]:
    """Components of two masks (boolean, Z, Y, X) and how many have a counterpart, by the reference's size.

    ``voxel_size`` and ``strata``, the bounds of the size classes, are in ``unit``.

    Two components belong together if they share a voxel (``least_iou`` 0, the rule of the multiple sclerosis and stroke
    challenges: Carass et al., NeuroImage 2017), or if their intersection over union is at least ``least_iou`` (above
    0.5 at most one can: Kirillov et al., CVPR 2019). One component may have several counterparts: it then counts as
    found or right once. A predicted one belongs to the size class of its counterpart, or of the one of several that it
    shares most voxels with, and to that of its own size if it has none.
    """
    reference, references = connected_components(reference_zyx)
    predicted, predictions = connected_components(prediction_zyx)
    reference_sizes = np.bincount(reference.ravel(), minlength=references + 1)
    predicted_sizes = np.bincount(predicted.ravel(), minlength=predictions + 1)

    # Pairs of components that overlap enough, those with the largest overlap last
    both = (reference > 0) & (predicted > 0)
    # One number per pair of components: sorting these is several times faster than sorting pairs.
    joint, shared = np.unique(reference[both] * np.int64(predictions + 1) + predicted[both], return_counts=True)
    of_reference, of_prediction = np.divmod(joint, predictions + 1)
    iou = shared / (reference_sizes[of_reference] + predicted_sizes[of_prediction] - shared)
    order = np.argsort(shared, kind="stable")
    order = order[iou[order] >= least_iou]
    of_reference = of_reference[order]
    of_prediction = of_prediction[order]

    # The size class of each component
    edges = [0.0, *strata, np.inf]
    reference_strata = np.searchsorted(edges, reference_sizes * voxel_size, side="right") - 1
    predicted_strata = np.searchsorted(edges, predicted_sizes * voxel_size, side="right") - 1
    predicted_strata[of_prediction] = reference_strata[of_reference]  # where one is repeated its last value stays

    all_reference, found = _count_by_stratum(reference_strata, of_reference, len(edges) - 1)
    all_predicted, right = _count_by_stratum(predicted_strata, of_prediction, len(edges) - 1)
    return tuple(
        LesionCounts(
            from_size=edges[stratum],
            to_size=None if edges[stratum + 1] == np.inf else edges[stratum + 1],
            unit=unit,
            reference=all_reference[stratum],
            found=found[stratum],
            predicted=all_predicted[stratum],
            right=right[stratum],
        )
        for stratum in range(len(edges) - 1)
    )


def _count_by_stratum(strata: np.ndarray, matched: np.ndarray, count: int) -> tuple[list[int], list[int]]:
    """Components of each size class, and those of them that are ``matched``; component 0 is none."""
    is_matched = np.zeros(len(strata), bool)
    is_matched[matched] = True
    components = strata[1:]
    every = np.bincount(components, minlength=count).tolist()
    with_partner = np.bincount(components[is_matched[1:]], minlength=count).tolist()
    return every, with_partner


def lesion_total(strata: Sequence[LesionCounts]) -> LesionCounts | None:
    """All size classes as one; None without any."""
    if not strata:
        return None
    return LesionCounts(
        from_size=0.0,
        to_size=None,
        unit=strata[0].unit,
        reference=sum(part.reference for part in strata),
        found=sum(part.found for part in strata),
        predicted=sum(part.predicted for part in strata),
        right=sum(part.right for part in strata),
    )


def pooled(cases: Sequence[Sequence[LesionCounts]]) -> tuple[LesionCounts, ...]:
    """The sum over cases, size class by size class, volumes apart from areas; cases without counts are skipped."""
    by_class: dict[tuple[str, float], list[LesionCounts]] = {}
    for strata in cases:
        for part in strata:
            by_class.setdefault((part.unit, part.from_size), []).append(part)
    return tuple(
        parts[0].model_copy(update={key: sum(getattr(part, key) for part in parts) for key in COUNTED})
        for parts in by_class.values()
    )
