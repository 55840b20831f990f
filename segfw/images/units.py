"""What lengths and sizes of an image are counted in: in millimetres where these are known, else in pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segfw.images.geometry import Geometry, Shape


@dataclass(frozen=True, kw_only=True)
class Units:
    """Units of one kind of image, as they stand in the names of columns, behind numbers and above tables.

    ``length`` is of distances and of voxel edges, ``size`` of what a label takes, which is its ``extent``: a volume or
    an area. A voxel whose edges are all 1 takes ``unit_voxel``. ``per_ml`` stands for a millilitre where sizes are told
    apart (``Measures.strata_ml``).
    """

    length: str
    size: str
    extent: str
    unit_voxel: float
    per_ml: float

    def voxel_size(self, geometry: Geometry) -> float:
        """What one voxel of an image takes, in ``size``: the one place where volumes and areas come from.

        By the affine and not by the lengths of its axes, of which a gantry tilt makes parallelograms. The only slice of
        an area has no thickness.
        """
        axes_mm = geometry.matrix[:3, :3]
        if self == SLICE:
            first, second = np.delete(axes_mm, geometry.shape.index(1), axis=1).T
            return float(np.linalg.norm(np.cross(first, second))) * self.unit_voxel
        return float(abs(np.linalg.det(axes_mm))) * self.unit_voxel


SCAN = Units(length="mm", size="ml", extent="volume", unit_voxel=0.001, per_ml=1.0)
SLICE = Units(length="mm", size="mm2", extent="area", unit_voxel=1.0, per_ml=1000.0)
# A photograph, or a stack of pictures that says nothing of its pixels: its geometry is nominal, with edges of 1.
PICTURE = Units(length="px", size="px", extent="area", unit_voxel=1.0, per_ml=1000.0)
ALL_UNITS = (SCAN, SLICE, PICTURE)


def units_of(shape: Shape, *, is_placed: bool) -> Units:
    """Units of an image of ``shape``; ``is_placed`` is False where its geometry is nominal (see ``Volume``)."""
    if not is_placed:
        return PICTURE
    return SLICE if 1 in shape else SCAN


def lengths_in(units: Iterable[Units]) -> str:
    """'mm', 'px', or 'mm or px' where there are images of both kinds."""
    found = set(units)
    return " or ".join(dict.fromkeys(one.length for one in ALL_UNITS if one in found))
