"""Where voxels are: one 4x4 affine from array index (z, y, x) to RAS millimetres; everything else is derived."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
from pydantic import field_validator

from segfw.base.records import Record

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
Row = tuple[float, float, float, float]


def as_shape(sizes: Iterable[int]) -> Shape:
    """Three sizes (z, y, x) as a tuple; raises ValueError if there are more or fewer."""
    z, y, x = sizes
    return int(z), int(y), int(x)


def as_spacing(lengths_mm: Iterable[float]) -> Spacing:
    """Three lengths (z, y, x) as a tuple; raises ValueError if there are more or fewer."""
    z, y, x = lengths_mm
    return float(z), float(y), float(x)


def _as_row(values: Iterable[float]) -> Row:
    z, y, x, shift = values
    return float(z), float(y), float(x), float(shift)


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
    def of(shape: Iterable[int], affine: np.ndarray) -> Geometry:
        """Geometry from a NumPy 4x4 affine in (z, y, x) index order."""
        first, second, third, last = (_as_row(row) for row in affine)
        return Geometry(shape=as_shape(shape), affine=(first, second, third, last))

    @property
    def matrix(self) -> np.ndarray:
        """The affine as a float64 array, shape (4, 4)."""
        return np.asarray(self.affine, dtype=np.float64)

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size along each array axis: the column lengths of the affine."""
        return as_spacing(np.linalg.norm(self.matrix[:3, :3], axis=0))


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


def is_axial(geometry: Geometry) -> bool:
    """Whether the array's axes (z, y, x) run nearest to head and foot, front and back, left and right, either way."""
    nearest = np.abs(geometry.matrix[:3, :3] / geometry.spacing_mm).argmax(0)
    return nearest.tolist() == [2, 1, 0]


def axis_directions(geometry: Geometry) -> str:
    """Where the array's axes (z, y, x) run to, nearest: 'SAR' is to the head, to the front and to the right."""
    directions = geometry.matrix[:3, :3] / geometry.spacing_mm
    nearest = np.abs(directions).argmax(0)
    ends = [("LPI", "RAS")[int(directions[world, axis] > 0)][world] for axis, world in enumerate(nearest)]
    return "".join(ends)


def axis_order(geometry: Geometry) -> str:
    """Where a file's axes (x, y, z) run to, nearest, as nibabel's aff2axcodes says it: 'LPS'."""
    return axis_directions(geometry)[::-1]


def largest_displacement_mm(first: Geometry, second: Geometry) -> float:
    """How far apart the two grids put the same corner voxel, at most, in millimetres; shapes must be equal."""
    return corner_distance_mm(first.shape, first.matrix, second.matrix)


def corner_distance_mm(shape: Sequence[int], first: np.ndarray, second: np.ndarray) -> float:
    """How far apart two affines put the same corner voxel of an array of ``shape``, at most."""
    ends = [(0, size - 1) for size in shape]
    corners = np.array([[*corner, 1] for corner in product(*ends)], dtype=float)
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())
