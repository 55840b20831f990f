"""Resampling as one matrix per axis.

Spline interpolation, prefilter included, is linear in its input, so resizing along one axis is a fixed (new, old)
matrix. A volume is resized by one matrix product per axis, which gives the same numbers as the slow 3-D spline
(``scipy.ndimage.zoom(mode="nearest", grid_mode=True)``) to float32 precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segfw.base.records import Record
from segfw.grid.boxes import blocks, whole_grid
from segfw.images.geometry import Shape, Spacing, as_shape

ANISOTROPY_LIMIT = 3.0  # above this ratio of spacings the thick axis is treated apart (nnU-Net's rule)
BAND_BLOCK = 64  # rows of a long axis' matrix that are applied at a time
SLAB_VOXELS = 1 << 22  # that are worked on at a time: small enough to stay near the processor
BLOCK_EDGE = 64  # voxels of classes, of which few meet in a block, and most blocks hold a single one


class Resampling(Record):
    """Orders of the splines: ``order`` along all axes but a thick one, and ``across`` along that.

    ``apart`` says whether the longest axis is treated as thick: always, never, or (None) above ANISOTROPY_LIMIT.
    """

    order: int
    across: int = 0
    apart: bool | None = None


OF_IMAGES = Resampling(order=3)
OF_LOGITS = Resampling(order=1)


@lru_cache(maxsize=256)
def axis_matrix(old: int, new: int, order: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Matrix (new, old) that resizes one axis with a spline of ``order``; order 0 picks the nearest voxel."""
    if order == 0:
        # Centre of the new voxel in old coordinates, rounded half up as scipy's map_coordinates does.
        centres = (np.arange(new) + 0.5) * (old / new) - 0.5
        matrix = np.zeros((new, old))
        matrix[np.arange(new), np.floor(centres + 0.5).astype(int).clip(0, old - 1)] = 1
        return torch.from_numpy(matrix).to(dtype)
    if old == 1:
        return torch.ones(new, 1, dtype=dtype)
    matrix = ndimage.zoom(np.eye(old), (new / old, 1), order=order, mode="nearest", grid_mode=True)
    if dtype == torch.float32:
        # The spline's decaying tails end in float32 denormals, which make the product ten times slower.
        matrix[np.abs(matrix) < 1e-9] = 0
    return torch.from_numpy(matrix).to(dtype)


def resampled_shape(shape: Shape, spacing_mm: Spacing, target_mm: Spacing) -> Shape:
    """Voxels per axis that cover the same extent at ``target_mm``; at least one."""
    return as_shape(max(1, round(old / new * size)) for size, old, new in zip(shape, spacing_mm, target_mm))


def thick_axis(spacing_mm: Spacing, target_mm: Spacing, apart: bool | None = None) -> int | None:
    """The axis that is resampled apart, by default by nearest neighbour, because its voxels are far longer, or None.

    nnU-Net's rule: the ratio of the longest to the shortest side over 3 in the current spacing, else in the target;
    with ``apart`` True whatever the ratio, in the current one; no axis if two are equally long.
    """
    if apart is False:
        return None
    for spacing in (spacing_mm, target_mm):
        if apart or max(spacing) / min(spacing) > ANISOTROPY_LIMIT:
            longest = [axis for axis in range(3) if spacing[axis] == max(spacing)]
            return longest[0] if len(longest) == 1 else None
    return None


def resample_image(image_czyx: Tensor, shape: Shape, thick: int | None, resampling: Resampling = OF_IMAGES) -> Tensor:
    """Image (C, Z, Y, X) float32 at ``shape``: cubic spline, nearest along the ``thick`` axis, or as ``resampling``.

    Clipped to the input's range (per slice across the thick axis), as the reference does, so that the spline cannot
    overshoot; what is interpolated along the thick axis is not clipped again.
    """
    if tuple(image_czyx.shape[1:]) == tuple(shape):
        return image_czyx
    in_plane = tuple(axis for axis in range(3) if axis != thick)
    range_axes = tuple(axis + 1 for axis in in_plane)
    low = image_czyx.amin(range_axes, keepdim=True)
    high = image_czyx.amax(range_axes, keepdim=True)
    result = image_czyx
    for axis in in_plane:
        matrix = axis_matrix(image_czyx.shape[axis + 1], shape[axis], resampling.order)
        result = _along_axis(result, matrix, axis + 1)
    result = torch.clamp(result, low, high)
    if thick is None:
        return result
    if resampling.across:
        matrix = axis_matrix(image_czyx.shape[thick + 1], shape[thick], resampling.across)
        return _along_axis(result, matrix, thick + 1)
    return _pick(result, thick + 1, shape[thick])


# Gives slices [start, stop) of an image along its first axis, float32 (N, Y, X).
Slices = Callable[[int, int], Tensor]


def resample_slices(
    slices: Slices,
    old_shape: Shape,
    out_zyx: Tensor,
    thick: int | None,
    bounds: tuple[float, float],
    order: int = 3,
    *,
    slab_voxels: int = SLAB_VOXELS,
) -> None:
    """As ``resample_image`` for one channel that comes slice by slice, written into ``out_zyx`` in its data type.

    Only slices of about ``slab_voxels`` exist as float32 at a time, so that memory is that of the result. ``bounds`` is
    the range of the image's values; ``thick`` is None or 0, the axis along which slices come and the nearest is taken.
    """
    new_shape = as_shape(out_zyx.shape)
    in_plane = [axis_matrix(old_shape[axis], new_shape[axis], order) for axis in (1, 2)]

    def resized(part: Tensor) -> Tensor:
        for axis, matrix in enumerate(in_plane, start=1):
            part = _along_axis(part, matrix, axis)
        return part

    voxels_per_slice = max(old_shape[1] * old_shape[2], new_shape[1] * new_shape[2])
    thickness = max(1, slab_voxels // voxels_per_slice)
    starts = range(0, new_shape[0], thickness)
    slabs = [slice(start, min(start + thickness, new_shape[0])) for start in starts]
    if thick == 0:
        nearest = axis_matrix(old_shape[0], new_shape[0], 0).argmax(1)
        for slab in slabs:
            out_zyx[slab] = _nearest_slices(slices, nearest[slab], resized)
        return
    matrix = axis_matrix(old_shape[0], new_shape[0], order)
    used = [_extent(matrix[slab].any(0)) for slab in slabs]
    held = resized(slices(0, 0))  # old slices from ``first`` on, resized in their plane
    first = 0
    for number, slab in enumerate(slabs):
        # Slices that this slab or a later one needs are kept, and those that are new to it added.
        start = min(part.start for part in used[number:])
        stop = used[number].stop
        last = first + len(held)
        held = held[start - first :]
        first = start
        if stop > last:
            held = torch.cat((held, resized(slices(max(last, start), stop))))
        rows = matrix[slab, first : first + len(held)]
        out_zyx[slab] = _along_axis(held, rows, 0).clamp_(*bounds)


def _nearest_slices(slices: Slices, nearest: Tensor, resized: Callable[[Tensor], Tensor]) -> Tensor:
    """The slices of these numbers, which ascend, each resized in its plane and clipped to its own range."""
    numbers, place = torch.unique_consecutive(nearest, return_inverse=True)
    parts = []
    for number in numbers.tolist():
        old_slice = slices(number, number + 1)
        parts.append(resized(old_slice).clamp(old_slice.min(), old_slice.max()))
    return torch.cat(parts)[place]


def resample_classes(classes_zyx: Tensor, shape: Shape, thick: int | None, *, block_edge: int = BLOCK_EDGE) -> Tensor:
    """Class indices (Z, Y, X) at ``shape``: each class linearly inside its own box, the heaviest class wins.

    Nearest along the ``thick`` axis. Among equally heavy classes the nearest voxel's wins, as in nnU-Net; they are not
    rare: from 1.25 to 1.5 mm every fifth new slice lies halfway between two old ones, and to let the lower index win
    there would wear every structure away. Weights are of float64 and none is cut off, because what rounding makes of a
    tie there, such as a weight of 4e-15 for a third slice, settles it in nnU-Net for whole rows of voxels. Works block
    by block, of ``block_edge`` voxels at most along each axis of either grid, about.
    """
    if tuple(classes_zyx.shape) == tuple(shape):
        return classes_zyx
    if classes_zyx.dtype == torch.uint16:  # for which torch has hardly any operation
        return resample_classes(classes_zyx.int(), shape, thick, block_edge=block_edge).to(torch.uint16)
    old_shape = as_shape(classes_zyx.shape)
    orders = [0 if axis == thick else 1 for axis in range(3)]
    matrices = [axis_matrix(old, new, order, torch.float64) for old, new, order in zip(old_shape, shape, orders)]
    nearest_of = [axis_matrix(old, new, 0).argmax(1).numpy() for old, new in zip(old_shape, shape)]
    result = torch.empty(shape, dtype=classes_zyx.dtype)
    for block in blocks(whole_grid(shape), block_size(old_shape, shape, block_edge)):
        used = [_extent(matrix[rows].any(0)) for matrix, rows in zip(matrices, block)]
        part = classes_zyx[tuple(used)]
        picks = [nearest[rows] - source.start for nearest, rows, source in zip(nearest_of, block, used)]
        parts = [matrix[rows, source] for matrix, rows, source in zip(matrices, block, used)]
        result[block] = _heaviest(part, parts, _nearest(part, picks))
    return result


def block_size(old_shape: Shape, shape: Shape, edge: int = BLOCK_EDGE) -> Shape:
    """Voxels of a block of the new grid: ``edge`` at most along each axis, and made of as many old ones, about."""
    return as_shape(max(1, edge * new // max(old, new)) for old, new in zip(old_shape, shape))


def _heaviest(classes_zyx: Tensor, matrices: list[Tensor], nearest: Tensor) -> Tensor:
    """Class with the largest weight at every voxel of the new grid, which ``nearest`` has the shape of."""
    # One pass finds the boxes of all classes; a search per class would read the volume as often as there are classes.
    boxes = {index: box for index, box in enumerate(ndimage.find_objects(classes_zyx.numpy()), start=1) if box}
    if (classes_zyx == 0).any():
        boxes = {0: (slice(None),) * 3} | boxes
    lowest, *others = boxes
    result = torch.full(nearest.shape, lowest, dtype=classes_zyx.dtype)
    if not others:
        return result
    best = _along_axes((classes_zyx == lowest).double(), matrices)
    for value in others:
        source = boxes[value]
        columns = [matrix[:, part] for matrix, part in zip(matrices, source)]
        reached = [part.any(1) for part in columns]  # rows of the new grid that the class has any weight in
        if not all(rows.any() for rows in reached):  # thinner than the new voxels, and between their centres
            continue
        target = tuple(_extent(rows) for rows in reached)
        mask = (classes_zyx[source] == value).double()
        weight = _along_axes(mask, [part[rows] for part, rows in zip(columns, target)])
        wins = (weight > best[target]) | ((weight == best[target]) & (nearest[target] == value))
        best[target] = torch.maximum(best[target], weight)
        result[target] = result[target].masked_fill(wins, value)
    return result


def _nearest(part_zyx: Tensor, picks: list[np.ndarray]) -> Tensor:
    """Voxels that are picked along each axis, by NumPy, whose gather of bytes is many times faster than torch's."""
    array = part_zyx.numpy()
    for axis, chosen in enumerate(picks):
        array = array.take(chosen, axis, mode="clip")
    return torch.from_numpy(array)


def _along_axis(array: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Applies a (new, old) matrix along one axis of an array.

    A new voxel depends on the old ones near it, so that the matrix is a band. Long axes are done block by block, each
    from the part of the array that it depends on.
    """
    new, old = matrix.shape
    if new == old and torch.equal(matrix, torch.eye(new, device=matrix.device)):
        return array
    if old <= 2 * BAND_BLOCK or new <= BAND_BLOCK:
        return _product(array, matrix, axis)
    result = array.new_empty((*array.shape[:axis], new, *array.shape[axis + 1 :]))
    for start in range(0, new, BAND_BLOCK):
        rows = matrix[start : start + BAND_BLOCK]
        used = _extent(rows.any(0))
        part = _product(array.narrow(axis, used.start, used.stop - used.start), rows[:, used], axis)
        result.narrow(axis, start, len(rows)).copy_(part)
    return result


def _product(array: Tensor, matrix: Tensor, axis: int) -> Tensor:
    if axis == array.ndim - 1:
        return array @ matrix.T
    if axis == array.ndim - 2:
        return matrix @ array
    return (matrix @ array.flatten(axis + 1)).unflatten(-1, array.shape[axis + 1 :])


def _pick(array: Tensor, axis: int, size: int) -> Tensor:
    """Nearest neighbour along one axis: an index gather."""
    if array.shape[axis] == size:
        return array
    return array.index_select(axis, axis_matrix(array.shape[axis], size, 0).argmax(1))


def _along_axes(array_zyx: Tensor, matrices: list[Tensor]) -> Tensor:
    for axis, matrix in enumerate(matrices):
        array_zyx = _along_axis(array_zyx, matrix, axis)
    return array_zyx


def _extent(line: Tensor) -> slice:
    """Slice from the first to the last True."""
    found = line.nonzero()
    return slice(int(found[0]), int(found[-1]) + 1)
