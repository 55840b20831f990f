"""A scan: its voxels, where they are, and the order in which its axes are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from segfw.images.geometry import Geometry, Spacing, as_spacing, unit_axes
from segfw.images.units import Units, units_of
from segfw.images.voxels import NO_SERIES, SeriesUids

CANONICAL = "canonical"
AS_STORED = "as stored"
AXIS_ENDS = ("LR", "PA", "IS")  # where an axis can point: against and along RAS axes 0, 1 and 2


def is_axis_order(text: str) -> bool:
    """Whether a text says where the axes x, y and z of a file point, such as 'LPS': one letter of each pair of ends."""
    return len(text) == 3 and all(sum(letter in ends for letter in text) == 1 for ends in AXIS_ENDS)


def _known_orientation(rule: str) -> str:
    if rule in (CANONICAL, AS_STORED) or is_axis_order(rule):
        return rule
    raise ValueError(f"{rule!r} is no orientation; it is 'canonical', 'as stored', or an order of axes such as 'LPS'")


# How images are oriented before anything else. Whatever a model was trained under, it must be applied under. Canonical
# or as stored, or turned to axes that point where three letters say (x first, as nibabel's aff2axcodes): 'LPS'.
Orientation = Annotated[str, AfterValidator(_known_orientation)]

# Array axis 0 runs to the head (RAS axis 2), axis 1 to the front, axis 2 to the patient's right; all ascending.
CANONICAL_ORIENTATION = np.array([[2, 1], [1, 1], [0, 1]], dtype=float)
UNCHANGED = np.array([[0, 1], [1, 1], [2, 1]], dtype=float)


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Voxels (C, Z, Y, X) in the file's own data type, and where they are.

    ``is_placed`` is False for pictures that say nothing about spacing or place: their geometry is nominal, and takes
    that of whatever they belong to. ``is_picture`` is True for files of pictures (PNG, TIFF ...), placed or not: they
    have no left and right of a patient. ``notes`` are doubts about the file, each 'what is doubtful; what to do'.
    ``stated_mm`` is the voxel size that the file gives apart from its axes (NIfTI's pixdim), None if it gives none:
    nnU-Net resamples by it, and it can differ from the axes, by rounding or because the header contradicts itself.
    ``series`` is which DICOM series it is.
    """

    array: np.ndarray
    geometry: Geometry
    is_placed: bool = True
    is_picture: bool = False
    notes: tuple[str, ...] = ()
    stated_mm: Spacing | None = None
    series: SeriesUids = NO_SERIES

    @property
    def units(self) -> Units:
        """What lengths and sizes in this volume are counted in."""
        return units_of(self.geometry.shape, is_placed=self.is_placed)

    @property
    def is_coloured(self) -> bool:
        """Whether the channels are the red, green and blue of a picture."""
        return self.is_picture and self.array.shape[0] == 3


def to_canonical(volume: Volume) -> Volume:
    """The same volume with its axes permuted and flipped to CANONICAL_ORIENTATION; oblique angles stay."""
    return to_orientation(volume, CANONICAL)


def _turned(volume: Volume, transform: np.ndarray) -> Volume:
    """The same volume with its axes permuted and flipped as nibabel's ``transform`` (3, 2) says."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff

    # nibabel reorders the leading axes and leaves the rest, so channels go last for a moment.
    array = np.moveaxis(apply_orientation(np.moveaxis(volume.array, 0, -1), transform), -1, 0)
    affine = volume.geometry.matrix @ inv_ornt_aff(transform, volume.geometry.shape)
    stated_mm = volume.stated_mm
    if stated_mm is not None:
        stated_mm = as_spacing(stated_mm[axis] for axis in np.argsort(transform[:, 0]))
    return replace(volume, array=array, geometry=Geometry.of(array.shape[1:], affine), stated_mm=stated_mm)


def from_canonical(array_zyx: np.ndarray, original: Geometry) -> np.ndarray:
    """Undoes ``to_canonical`` for a (Z, Y, X) array made on the canonical form of ``original``."""
    return from_orientation(array_zyx, original, CANONICAL)


def to_orientation(volume: Volume, orientation: Orientation) -> Volume:
    """The volume as the rule wants it: its axes permuted and flipped, oblique angles kept; or left as it is stored."""
    if orientation == AS_STORED:
        return volume
    return _turned(volume, _transform_to(volume.geometry, orientation))


def from_orientation(array_zyx: np.ndarray, original: Geometry, orientation: Orientation) -> np.ndarray:
    """Undoes ``to_orientation`` for a (Z, Y, X) array made on the oriented form of ``original``."""
    if orientation == AS_STORED:
        return array_zyx
    flips, axes = _way_back(original, orientation)
    return array_zyx[flips].transpose(axes)


@lru_cache(maxsize=256)
def _transform_to(geometry: Geometry, orientation: Orientation) -> np.ndarray:
    from nibabel.orientations import io_orientation, ornt_transform

    return ornt_transform(io_orientation(geometry.matrix), _wanted_axes(orientation))


@lru_cache(maxsize=256)
def _way_back(geometry: Geometry, orientation: Orientation) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """How axes of the oriented array are flipped, and then in which order taken, to undo ``to_orientation``."""
    from nibabel.orientations import ornt_transform

    transform = ornt_transform(UNCHANGED, _transform_to(geometry, orientation))
    flips = tuple(slice(None, None, -1 if flip == -1 else 1) for flip in transform[:, 1])
    return flips, tuple(np.argsort(transform[:, 0]).tolist())


def _wanted_axes(orientation: Orientation) -> np.ndarray:
    """For each array axis (z, y, x) the RAS axis that it is to run along, and 1 or -1: along or against it."""
    if orientation == CANONICAL:
        return CANONICAL_ORIENTATION
    rows = []
    for letter in reversed(orientation):
        world = next(axis for axis, ends in enumerate(AXIS_ENDS) if letter in ends)
        rows.append((world, 1 if AXIS_ENDS[world][1] == letter else -1))
    return np.array(rows, dtype=float)


def stored_like(volume: Volume, other: Volume) -> Volume:
    """The same volume with its axes permuted and flipped to the order in which ``other`` is stored.

    The order is told from one grid relative to the other, so that no rounding of oblique axes to the body's can give
    two volumes on one grid two orders. A volume without a place of its own takes that of ``other``, and one that
    belongs to such an ``other`` loses its own, if the shapes are equal.
    """
    from nibabel.orientations import io_orientation

    present = volume.geometry
    wanted = other.geometry
    if not (volume.is_placed and other.is_placed):
        if present.shape != wanted.shape:
            return volume
        return replace(volume, geometry=wanted, is_placed=other.is_placed)
    if present.affine == wanted.affine:
        return volume
    relative = np.eye(4)
    relative[:3, :3] = np.linalg.solve(unit_axes(wanted.matrix), unit_axes(present.matrix))
    transform = io_orientation(relative)
    if (transform == UNCHANGED).all():
        return volume
    return _turned(volume, transform)
