"""From logits on the network's grid to classes on another grid of the same crop, block by block.

Logits are resized linearly (nearest along a thick axis), and at each voxel the largest wins; of regions, the last one
painted whose logit is above 0. Full-size logits never exist: some thousand voxels at a time do, whatever the number of
classes. Where logits are made of fewer channels by a last linear layer, it is the channels that are resized. The result
is that of full-size logits, because a resized value is a convex combination of its sources: what wins at every source
of a part wins in all of it.
"""

# K logits, A channels that they are made of, N voxels, Z Y X space of the old or the new grid

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.grid.preprocess import PreprocessRecord, place_back
from segfw.grid.resample import OF_LOGITS, Resampling, axis_matrix, thick_axis
from segfw.grid.slabs import Block, Slab, one_slab
from segfw.images.geometry import Shape

PART = (8, 32, 32)  # voxels that are filled or resized together on the CPU
CPU_BLOCK_BYTES = 24 * 2**20  # of the channels that a block is made from: they stay in the processor's last cache
GPU_BLOCK_BYTES = 256 * 2**20
CPU_ROWS, GPU_ROWS = 2**13, 2**20  # voxels whose logits exist at a time
MOSTLY_MIXED, LOOK_EVERY = 0.6, 8  # share of mixed parts from which it is dearer to look than to resize all; blocks
VECTOR = 16  # float32 in a register of the processor


class BlockResampler:
    """Linear resizing (nearest along the ``thick`` axis) of any block of a grid, from just the voxels it needs.

    The same numbers as from ``axis_matrix``, one product per axis. ``how`` may ask for other orders than these, 0 or 1:
    others are no convex combinations.
    """

    def __init__(self, old_shape: Shape, new_shape: Shape, thick: int | None, how: Resampling = OF_LOGITS) -> None:
        self.old_shape, self.new_shape = tuple(old_shape), tuple(new_shape)
        orders = [how.across if axis == thick else how.order for axis in range(3)]
        matrices = [axis_matrix(old, new, order) for old, new, order in zip(old_shape, new_shape, orders)]
        is_used = [matrix.numpy() != 0 for matrix in matrices]
        self._first = [used.argmax(1) for used in is_used]
        self._last = [used.shape[1] - 1 - used[:, ::-1].argmax(1) for used in is_used]
        self._matrices = {"cpu": matrices}

    @classmethod
    def back(cls, record: PreprocessRecord, onto: PreprocessRecord | None = None) -> BlockResampler:
        """From the network's grid to the voxels of the crop as stored, or onto another network's grid."""
        shape, spacing_mm = record.cropped_shape, record.cropped_spacing_mm
        if onto is not None:
            shape, spacing_mm = onto.shape, onto.spacing_mm
        how = record.logits
        return cls(record.shape, shape, thick_axis(record.spacing_mm, spacing_mm, how.apart), how)

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
        along_z, along_y, along_x = self._along(values_kzyx.device, block)
        result = values_kzyx.float()
        if along_z is not None:
            result = (along_z @ result.flatten(2)).unflatten(2, result.shape[2:])
        if along_x is not None:
            result = result @ along_x.T
        return result if along_y is None else along_y @ result

    def resize_rows(self, values_zyxa: Tensor, block: Block) -> Tensor:
        """As ``resize``, of channels that lie next to each other: (Z, Y, X, A) float32."""
        along_z, along_y, along_x = self._along(values_zyxa.device, block)
        result = values_zyxa
        if along_z is not None:
            result = (along_z @ result.flatten(1)).unflatten(1, result.shape[1:])
        if along_y is not None:
            result = (along_y @ result.flatten(2)).unflatten(2, result.shape[2:])
        return result if along_x is None else along_x @ result

    def _along(self, device: torch.device, block: Block) -> list[Tensor | None]:
        """The part of each axis' matrix that makes a block; None along axes that stay as they are."""
        if str(device) not in self._matrices:
            self._matrices[str(device)] = [matrix.to(device) for matrix in self._matrices["cpu"]]
        return [
            None if old == new else matrix[to, start]
            for old, new, matrix, to, start in zip(
                self.old_shape, self.new_shape, self._matrices[str(device)], block, self.source(block)
            )
        ]


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
        self._record, self._painted, self._onto = record, tuple(painted), onto
        self._resampler = BlockResampler.back(record, onto)
        self._classes: np.ndarray | None = None  # made with the first slab, which tells their number
        self._done = 0  # slices of the new grid
        self._mixed, self._blind = 0.0, 0  # share of mixed parts in the last block looked at; blocks resized since

    def add(self, slab: Slab) -> None:
        """Makes all slices of the result that this slab completes."""
        count = slab.outputs
        if self._classes is None:
            most = max(self._painted, default=count - 1)
            self._classes = np.empty(self._resampler.new_shape, dtype=np.uint8 if most < 256 else np.uint16)
            # Class of each winner; what is number ``count`` has no logit that is a number, or no region.
            self._table = np.array([*(self._painted or range(count)), 0], dtype=self._classes.dtype)
        stop = self._resampler.complete(slab.stop)
        on_cpu = slab.channels_azyx.device.type == "cpu"
        winners = _Winners(
            slab.last_layer(), count, of_regions=bool(self._painted), rows=CPU_ROWS if on_cpu else GPU_ROWS
        )
        size = _block_size(PART, CPU_BLOCK_BYTES if on_cpu else GPU_BLOCK_BYTES, len(slab.channels_azyx))
        for block in _blocks((slice(self._done, stop), *(slice(0, n) for n in self._resampler.new_shape[1:])), size):
            found = self._found(slab.rows(self._resampler.source(block)), block, winners, PART if on_cpu else size)
            self._classes[block] = self._table[found]
        self._done = stop

    def _found(self, channels_zyxa: Tensor, block: Block, winners: _Winners, part_size: Shape) -> np.ndarray:
        if self._resampler.keeps_grid:
            return winners(channels_zyxa)
        self._blind = 0 if self._mixed < MOSTLY_MIXED else (self._blind + 1) % LOOK_EVERY
        there = winners(channels_zyxa) if self._blind == 0 else None
        origin, result = self._resampler.source(block), np.empty([part.stop - part.start for part in block], np.int64)
        parts, mixed = list(_blocks(block, part_size)), 0
        for part in parts:
            inside, place = _relative(self._resampler.source(part), origin), _relative(part, block)
            if there is not None and (there[inside] == there[inside][0, 0, 0]).all():
                result[place] = there[inside][0, 0, 0]
            else:
                result[place] = winners(self._resampler.resize_rows(channels_zyxa[inside], part))
                mixed += 1
        if there is not None:
            self._mixed = mixed / len(parts)
        return result

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


def restore(
    logits_kzyx: Tensor, record: PreprocessRecord, painted: Sequence[int] = (), onto: PreprocessRecord | None = None
) -> np.ndarray:
    """``restored`` for logits that exist as a whole."""
    return restored([one_slab(logits_kzyx)], record, painted, onto)


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


class _Winners:
    """Index of the winner at each voxel, of K logits or of what they are made of; K where there is none.

    ``last_layer`` is (K, A) weights and (K,) biases. Only ``rows`` voxels' logits exist at a time, in one buffer.
    """

    def __init__(self, last_layer: tuple[Tensor, Tensor] | None, count: int, *, of_regions: bool, rows: int) -> None:
        self._count, self._of_regions, self._rows = count, of_regions, rows
        self._buffer: Tensor | None = None
        self._last_layer = None
        if last_layer is not None:
            weights_ka, bias_k = last_layer
            # Whole registers of classes, which is faster by a third; those added never win.
            added = -len(bias_k) % VECTOR
            padded = F.pad(weights_ka, (0, 0, 0, added)).T.contiguous()
            self._last_layer = padded, F.pad(bias_k, (0, added), value=-torch.inf)

    def __call__(self, channels_zyxa: Tensor) -> np.ndarray:
        """(Z, Y, X) int64 of channels (Z, Y, X, A)."""
        found = [self._of(rows) for rows in channels_zyxa.flatten(0, 2).split(self._rows)]
        return np.concatenate(found).reshape(channels_zyxa.shape[:3])

    def _of(self, channels_na: Tensor) -> np.ndarray:
        logits_nk = self._logits(channels_na)
        if self._of_regions:
            logits_kn = logits_nk[:, : self._count].T
            return last_above_zero(logits_kn[:, :, None, None]).flatten().cpu().numpy()
        if logits_nk.device.type != "cpu":
            best, found = logits_nk.max(1)
            return found.masked_fill(best.isnan(), self._count).cpu().numpy()
        # By NumPy, whose argmax along the last axis is vectorised. It finds what is no number first.
        logits = logits_nk.numpy()
        found = logits.argmax(1)
        if not channels_na.sum().isfinite():  # seldom, and then worth a look at each voxel
            found[np.isnan(logits[np.arange(len(found)), found])] = self._count
        return found

    def _logits(self, channels_na: Tensor) -> Tensor:
        if self._last_layer is None:
            return channels_na
        weights_ak, bias_k = self._last_layer
        if self._buffer is None:
            self._buffer = channels_na.new_empty(self._rows, len(bias_k))
        return torch.addmm(bias_k, channels_na, weights_ak, out=self._buffer[: len(channels_na)])


def _block_size(part: Shape, most_bytes: int, count: int) -> Shape:
    """Voxels of a block: parts doubled along one axis after the other as long as their channels take ``most_bytes``."""
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
