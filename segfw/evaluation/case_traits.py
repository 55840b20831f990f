"""What a reference mask and its header tell of a case: voxel sizes, how large structures are, which are cut.

All are of the reference and none of the prediction: groups by what was predicted would be groups by the error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segfw.dataset.labels import LabelSet
from segfw.images.geometry import Geometry
from segfw.images.units import PICTURE, Units

DIGITS = 4  # of a voxel size: what differs less is written by other programs


@dataclass(frozen=True, kw_only=True)
class CaseTraits:
    """Of one case. None is what an image has not: a photograph any millimetre, a single slice its thickness.

    The thickness of slices is the longest edge of a voxel, that is from slice to slice, whatever the scanner's own
    slices took; the spacing in plane is the geometric mean of the other two. ``cut`` are structures that reach the
    border of the image.
    """

    in_plane_mm: float | None
    slice_mm: float | None
    cut: frozenset[str]


def case_traits(
    reference_zyx: np.ndarray, geometry: Geometry, units: Units, labels: LabelSet, only: Sequence[str] = ()
) -> CaseTraits:
    """Of classes (Z, Y, X) of a reference on its grid; of ``only`` some structures, if there are such."""
    edges_mm = [edge for edge, size in zip(geometry.spacing_mm, geometry.shape) if size > 1 or units.extent == "volume"]
    in_plane_mm = None
    slice_mm = None
    if units != PICTURE and len(edges_mm) >= 2:
        *plane_mm, longest_mm = sorted(edges_mm)
        if len(edges_mm) == 3:
            slice_mm = rounded(longest_mm)
        else:
            plane_mm = edges_mm
        in_plane_mm = rounded(float(np.prod(plane_mm)) ** (1 / len(plane_mm)))
    at_border = _classes_at_border(reference_zyx)
    structures = {name: classes for name, classes in labels.structures.items() if not only or name in only}
    cut = frozenset(name for name, classes in structures.items() if at_border.intersection(classes))
    return CaseTraits(in_plane_mm=in_plane_mm, slice_mm=slice_mm, cut=cut)


def _classes_at_border(classes_zyx: np.ndarray) -> set[int]:
    """Classes in the outermost voxels of axes with more than one; the only slice of an image is all that there is."""
    found: set[int] = set()
    for axis, size in enumerate(classes_zyx.shape):
        if size > 1:
            for place in (0, size - 1):
                found |= set(np.unique(classes_zyx.take(place, axis)).tolist())
    return found


def rounded(value: float) -> float:
    """To as many digits as matter."""
    return float(f"{value:.{DIGITS}g}")


def thirds(value_of: Mapping[str, float], unit: str) -> tuple[dict[str, str], list[str]]:
    """The group of each patient by a number, and the groups in their order.

    Three with about as many patients each, where equal values stay together; up to three values are a group each.
    """
    values = sorted(value_of.values())
    distinct = sorted(set(values))
    if len(distinct) <= 3:
        names = {value: f"{value:.{DIGITS}g} {unit}".strip() for value in distinct}
        return {patient: names[value] for patient, value in value_of.items()}, list(dict.fromkeys(names.values()))
    low = values[(len(values) - 1) // 3]
    high = values[2 * (len(values) - 1) // 3]
    limits = _told_apart(low, high)
    unit = f" {unit}" if unit else ""
    texts = (f"up to {limits[0]}{unit}", f"{limits[0]} to {limits[1]}{unit}", f"above {limits[1]}{unit}")
    group_of = {patient: texts[(value > low) + (value > high)] for patient, value in value_of.items()}
    return group_of, [text for text in texts if text in group_of.values()]


def _told_apart(low: float, high: float) -> tuple[str, str]:
    """Both numbers with three digits, or with as many more as tell them apart."""
    for digits in range(3, 18):  # 17 tell any two floats apart
        texts = (f"{low:.{digits}g}", f"{high:.{digits}g}")
        if low == high or texts[0] != texts[1]:
            break
    return texts
