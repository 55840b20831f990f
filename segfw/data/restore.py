"""From logits on the network's grid to classes on another grid of the same crop, block by block.

Logits are resized linearly (nearest along a thick axis), and at each voxel the largest wins; of regions, the last one
painted whose logit is above 0. Full-size logits never exist: a block of a few megabytes does, whatever the number of
classes. The result is that of full-size logits, because a resized value is a convex combination of its sources: what
wins at every source of a block wins in all of it, and what loses to one and the same rival at every source never wins.
"""

# K logits, C logits of those classes that may win, Z Y X space of the old or the new grid

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from segfw.data.geometry import Shape
from segfw.data.preprocess import PreprocessRecord, place_back
from segfw.data.resample import axis_matrix, thick_axis
from segfw.data.slabs import Block, Slab, one_slab

PART = (8, 32, 32)  # voxels that are filled or resized together on the CPU: fewer hold one class more often
CACHE_BYTES = 2 * 2**20  # that are worked on at a time on the CPU: three times faster than from memory
CPU_BLOCK_BYTES = 24 * 2**20  # of the logits that a block is made from: they stay in the processor's last cache
GPU_BLOCK_BYTES = 256 * 2**20
MOST_RIVALS = 6  # where more classes win somewhere, it costs more to find those that cannot than to resize them


class BlockResampler:
    """Linear resizing (nearest along the ``thick`` axis) of any block of a grid, from just the voxels it needs.

    The same numbers as from ``axis_matrix``, one product per axis.
    """

    def __init__(self, old_shape: Shape, new_shape: Shape, thick: int | None) -> None:
        self.old_shape, self.new_shape = tuple(old_shape), tuple(new_shape)
        orders = [0 if axis == thick else 1 for axis in range(3)]
        matrices = [axis_matrix(old, new, order) for old, new, order in zip(old_shape, new_shape, orders)]
        is_used = [matrix.numpy() != 0 for matrix in matrices]
        self._first = [used.argmax(1) for used in is_used]
        self._last = [used.shape[1] - 1 - used[:, ::-1].argmax(1) for used in is_used]
        self._matrices = {"cpu": matrices}

    @property
    def keeps_grid(self) -> bool:
        """True where nothing is resized."""
        return self.old_shape == self.new_shape

    def source(self, block: Block) -> Block:
        """The block of the old grid that a block of the new one is made from; both have explicit bounds."""
        return tuple(
            slice(int(first[part.start]), int(last[part.stop - 1]) + 1)
            for first, last, part in zip(self._first, self._last, block)
        )

    def complete(self, stop: int) -> int:
        """How many slices of the new grid can be made from slices 0 to ``stop`` of the old one."""
        return int(np.searchsorted(self._last[0], stop))

    def resize(self, values_kzyx: Tensor, block: Block) -> Tensor:
        """Values (K, Z, Y, X) of ``source(block)`` at the block's own voxels, float32 (K, Z, Y, X)."""
        if self.keeps_grid:
            return values_kzyx.float()
        device = str(values_kzyx.device)
        if device not in self._matrices:
            self._matrices[device] = [matrix.to(device) for matrix in self._matrices["cpu"]]
        along_z, along_y, along_x = (
            matrix[new, old] for matrix, new, old in zip(self._matrices[device], block, self.source(block))
        )
        same_z, same_y, same_x = (old == new for old, new in zip(self.old_shape, self.new_shape))
        result = values_kzyx.float()
        if not same_z:
            result = (along_z @ result.flatten(2)).unflatten(2, result.shape[2:])
        if not same_x:
            result = result @ along_x.T
        return result if same_y else along_y @ result


class Restoring:
    """Takes a stream of slabs and gives the classes on the file's own grid.

    With ``onto``, on the network's grid of another configuration instead, for the same case; ValueError if the two do
    not span the same crop along the same axes. With ``painted``, logits are of regions, and give the class that each
    region is painted as where its logit is above 0 (a probability of a half), later ones over earlier ones.
    """

    def __init__(
        self, record: PreprocessRecord, painted: Sequence[int] = (), onto: PreprocessRecord | None = None
    ) -> None:
        if onto is not None and (record.box, record.axis_order) != (onto.box, onto.axis_order):
            raise ValueError(f"the grids differ in their crop or axes: {record} and {onto}")
        shape, spacing_mm = record.cropped_shape, record.cropped_spacing_mm
        if onto is not None:
            shape, spacing_mm = onto.shape, onto.spacing_mm
        self._record, self._painted, self._onto = record, tuple(painted), onto
        self._resampler = BlockResampler(record.shape, shape, thick_axis(record.spacing_mm, spacing_mm))
        self._classes: np.ndarray | None = None  # made with the first slab, which tells their number
        self._done = 0  # slices of the new grid

    def add(self, slab: Slab) -> None:
        """Makes all slices of the result that this slab completes."""
        nothing = slice(slab.start, slab.start)
        count = slab.logits((nothing, nothing, nothing)).shape[0]
        if self._classes is None:
            most = max(self._painted, default=count - 1)
            self._classes = np.empty(self._resampler.new_shape, dtype=np.uint8 if most < 256 else np.uint16)
        stop = self._resampler.complete(slab.stop)
        on_cpu = slab.channels_azyx.device.type == "cpu"
        size = _block_size(PART, CPU_BLOCK_BYTES if on_cpu else GPU_BLOCK_BYTES, count)
        # Class of each winner; what is number ``count`` has no logit that is a number, or no region.
        table = np.array([*(self._painted or range(count)), 0], dtype=self._classes.dtype)
        for block in _blocks((slice(self._done, stop), *(slice(0, n) for n in self._resampler.new_shape[1:])), size):
            source = self._resampler.source(block)
            logits = slab.logits(source)
            self._classes[block] = table[self._winners(logits, block, PART if on_cpu else size)]
        self._done = stop

    def _winners(self, logits_kzyx: Tensor, block: Block, part_size: Shape) -> np.ndarray:
        winners = self._winner(logits_kzyx).cpu().numpy()
        if self._resampler.keeps_grid:
            return winners
        origin = self._resampler.source(block)
        result = np.empty([part.stop - part.start for part in block], dtype=winners.dtype)
        for part in _blocks(block, part_size):
            inside = _relative(self._resampler.source(part), origin)
            there = winners[inside]
            place = _relative(part, block)
            if (there == there[0, 0, 0]).all():
                result[place] = there[0, 0, 0]
                continue
            logits = logits_kzyx[(slice(None), *inside)]
            contenders = None if self._painted else _contenders(logits, np.unique(there))
            if contenders is not None:
                logits = logits[contenders]
            chosen = self._winner(self._resampler.resize(logits, part)).cpu().numpy()
            names = None if contenders is None else np.append(contenders.cpu().numpy(), len(logits_kzyx))
            result[place] = chosen if names is None else names[chosen]
        return result

    def _winner(self, logits_kzyx: Tensor) -> Tensor:
        find = last_above_zero if self._painted else first_largest
        if logits_kzyx.device.type != "cpu":
            return find(logits_kzyx)
        slices = max(1, CACHE_BYTES // (4 * prod(logits_kzyx[:, :1].shape)))
        return torch.cat([find(some) for some in logits_kzyx.split(slices, 1)])

    def result(self) -> np.ndarray:
        """Classes (Z, Y, X), uint8 or uint16, 0 outside the crop; ValueError before the last slab has come."""
        if self._classes is None or self._done != len(self._classes):
            raise ValueError(f"slabs complete {self._done} of {self._resampler.new_shape[0]} slices")
        return self._classes if self._onto is not None else place_back(self._classes, self._record)


def restored(
    slabs: Iterable[Slab], record: PreprocessRecord, painted: Sequence[int] = (), onto: PreprocessRecord | None = None
) -> np.ndarray:
    """The result of ``Restoring`` for a whole stream."""
    restoring = Restoring(record, painted, onto)
    for slab in slabs:
        restoring.add(slab)
    return restoring.result()


def restore(logits_kzyx: Tensor, record: PreprocessRecord, painted: Sequence[int] = ()) -> np.ndarray:
    """``restored`` for logits that exist as a whole: classes on the file's own grid."""
    return restored([one_slab(logits_kzyx)], record, painted)


def carry_over(
    logits_kzyx: Tensor, record: PreprocessRecord, target: PreprocessRecord, painted: Sequence[int] = ()
) -> np.ndarray:
    """``restored`` for logits that exist as a whole: classes on the network's grid of another configuration."""
    return restored([one_slab(logits_kzyx)], record, painted, target)


def first_largest(logits_kzyx: Tensor) -> Tensor:
    """Index of the largest of K at each voxel, int32, of equals the lowest; K where some are no number.

    As ``argmax``, which is ten times slower across the first axis on the CPU.
    """
    count = logits_kzyx.shape[0]
    ranks = torch.arange(count, 0, -1, dtype=torch.float32, device=logits_kzyx.device).view(-1, 1, 1, 1)
    largest = torch.empty(logits_kzyx.shape, dtype=torch.float32, device=logits_kzyx.device)
    torch.eq(logits_kzyx, logits_kzyx.amax(0), out=largest)  # as floats, for which the comparison is vectorised
    return (count - largest.mul_(ranks).amax(0)).int()


def last_above_zero(logits_kzyx: Tensor) -> Tensor:
    """Index of the last of K that is above 0 at each voxel, int32; K where none is."""
    count = logits_kzyx.shape[0]
    ranks = torch.arange(1, count + 1, dtype=torch.float32, device=logits_kzyx.device).view(-1, 1, 1, 1)
    last = ((logits_kzyx > 0) * ranks).amax(0).int()
    return torch.where(last == 0, count, last - 1)


def _contenders(logits_kzyx: Tensor, present: np.ndarray) -> Tensor | None:
    """Classes that may win between voxels, in order; None for all. ``present`` are those that win at some voxel.

    A class that is below one and the same rival everywhere cannot win; nor can one that is below the mean of some,
    which the largest of them is never below.
    """
    if len(present) > MOST_RIVALS or present[-1] == len(logits_kzyx):  # the latter where some are no number
        return None
    flat = logits_kzyx.flatten(1)
    winning = flat[torch.from_numpy(present.astype(np.int64))]
    rivals = torch.cat((winning.mean(0, keepdim=True), winning))
    # One number for each class says enough for most of them, and values are compared for the others only.
    may_win = (flat.amax(1) >= rivals.amin(1).max()).nonzero()[:, 0]
    for rival in rivals:
        may_win = may_win[(flat[may_win] - rival).amax(1) >= 0]
    return may_win


def _block_size(part: Shape, most_bytes: int, count: int) -> Shape:
    """Voxels of a block: parts doubled along one axis after the other as long as their logits take ``most_bytes``."""
    size, axis = list(part), 2
    while 2 * prod(size) * count * 4 <= most_bytes:
        size[axis] *= 2
        axis = (axis - 1) % 3
    return tuple(size)


def _blocks(within: Block, size: Shape) -> Iterator[Block]:
    z, y, x = (
        [slice(start, min(start + step, part.stop)) for start in range(part.start, part.stop, step)]
        for part, step in zip(within, size)
    )
    yield from ((in_z, in_y, in_x) for in_z in z for in_y in y for in_x in x)


def _relative(block: Block, origin: Block) -> Block:
    return tuple(slice(part.start - base.start, part.stop - base.start) for part, base in zip(block, origin))
