"""From the order in which a mask's file is stored to the one in which the page gets it, and back.

The page gets every volume in closest RAS order, x fastest: axis x runs to the patient's right, y to the front, z to the
head, as near as the file's axes do. Then its viewer's own order is the order of the bytes, and what was painted comes
back as it was sent. In memory that is segfw's canonical orientation, (z, y, x) in C order. Large volumes are served as
a box. Everything here is of indexes alone: no voxel is interpolated, and oblique and sheared axes stay as they are.
"""

# z y x space, of the served grid unless said

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segfw.grid.boxes import Bounds, Box, cut
from segfw.images.geometry import Geometry, Shape, Spacing
from segfw.images.volume import CANONICAL_ORIENTATION

MARGIN_MM = 25.0  # around the structures of a box
LARGEST_WHOLE = 30_000_000  # voxels of a volume that is served as a whole
LEAST_MARGIN = 4  # voxels


@dataclass(frozen=True)
class ServedGrid:
    """How a file's grid is turned for the page, and which ``box`` of the turned grid is served."""

    file: Geometry
    box: Box

    @staticmethod
    def whole(file: Geometry) -> ServedGrid:
        """The whole grid of a file."""
        z, y, x = turned_shape(file)
        return ServedGrid(file, ((0, z), (0, y), (0, x)))

    @property
    def shape(self) -> Shape:
        """Voxels (z, y, x) that are served."""
        z, y, x = (stop - start for start, stop in self.box)
        return z, y, x

    @property
    def full_shape(self) -> Shape:
        """Voxels (z, y, x) of the whole turned grid."""
        return turned_shape(self.file)

    @property
    def is_whole(self) -> bool:
        """Whether the box is all of the grid."""
        return self.shape == self.full_shape

    @property
    def voxels(self) -> int:
        """Number of voxels that are served."""
        return math.prod(self.shape)

    @cached_property
    def geometry(self) -> Geometry:
        """Where the served voxels are in the patient."""
        from nibabel.orientations import inv_ornt_aff

        turned = self.file.matrix @ inv_ornt_aff(_turn(self.file), self.file.shape)
        start = np.eye(4)
        start[:3, 3] = [start for start, _ in self.box]
        return Geometry.of(self.shape, turned @ start)

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size (z, y, x)."""
        return self.geometry.spacing_mm

    def cut_out(self, array: np.ndarray) -> np.ndarray:
        """The box, of an array (..., Z, Y, X) in the file's order; contiguous, so that its bytes are what is served."""
        from nibabel.orientations import apply_orientation

        turned = apply_orientation(np.moveaxis(array, (-3, -2, -1), (0, 1, 2)), _turn(self.file))
        return np.ascontiguousarray(cut(np.moveaxis(turned, (0, 1, 2), (-3, -2, -1)), self.box))

    def put_back(self, whole_zyx: np.ndarray, part_zyx: np.ndarray) -> np.ndarray:
        """The array (Z, Y, X) in the file's order, with ``part_zyx`` in the place of the box."""
        result = whole_zyx.copy()
        turned = _view_in_served_order(result, self.file)
        cut(turned, self.box)[...] = part_zyx
        return result

    def of_file_box(self, box: Box) -> Box | None:
        """A box of the file's grid as one of what is served; None if they have nothing in common."""
        bounds: list[Bounds] = []
        ends = zip(_turned_bounds(box, self.file), self.box)
        for (start, stop), (first, end) in ends:
            low = max(start, first) - first
            high = min(stop, end) - first
            if low >= high:
                return None
            bounds.append((low, high))
        z, y, x = bounds
        return z, y, x

    def part_of_file_box(self, array_zyx: np.ndarray, box: Box) -> np.ndarray:
        """Of the array of a box of the file's grid, what lies in the served one, as served; empty if nothing does."""
        from nibabel.orientations import apply_orientation

        turned = apply_orientation(array_zyx, _turn(self.file))
        z, y, x = (
            slice(max(0, first - start), max(0, min(stop, end) - start))
            for (start, stop), (first, end) in zip(_turned_bounds(box, self.file), self.box)
        )
        return np.ascontiguousarray(turned[z, y, x])

    def file_box(self, box: Box) -> Box:
        """A box of what is served as one of the file's grid."""
        bounds: list[Bounds] = []
        for axis, (target, sign) in enumerate(_turn(self.file)):
            start, stop = (index + self.box[int(target)][0] for index in box[int(target)])
            size = self.file.shape[axis]
            bounds.append((start, stop) if sign > 0 else (size - stop, size - start))
        z, y, x = bounds
        return z, y, x

    def in_file_order(self, part_zyx: np.ndarray) -> np.ndarray:
        """A part of what is served, turned as the file stores it."""
        from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

        back = ornt_transform(CANONICAL_ORIENTATION, io_orientation(self.file.matrix))
        return np.ascontiguousarray(apply_orientation(part_zyx, back))

    def of_file_point(self, point: Iterable[float]) -> tuple[float, float, float]:
        """An index (z, y, x) of the file's grid as one of what is served; it may lie outside."""
        stored = list(point)
        result = [0.0, 0.0, 0.0]
        for axis, (target, sign) in enumerate(_turn(self.file)):
            value = stored[axis] if sign > 0 else self.file.shape[axis] - 1 - stored[axis]
            result[int(target)] = value - self.box[int(target)][0]
        z, y, x = result
        return z, y, x


def turned_shape(file: Geometry) -> Shape:
    """Voxels (z, y, x) of a file's grid in the order in which it is served."""
    shape = [0, 0, 0]
    for axis, (target, _) in enumerate(_turn(file)):
        shape[int(target)] = file.shape[axis]
    z, y, x = shape
    return z, y, x


def served_box(file: Geometry, boxes: Iterable[Box], *, largest_whole: int = LARGEST_WHOLE) -> ServedGrid:
    """What is served of a file: all of it, or, where that is too much, a box around ``boxes`` of the file's grid.

    Around them there are 25 mm on every side. Where there is nothing to put a box around, all of it.
    """
    whole = ServedGrid.whole(file)
    inside = [_turned_bounds(box, file) for box in boxes]
    if whole.voxels <= largest_whole or not inside:
        return whole
    bounds: list[Bounds] = []
    for axis, (size, edge_mm) in enumerate(zip(whole.shape, whole.spacing_mm)):
        margin = max(LEAST_MARGIN, math.ceil(MARGIN_MM / edge_mm))
        start = min(box[axis][0] for box in inside) - margin
        stop = max(box[axis][1] for box in inside) + margin
        bounds.append((max(0, start), min(size, stop)))
    z, y, x = bounds
    return ServedGrid(file, (z, y, x))


def is_seen_as_served(affine_xyz: np.ndarray) -> bool:
    """Whether NiiVue takes an affine (of x, y, z) for one in RAS order, so that it keeps the order of the voxels.

    It takes for each axis of the file, one after the other, the patient's axis that is nearest and not yet taken
    (``calculateRAS``); of axes that are far oblique and sheared that can be another order than the best one.
    """
    directions = affine_xyz[:3, :3]
    size = np.abs(directions)
    is_x_first = size[0, 0] >= size[1, 0] and size[0, 0] >= size[2, 0]
    is_y_second = size[1, 1] > size[2, 1]
    return bool(is_x_first and is_y_second and (np.diag(directions) > 0).all())


def straightened(affine_xyz: np.ndarray, shape_xyz: Iterable[int]) -> np.ndarray:
    """The affine of a grid of the same voxel sizes and the same middle, whose axes are the patient's."""
    edges_mm = np.linalg.norm(affine_xyz[:3, :3], axis=0)
    middle = np.array([*((size - 1) / 2 for size in shape_xyz), 1.0])
    result = np.diag([*edges_mm, 1.0])
    result[:3, 3] = (affine_xyz @ middle)[:3] - edges_mm * middle[:3]
    return result


def _turn(file: Geometry) -> np.ndarray:
    """For each axis of the file: which served axis it becomes, and -1 where it is flipped."""
    from nibabel.orientations import io_orientation, ornt_transform

    return ornt_transform(io_orientation(file.matrix), CANONICAL_ORIENTATION)


def _turned_bounds(box: Box, file: Geometry) -> Box:
    """A box of the file's grid as one of the whole turned grid."""
    bounds: list[Bounds] = [(0, 0)] * 3
    for axis, (target, sign) in enumerate(_turn(file)):
        start, stop = box[axis]
        size = file.shape[axis]
        bounds[int(target)] = (start, stop) if sign > 0 else (size - stop, size - start)
    z, y, x = bounds
    return z, y, x


def _view_in_served_order(array_zyx: np.ndarray, file: Geometry) -> np.ndarray:
    """A view of the file's array in the order in which it is served: what is written into it is in the array."""
    turn = _turn(file)
    flips = tuple(slice(None, None, 1 if sign > 0 else -1) for _, sign in turn)
    order = np.argsort(turn[:, 0])
    return array_zyx[flips].transpose(order)
