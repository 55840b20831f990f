"""A scan: its voxels, where they are, and the order in which its axes are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from segfw.images.geometry import Geometry, Spacing, as_spacing, unit_axes
from segfw.images.units import Units, units_of

# How images are oriented before anything else. Whatever a model was trained under, it must be applied under.
Orientation = Literal["canonical", "as stored"]
CANONICAL: Literal["canonical"] = "canonical"
AS_STORED: Literal["as stored"] = "as stored"

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
    """

    array: np.ndarray
    geometry: Geometry
    is_placed: bool = True
    is_picture: bool = False
    notes: tuple[str, ...] = ()
    stated_mm: Spacing | None = None

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
    return _turned(volume, _transform_to_canonical(volume.geometry))


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
    from nibabel.orientations import apply_orientation, ornt_transform

    transform = _transform_to_canonical(original)
    return apply_orientation(array_zyx, ornt_transform(UNCHANGED, transform))


def to_orientation(volume: Volume, orientation: Orientation) -> Volume:
    """The volume as the rule wants it: brought to the canonical orientation, or left as it is stored."""
    return to_canonical(volume) if orientation == CANONICAL else volume


def from_orientation(array_zyx: np.ndarray, original: Geometry, orientation: Orientation) -> np.ndarray:
    """Undoes ``to_orientation`` for a (Z, Y, X) array made on the oriented form of ``original``."""
    return from_canonical(array_zyx, original) if orientation == CANONICAL else array_zyx


@lru_cache(maxsize=256)
def _transform_to_canonical(geometry: Geometry) -> np.ndarray:
    from nibabel.orientations import io_orientation, ornt_transform

    return ornt_transform(io_orientation(geometry.matrix), CANONICAL_ORIENTATION)


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
