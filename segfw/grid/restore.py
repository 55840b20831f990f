"""From logits on the network's grid to classes on another grid of the same crop, block by block.

Logits are resized linearly (nearest along a thick axis), and at each voxel the largest wins; of regions, the last one
painted whose logit is above 0. Full-size logits never exist: some thousand voxels at a time do, whatever the number of
classes. Where logits are made of fewer channels by a last linear layer, it is the channels that are resized. The result
is that of full-size logits, because a resized value is a convex combination of its sources: what wins at every source
of a part wins in all of it.
"""

# K logits, A channels that they are made of, Z Y X space of the old or the new grid

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segfw.grid.block_resampler import BlockResampler
from segfw.grid.boxes import Block, blocks, relative, shape_of
from segfw.grid.expected_dice import ExpectedDice
from segfw.grid.preprocess import PreprocessRecord, place_back
from segfw.grid.slabs import Slab, one_slab
from segfw.grid.winners import Winners
from segfw.images.geometry import Shape

PART = (8, 32, 32)  # voxels that are filled or resized together on the CPU
# Where only some classes are wanted: classes that are tried against them, and how far apart these are looked for.
MOST_RIVALS = 12
RIVALS_EVERY = 4
CPU_BLOCK_BYTES = 24 * 2**20  # of the channels that a block is made from: they stay in the processor's last cache
GPU_BLOCK_BYTES = 256 * 2**20
# Voxels whose logits exist at a time.
CPU_ROWS = 2**13
GPU_ROWS = 2**20
MOSTLY_MIXED = 0.6  # share of mixed parts from which it is dearer to look than to resize all
LOOK_EVERY = 8  # blocks, where parts are mostly mixed


class Restoring:
    """Takes a stream of slabs and gives the classes on the file's own grid.

    With ``onto``, on the network's grid of another configuration instead, for the same case; ValueError if the two do
    not span the same crop along the same axes. With ``painted``, logits are of regions, and give the class that each
    region is painted as where its logit is above 0 (a probability of a half), later ones over earlier ones.

    With ``only`` these outputs alone are wanted, and wherever none of them wins the class is 0: as the whole result
    would be, with the others taken out, for less work. Not of regions, and not together with ``temperatures``.

    Outputs that have ``temperatures`` get their mask of largest expected Dice (``expected_dice.py``), ``scratch`` is
    where doubt goes that is too much for memory.

    ``part``, ``cpu_block_bytes`` and ``cpu_rows`` bound what is worked on at a time on a CPU; no result depends on it.
    With ``on_device`` classes are found where the logits lie, in large blocks, and come to the host as a byte each;
    without, by NumPy in blocks for a processor's cache; None: as is quick where the slabs lie.
    """

    def __init__(
        self,
        record: PreprocessRecord,
        painted: Sequence[int] = (),
        onto: PreprocessRecord | None = None,
        *,
        only: Sequence[int] = (),
        temperatures: Mapping[int, float] | None = None,
        scratch: Path | None = None,
        part: Shape = PART,
        cpu_block_bytes: int = CPU_BLOCK_BYTES,
        cpu_rows: int = CPU_ROWS,
        on_device: bool | None = None,
    ) -> None:
        if onto is not None and (record.box, record.axis_order) != (onto.box, onto.axis_order):
            raise ValueError(f"the grids differ in their crop or axes: {record} and {onto}")
        if only and (painted or temperatures):
            raise ValueError("only some outputs are restored where the largest logit wins")
        self._only = tuple(only)
        self._record = record
        self._painted = tuple(painted)
        self._onto = onto
        self._part = part
        self._cpu_block_bytes = cpu_block_bytes
        self._cpu_rows = cpu_rows
        self._on_device = on_device
        self._resampler = BlockResampler.back(record, onto)
        self._expected_dice: ExpectedDice | None = None
        if temperatures:
            self._expected_dice = ExpectedDice(temperatures, of_regions=bool(painted), scratch=scratch)
        self._classes: np.ndarray | None = None  # made with the first slab, which tells their number
        self._done = 0  # slices of the new grid
        self._mixed_share = 0.0  # of the parts of the last block that was looked at
        self._blocks_unseen = 0  # resized since without a look

    def add(self, slab: Slab) -> None:
        """Makes all slices of the result that this slab completes."""
        with ExitStack() as held:
            if self._expected_dice is not None:
                held.enter_context(self._expected_dice.all_or_nothing())
            self._add(slab)

    def _add(self, slab: Slab) -> None:
        count = slab.outputs
        # Class of each winner; what is number ``count`` has no logit that is a number, or no region.
        self._class_of = np.array([*(self._painted or range(count)), 0])
        if self._only:
            self._class_of = np.where(np.isin(self._class_of, self._only), self._class_of, 0)
        # Winners that are not final are kept as they are.
        kept_as = self._class_of if self._expected_dice is None else np.arange(count + 1)
        if self._classes is None:
            self._classes = np.empty(self._resampler.new_shape, np.uint8 if kept_as.max() < 256 else np.uint16)
        kept_as = kept_as.astype(self._classes.dtype)
        on_cpu = slab.channels_azyx.device.type == "cpu" if self._on_device is None else not self._on_device
        rows = self._cpu_rows if on_cpu else GPU_ROWS
        winners = Winners(slab.last_layer(), count, of_regions=bool(self._painted), rows=rows, on_device=not on_cpu)
        block_bytes = self._cpu_block_bytes if on_cpu else GPU_BLOCK_BYTES
        size = _block_size(self._part, block_bytes, len(slab.channels_azyx))
        stop = self._resampler.complete(slab.stop)
        _, height, width = self._resampler.new_shape
        for block in blocks((slice(self._done, stop), slice(0, height), slice(0, width)), size):
            channels_zyxa = slab.rows(self._resampler.source(block))
            part_size = self._part if on_cpu else size
            winners_of = self._winners_of_few if self._only else self._winners_of
            winner_zyx = winners_of(channels_zyxa, block, winners, part_size)
            self._classes[block] = _looked_up(kept_as, winner_zyx)
            if self._expected_dice is not None:
                self._take_log_odds(channels_zyxa, block, winners, part_size, self._expected_dice)
        self._done = stop

    def _winners_of(
        self, channels_zyxa: Tensor, block: Block, winners: Winners, part_size: Shape
    ) -> np.ndarray | Tensor:
        """Index of the winner at each voxel of a block, of the channels that the block is made from."""
        if self._resampler.keeps_grid:
            return winners(channels_zyxa)
        # Where most parts are mixed, a look at the old grid is saved for all blocks but every eighth.
        is_mostly_mixed = self._mixed_share >= MOSTLY_MIXED
        self._blocks_unseen = (self._blocks_unseen + 1) % LOOK_EVERY if is_mostly_mixed else 0
        on_old_grid = winners(channels_zyxa) if self._blocks_unseen == 0 else None
        origin = self._resampler.source(block)
        result = winners.empty_like(channels_zyxa, shape_of(block))
        parts = list(blocks(block, part_size))
        mixed = 0
        for part in parts:
            source = relative(self._resampler.source(part), origin)
            place = relative(part, block)
            if on_old_grid is not None:
                winners_there = on_old_grid[source]
                if _is_uniform(winners_there):
                    result[place] = winners_there[0, 0, 0]
                    continue
            winners.put(result, place, self._resampler.resize_rows(channels_zyxa[source], part))
            mixed += 1
        if on_old_grid is not None:
            self._mixed_share = mixed / len(parts)
        return result

    def _winners_of_few(
        self, channels_zyxa: Tensor, block: Block, winners: Winners, part_size: Shape
    ) -> np.ndarray | Tensor:
        """As ``_winners_of``, but 0, the background, at all voxels where another class is seen to beat ``only``."""
        result = winners.empty_like(channels_zyxa, shape_of(block))
        keeps_grid = self._resampler.keeps_grid
        origin = block if keeps_grid else self._resampler.source(block)
        # What wins at a look at the old grid is what may beat what is wanted in between.
        every = RIVALS_EVERY if keeps_grid else 1
        on_old_grid = winners(channels_zyxa[::every, ::every, ::every])
        of_block = self._rivals(on_old_grid)
        for part in blocks(block, part_size):
            place = relative(part, block)
            if keeps_grid:
                winners.put_few(result, place, channels_zyxa[place], self._only, of_block)
                continue
            source = relative(self._resampler.source(part), origin)
            winners_there = on_old_grid[source]
            if (winners_there == winners_there[0, 0, 0]).all():
                result[place] = winners_there[0, 0, 0]
            else:
                resized_zyxa = self._resampler.resize_rows(channels_zyxa[source], part)
                winners.put_few(result, place, resized_zyxa, self._only, self._rivals(winners_there))
        return result

    def _rivals(self, winners_zyx: np.ndarray | Tensor) -> list[int]:
        """The classes that win most often somewhere, the background among them, without those that are wanted."""
        numbers = np.bincount(np.asarray(torch.as_tensor(winners_zyx).cpu()).reshape(-1), minlength=len(self._class_of))
        numbers[[*self._only, 0, len(self._class_of) - 1]] = 0  # the last one stands for what is no number
        most = np.argsort(-numbers)[:MOST_RIVALS]
        return [0, *(int(index) for index in most if numbers[index])]

    def _take_log_odds(
        self, channels_zyxa: Tensor, block: Block, winners: Winners, part_size: Shape, expected_dice: ExpectedDice
    ) -> None:
        """Shows a block's log-odds to what decodes them, without the parts that no decoded structure is near."""
        is_far = winners.is_nothing_near(channels_zyxa, expected_dice.outputs)
        origin = self._resampler.source(block)
        for part in blocks(block, part_size):
            source = relative(self._resampler.source(part), origin)
            if is_far[source].all():
                continue
            resized_zyxa = self._resampler.resize_rows(channels_zyxa[source], part)
            expected_dice.add(part, expected_dice.outputs, winners.log_odds(resized_zyxa, expected_dice.outputs))

    def result(self) -> np.ndarray:
        """Classes (Z, Y, X), uint8 or uint16, 0 outside the crop; ValueError before the last slab has come."""
        if self._classes is None or self._done != len(self._classes):
            raise ValueError(f"slabs complete {self._done} of {self._resampler.new_shape[0]} slices")
        if self._expected_dice is not None:
            self._expected_dice.correct(self._classes, nothing=len(self._class_of) - 1)
            self._expected_dice = None
            class_of = self._class_of.astype(np.uint8 if self._class_of.max() < 256 else np.uint16)
            self._classes = class_of[self._classes]
        return self._classes if self._onto is not None else place_back(self._classes, self._record)


def _is_uniform(winners_zyx: np.ndarray | Tensor) -> bool:
    """Whether one wins everywhere; a GPU is waited for."""
    return bool((winners_zyx == winners_zyx[0, 0, 0]).all())


def _looked_up(classes: np.ndarray, winner_zyx: np.ndarray | Tensor) -> np.ndarray:
    """The class of each winner; on a device it is looked up there, so that a byte a voxel comes to the host."""
    if isinstance(winner_zyx, np.ndarray):
        return classes[winner_zyx]
    # As signed integers, since PyTorch looks little up in unsigned ones of 16 bit; the bytes are the same.
    table = torch.from_numpy(classes.view(np.uint8 if classes.dtype.itemsize == 1 else np.int16)).to(winner_zyx.device)
    return _on_host(table[winner_zyx.int()]).view(classes.dtype)


def _on_host(classes_zyx: Tensor) -> np.ndarray:
    return classes_zyx.cpu().numpy()


def restored(
    slabs: Iterable[Slab],
    record: PreprocessRecord,
    painted: Sequence[int] = (),
    onto: PreprocessRecord | None = None,
    *,
    only: Sequence[int] = (),
    temperatures: Mapping[int, float] | None = None,
    part: Shape = PART,
) -> np.ndarray:
    """The result of ``Restoring`` for a whole stream."""
    restoring = Restoring(record, painted, onto, only=only, temperatures=temperatures, part=part)
    for slab in slabs:
        restoring.add(slab)
    return restoring.result()


def restore(
    logits_kzyx: Tensor,
    record: PreprocessRecord,
    painted: Sequence[int] = (),
    onto: PreprocessRecord | None = None,
    *,
    only: Sequence[int] = (),
    temperatures: Mapping[int, float] | None = None,
    part: Shape = PART,
) -> np.ndarray:
    """``restored`` for logits that exist as a whole."""
    slabs = [one_slab(logits_kzyx)]
    return restored(slabs, record, painted, onto, only=only, temperatures=temperatures, part=part)


def _block_size(part: Shape, most_bytes: int, count: int) -> Shape:
    """Voxels of a block: parts doubled along one axis after the other as long as their channels take ``most_bytes``."""
    size = list(part)
    axis = 2
    while 2 * prod(size) * count * 4 <= most_bytes:
        size[axis] *= 2
        axis = (axis - 1) % 3
    z, y, x = size
    return z, y, x
