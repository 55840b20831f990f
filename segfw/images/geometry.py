"""Where voxels are: one 4x4 affine from array index (z, y, x) to RAS millimetres; everything else is derived."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import field_validator

from segfw.base.records import Record

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
Row = tuple[float, float, float, float]

# How images are oriented before anything else. Whatever a model was trained under, it must be applied under.
Orientation = Literal["canonical", "as stored"]
CANONICAL, AS_STORED = "canonical", "as stored"

# Array axis 0 runs to the head (RAS axis 2), axis 1 to the front, axis 2 to the patient's right; all ascending.
CANONICAL_ORIENTATION = np.array([[2, 1], [1, 1], [0, 1]], dtype=float)


class Geometry(Record):
    """Grid of a volume: ``shape`` in voxels and ``affine`` from index (z, y, x, 1) to RAS millimetres."""

    shape: Shape
    affine: tuple[Row, Row, Row, Row]

    @field_validator("affine")
    @classmethod
    def _invertible(cls, affine: tuple[Row, Row, Row, Row]) -> tuple[Row, Row, Row, Row]:
        directions = np.asarray(affine)[:3, :3]
        # Relative to the voxel's edges, which in microscopy are a thousand times shorter than in CT.
        if abs(np.linalg.det(directions)) <= 1e-6 * np.prod(np.linalg.norm(directions, axis=0)):
            raise ValueError("the affine has no volume (an axis has zero length); repair the file's header")
        return affine

    @staticmethod
    def of(shape: Shape, affine: np.ndarray) -> Geometry:
        """Geometry from a NumPy 4x4 affine in (z, y, x) index order."""
        rows = tuple(tuple(float(value) for value in row) for row in affine)
        return Geometry(shape=tuple(int(size) for size in shape), affine=rows)

    @property
    def matrix(self) -> np.ndarray:
        """The affine as a float64 array, shape (4, 4)."""
        return np.asarray(self.affine, dtype=np.float64)

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size along each array axis: the column lengths of the affine."""
        return tuple(float(length) for length in np.linalg.norm(self.matrix[:3, :3], axis=0))


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Voxels (C, Z, Y, X) in the file's own data type, and where they are.

    ``is_placed`` is False for pictures that say nothing about spacing or place: their geometry is nominal, and takes
    that of whatever they belong to. ``notes`` are doubts about the file, each 'what is doubtful; what to do'.
    ``stated_mm`` is the voxel size that the file gives apart from its axes (NIfTI's pixdim), None if it gives none:
    nnU-Net resamples by it, and it can differ from the axes, by rounding or because the header contradicts itself.
    """

    array: np.ndarray
    geometry: Geometry
    is_placed: bool = True
    notes: tuple[str, ...] = ()
    stated_mm: Spacing | None = None


def to_canonical(volume: Volume) -> Volume:
    """The same volume with its axes permuted and flipped to CANONICAL_ORIENTATION; oblique angles stay."""
    return _turned(volume, _transform_to_canonical(volume.geometry))


def _turned(volume: Volume, transform: np.ndarray) -> Volume:
    """The same volume with its axes permuted and flipped as nibabel's ``transform`` (3, 2) says."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff

    # nibabel reorders the leading axes and leaves the rest, so channels go last for a moment.
    array = np.moveaxis(apply_orientation(np.moveaxis(volume.array, 0, -1), transform), -1, 0)
    affine = volume.geometry.matrix @ inv_ornt_aff(transform, volume.geometry.shape)
    stated = volume.stated_mm and tuple(volume.stated_mm[axis] for axis in np.argsort(transform[:, 0]))
    return replace(volume, array=array, geometry=Geometry.of(array.shape[1:], affine), stated_mm=stated)


def from_canonical(array_zyx: np.ndarray, original: Geometry) -> np.ndarray:
    """Undoes ``to_canonical`` for a (Z, Y, X) array made on the canonical form of ``original``."""
    from nibabel.orientations import apply_orientation, ornt_transform

    transform = _transform_to_canonical(original)
    identity = np.array([[0, 1], [1, 1], [2, 1]], dtype=float)
    return apply_orientation(array_zyx, ornt_transform(identity, transform))


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

    own, wanted = volume.geometry, other.geometry
    if not (volume.is_placed and other.is_placed):
        equal = own.shape == wanted.shape
        return replace(volume, geometry=wanted, is_placed=other.is_placed) if equal else volume
    if own.affine == wanted.affine:
        return volume
    relative = np.eye(4)
    relative[:3, :3] = np.linalg.solve(unit_axes(wanted.matrix), unit_axes(own.matrix))
    transform = io_orientation(relative)
    if (transform == [[0, 1], [1, 1], [2, 1]]).all():
        return volume
    return _turned(volume, transform)


def header_length(length_mm: float) -> float:
    """The voxel size that a header most likely held, of the length of a column of its affine.

    NIfTI keeps rotated axes in 32 bit, so that a column of 0.5 mm measures 0.49999999979. Half a voxel is then rounded
    to another side, and two axes of one size are no longer equal. A number of six digits at most is taken where the
    length is as near to it as 32 bit can tell; lengths that are exact, in 32 bit or 64, stay as they are.
    """
    short = float(f"{length_mm:.6g}")
    if abs(length_mm - short) <= 1e-12 * length_mm:
        return short
    stored = float(np.float32(short))
    is_exact = float(np.float32(length_mm)) == length_mm
    is_near = abs(length_mm - stored) <= 2 * np.spacing(np.float32(length_mm))
    return stored if is_near and not is_exact else length_mm


def unit_axes(affine: np.ndarray) -> np.ndarray:
    """Directions (3, 3) of the array's axes: the columns of the affine at length one."""
    return affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)


def shear_degrees(affine: np.ndarray) -> float:
    """By how much the two axes that are least at right angles miss them, as after a gantry tilt."""
    axes = unit_axes(affine)
    cosines = axes.T @ axes - np.diag(np.diag(axes.T @ axes))
    return float(np.degrees(np.arcsin(min(1.0, np.abs(cosines).max()))))


def largest_displacement_mm(first: Geometry, second: Geometry) -> float:
    """How far apart the two grids put the same corner voxel, at most, in millimetres; shapes must be equal."""
    return corner_distance_mm(first.shape, first.matrix, second.matrix)


def corner_distance_mm(shape: Shape, first: np.ndarray, second: np.ndarray) -> float:
    """How far apart two affines put the same corner voxel of an array of ``shape``, at most."""
    last = [size - 1 for size in shape]
    corners = np.array([[i, j, k, 1] for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])], dtype=float)
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())
