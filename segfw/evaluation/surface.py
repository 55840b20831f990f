"""Distances between the surfaces of two masks, in millimetres, for all labels of a case in one pass.

Legend: Z Y X space; points are flat indices into (Z, Y, X), ascending. The surface of a structure is made of its voxels
that share a face with a voxel outside it; a face at the border of the image counts as one, a single slice has no faces
across it, and a face towards an ignored voxel counts as none, since nobody knows what lies there. Distances run between
the centres of such voxels, as in MONAI and MedPy; DeepMind's surface-distance instead takes pieces of surface that lie
between voxels and weighs them by their area, which differs by a fraction of a voxel.

- HD95: the 95th percentile of the distances from each surface to the other, and the larger of the two (MedPy takes the
  percentile of both together).
- ASSD: the mean over the points of both surfaces together.
- NSD: the share of the points of both surfaces that lie within the tolerance of the other (Nikolov et al., JMIR 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segfw.images.geometry import Shape, Spacing, as_shape

SLAB_VOXELS = 1 << 20
ROUNDING = 1e-4  # of a tolerance: affines give a spacing of 1 mm as 1.0000001


class SurfaceScore(NamedTuple):
    """Distances between two surfaces in mm, and the share of both that lies within the tolerance of the other.

    What is said of millimetres holds in this file for pixels, where an image knows no size of these.
    """

    hd95_mm: float | None
    assd_mm: float | None
    nsd: float | None


NO_SURFACE = SurfaceScore(None, None, None)


def surface_points(
    classes_zyx: np.ndarray, ignored: int | None = None, *, slab_voxels: int = SLAB_VOXELS
) -> tuple[np.ndarray, np.ndarray]:
    """Surface voxels of all classes above 0, (points, their class), in ascending order.

    ``classes_zyx`` is contiguous; voxels of the class ``ignored`` have no surface and make none.
    """
    depth = classes_zyx.shape[0]
    thick = max(1, slab_voxels // max(1, classes_zyx[0].size))
    points = []
    classes = []
    for start in range(0, depth, thick):
        first = max(0, start - 1)
        stop = min(depth, start + thick)
        slab = classes_zyx[first : min(depth, stop + 1)]  # one slice of context on both sides
        if not slab.any():
            continue
        is_border = _has_other_neighbour(slab, ignored)
        if depth > 1:
            is_border[0] |= start == 0
            is_border[-1] |= stop == depth
        inside = slice(start - first, stop - first)
        is_border &= slab > 0
        if ignored is not None:
            is_border &= slab != ignored
        found = np.flatnonzero(is_border[inside])
        classes.append(slab[inside].reshape(-1)[found])
        points.append(found + start * classes_zyx[0].size)
    if not points:
        return np.zeros(0, np.int64), np.zeros(0, classes_zyx.dtype)
    return np.concatenate(points), np.concatenate(classes)


def _has_other_neighbour(slab_zyx: np.ndarray, ignored: int | None) -> np.ndarray:
    """Voxels that share a face with another class, or with the border of the image along y and x."""
    result = np.zeros(slab_zyx.shape, bool)
    for axis in range(3):
        if slab_zyx.shape[axis] == 1:
            continue
        mask = np.moveaxis(slab_zyx, axis, 0)
        border = np.moveaxis(result, axis, 0)
        differs = mask[1:] != mask[:-1]
        if ignored is None:
            border[1:] |= differs
            border[:-1] |= differs
        else:
            border[1:] |= differs & (mask[:-1] != ignored)
            border[:-1] |= differs & (mask[1:] != ignored)
        if axis > 0:
            border[0] = border[-1] = True
    return result


def surface_scores(
    reference_zyx: np.ndarray,
    prediction_zyx: np.ndarray,
    structures: Sequence[Sequence[int]],
    spacing_mm: Spacing,
    tolerance_mm: float,
    ignored: int | None = None,
) -> list[SurfaceScore]:
    """Scores of each structure, a class or a union of several; both masks hold class indices, (Z, Y, X), contiguous.

    A structure in neither mask has None. One that only one of the masks has is as wrong as can be: both distances are
    the diagonal of the image, which none exceeds, and NSD is 0. Voxels that are ``ignored`` in the reference must be so
    in the prediction too. A structure in both masks of which one has no surface, because ignored voxels surround it,
    has None.
    """
    singles = [members[0] for members in structures if len(members) == 1]
    reference_of = _by_class(reference_zyx, singles, ignored)
    prediction_of = _by_class(prediction_zyx, singles, ignored)
    diagonal_mm = float(np.linalg.norm(np.multiply(reference_zyx.shape, spacing_mm)))
    scores = []
    for members in structures:
        if len(members) == 1:
            reference = reference_of[members[0]]
            prediction = prediction_of[members[0]]
        else:
            reference = _union_points(reference_zyx, members, ignored)
            prediction = _union_points(prediction_zyx, members, ignored)
        in_reference = _exists(reference_zyx, members, reference, ignored)
        in_prediction = _exists(prediction_zyx, members, prediction, ignored)
        if in_reference != in_prediction:
            scores.append(SurfaceScore(diagonal_mm, diagonal_mm, 0.0))
        elif len(reference) and len(prediction):
            shape = as_shape(reference_zyx.shape)
            scores.append(_score(reference, prediction, shape, spacing_mm, tolerance_mm))
        else:
            scores.append(NO_SURFACE)
    return scores


def _exists(mask_zyx: np.ndarray, members: Sequence[int], points: np.ndarray, ignored: int | None) -> bool:
    """Whether a structure is in a mask: without ignored voxels whatever is there has a surface."""
    return len(points) > 0 or (ignored is not None and bool(np.isin(mask_zyx, members).any()))


def _by_class(mask_zyx: np.ndarray, wanted: Sequence[int], ignored: int | None) -> dict[int, np.ndarray]:
    """Surface of each wanted class."""
    if not wanted:
        return {}
    points, classes = surface_points(mask_zyx, ignored)
    points = points[np.argsort(classes, kind="stable")]
    ends = np.bincount(classes, minlength=max(wanted) + 1).cumsum()
    return {index: points[ends[index - 1] : ends[index]] for index in wanted}


def _union_points(mask_zyx: np.ndarray, members: Sequence[int], ignored: int | None) -> np.ndarray:
    """Surface of a union of classes."""
    role = np.zeros(1 + int(mask_zyx.max(initial=0)), np.uint8)
    role[[index for index in members if index < len(role)]] = 1
    if ignored is not None and ignored < len(role):
        role[ignored] = 2
    return surface_points(role[mask_zyx], 2)[0]


def _score(
    reference: np.ndarray, prediction: np.ndarray, shape: Shape, spacing_mm: Spacing, tolerance_mm: float
) -> SurfaceScore:
    """Scores of two surfaces of at least one point each."""
    forth = distances_mm(reference, prediction, shape, spacing_mm)
    back = distances_mm(prediction, reference, shape, spacing_mm)
    both = np.concatenate([forth, back])
    return SurfaceScore(
        hd95_mm=float(max(np.percentile(forth, 95), np.percentile(back, 95))),
        assd_mm=float(both.mean()),
        nsd=float((both <= tolerance_mm * (1 + ROUNDING)).mean()),
    )


def distances_mm(points: np.ndarray, others: np.ndarray, shape: Shape, spacing_mm: Spacing) -> np.ndarray:
    """Distance of every point to the nearest of the others, which are at least one; both ascending, none twice."""
    from scipy.spatial import KDTree

    place = np.searchsorted(others, points).clip(max=len(others) - 1)
    moved = others[place] != points  # mostly few: where both surfaces have a voxel its distance is 0
    distances = np.zeros(len(points))
    if moved.any():
        # Points on a grid are many on one plane, which a balanced tree takes long to halve.
        tree = KDTree(_millimetres(others, shape, spacing_mm), balanced_tree=False, compact_nodes=False)
        distances[moved] = tree.query(_millimetres(points[moved], shape, spacing_mm))[0]
    return distances


def _millimetres(points: np.ndarray, shape: Shape, spacing_mm: Spacing) -> np.ndarray:
    return np.stack(np.unravel_index(points, shape), axis=1) * np.asarray(spacing_mm)
