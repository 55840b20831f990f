"""What all networks make of tiles and their mirrored copies, in batches that fit in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from segfw.base.device import autocast
from segfw.base.records import UserError
from segfw.base.resources import ran_out_of_memory
from segfw.base.words import first_line
from segfw.images.geometry import Shape
from segfw.inference.accumulator import Accumulator, add_flipped
from segfw.inference.host_memory import LearnedLimits
from segfw.inference.summands import ForwardPass, Summands
from segfw.inference.tiles import ConstantValues, Tile, TiledImage, mirrored

# In one call of a network; more at once is no faster, only larger.
CPU_VOXELS_PER_BATCH = 2**19
GPU_VOXELS_PER_BATCH = 2**23
# Of a full batch on a GPU: what is at most so large a rest of one is filled up to this, every other to a full one. For
# each size of batches cuDNN looks for its fastest algorithms once, and a compiler makes a program.
SMALL_BATCH = 0.25
MOST_KNOWN = 2  # constant images whose sums are kept, such as air: each takes the memory of a tile

GroupSums = list[Tensor]  # of each group of channels (B, A, Z, Y, X), of B tiles; or (A, Z, Y, X), of one


class TileTooLarge(UserError):
    """Not even one tile fits in memory."""


def copies_per_batch(patch_size: Shape, device: torch.device) -> int:
    """Copies of tiles that are given to a network at once, where nothing is known of the memory."""
    voxels = CPU_VOXELS_PER_BATCH if device.type == "cpu" else GPU_VOXELS_PER_BATCH
    return max(1, voxels // prod(patch_size))


def batch_size(tiles: int, full: int) -> int:
    """Tiles of the batch that so many are run in, of two sizes that batches may have."""
    small = max(1, int(SMALL_BATCH * full))
    return small if tiles <= small else full


def filled_up(tiles_bczyx: Tensor, size: int) -> Tensor:
    """The tiles and as many empty ones behind them as make ``size``."""
    if len(tiles_bczyx) >= size:
        return tiles_bczyx
    # A compiler takes for another program what has other strides than a full batch, as tiles of one channel have that
    # were joined, or was made in inference mode where that was not.
    with torch.inference_mode(tiles_bczyx.is_inference()):
        filled = tiles_bczyx.new_zeros(size, *tiles_bczyx.shape[1:])
        filled[: len(tiles_bczyx)] = tiles_bczyx
    return filled


def largest_divisor(number: int, most: int) -> int:
    """The largest number up to ``most`` into which ``number`` can be divided without a rest."""
    return next(divisor for divisor in range(min(most, number), 0, -1) if number % divisor == 0)


class TileRunner:
    """Sums over networks and mirrored copies of tiles.

    A batch that runs out of memory is halved, and at one tile the sums of the volume leave the device, if they lie
    there. Tiles whose image is constant are run once for each of its values, since the same input gives the same
    output; the sums of at most ``most_known`` values are kept meanwhile.

    With ``has_few_sizes`` batches are filled up with empty tiles to one of two sizes; None: on CUDA.
    """

    def __init__(
        self,
        image: TiledImage,
        summands: Summands,
        *,
        device: torch.device,
        precision: torch.dtype,
        limits: LearnedLimits,
        most_known: int = MOST_KNOWN,
        has_few_sizes: bool | None = None,
    ) -> None:
        self._image = image
        self._summands = summands
        self._device = device
        self._precision = precision
        self._limits = limits
        self._most_known = most_known
        self._has_few_sizes = device.type == "cuda" if has_few_sizes is None else has_few_sizes
        self._constants: dict[Tile, ConstantValues | None] = {}
        for layer in image.layers():
            self._constants |= {tile: image.constant(tile) for tile in layer}
        self._to_come = Counter(values for values in self._constants.values() if values is not None)
        self._known: dict[ConstantValues, GroupSums] = {}
        self._largest_batch = 0  # copies that were given to a network at once since memory ran out

    @property
    def copies_at_once(self) -> int:
        """Copies of tiles that are given to a network at once."""
        return self._limits.copies or copies_per_batch(self._image.patch_size, self._device)

    @property
    def tiles_at_once(self) -> int:
        """Tiles whose sums exist at once: as many as can be run with all their mirrored copies."""
        return max(1, self.copies_at_once // self._summands.mirrored_copies)

    def run(self, tiles: Sequence[Tile], accumulator: Accumulator) -> Iterator[tuple[Tile, GroupSums]]:
        """The tiles in order, each with the sums (A, *patch_size) of its groups.

        ``accumulator`` leaves the device where one tile does not fit beside it. Raises TileTooLarge if that is not
        enough.
        """
        done = 0
        while done < len(tiles):
            batch = self._next_batch(tiles[done:])
            place_of = {tile: place for place, tile in enumerate(self._to_be_run(batch))}
            found: GroupSums = []
            if place_of:
                sums = self._sums_or_room(list(place_of), accumulator)
                if sums is None:
                    continue  # nothing was given away, and there is more room now
                found = sums
            for tile in batch:
                yield tile, self._taken(tile, place_of, found)
            while len(self._known) > self._most_known:  # those forgotten are run again
                del self._known[next(iter(self._known))]
            done += len(batch)

    def _next_batch(self, tiles: Sequence[Tile]) -> Sequence[Tile]:
        """As many of the first tiles as need no more than ``tiles_at_once`` of them to be run."""
        chosen = self._to_be_run(tiles, self.tiles_at_once + 1)
        return tiles if len(chosen) <= self.tiles_at_once else tiles[: tiles.index(chosen[-1])]

    def _to_be_run(self, tiles: Sequence[Tile], most: int | None = None) -> list[Tile]:
        """Tiles whose sums are not known yet, and of each constant image one; the first ``most`` of them."""
        chosen: list[Tile] = []
        seen: set[ConstantValues] = set()
        for tile in tiles:
            values = self._constants[tile]
            if values is None:
                chosen.append(tile)
            elif values not in self._known and values not in seen:
                chosen.append(tile)
                seen.add(values)
            if len(chosen) == most:
                break
        return chosen

    def _taken(self, tile: Tile, place_of: Mapping[Tile, int], found: GroupSums) -> GroupSums:
        """The sums of one tile, from those of the batch or of an equal one before."""
        values = self._constants[tile]
        if values is None:
            return [group[place_of[tile]] for group in found]
        self._to_come[values] -= 1
        is_awaited = self._to_come[values] > 0
        if tile not in place_of:
            return self._known[values] if is_awaited else self._known.pop(values)
        sums = [group[place_of[tile]] for group in found]
        if is_awaited:  # a copy where others share its memory, which are not needed as long
            self._known[values] = [group.clone() for group in sums] if len(place_of) > 1 else sums
        return sums

    def _sums_or_room(self, tiles: Sequence[Tile], accumulator: Accumulator) -> GroupSums | None:
        """None where memory ran out, after more of it was made."""
        try:
            return self._sums(torch.stack([self._image.cut(tile, self._device) for tile in tiles]))
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            reason = first_line(error, 160)
        # Only here, where the error no longer holds on to the tensors that filled the memory.
        if self._largest_batch > 1:
            self._limits.copies = self._largest_batch // 2
            self._limits.say_once(f"out of memory: networks get {self._limits.copies} tiles at a time from now on")
        elif not (self._image.leave_device() or accumulator.leave_device()):
            size = "x".join(map(str, self._image.patch_size))
            raise TileTooLarge(
                f"a single tile of {size} voxels does not fit in the memory of {self._device} ({reason}); "
                "close what else uses it, or take --device cpu"
            )
        self._largest_batch = 0
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _sums(self, tiles_bczyx: Tensor) -> GroupSums:
        """Of each group of channels (B, A, Z, Y, X)."""
        sums: dict[int, Tensor] = {}
        wanted = len(tiles_bczyx)
        if self._has_few_sizes:
            tiles_bczyx = filled_up(tiles_bczyx, batch_size(wanted, self.tiles_at_once))
        number = len(tiles_bczyx)
        for index, run in enumerate(self._summands.runs):
            passes = [each for each in self._summands.passes if each.network == index]
            passes_at_once = max(1, self.copies_at_once // number)
            if self._has_few_sizes:
                passes_at_once = largest_divisor(len(passes), passes_at_once)
            for start in range(0, len(passes), passes_at_once):
                batch = passes[start : start + passes_at_once]
                copies = [mirrored(tiles_bczyx, each.axes, self._summands.input_orders) for each in batch]
                self._largest_batch = max(self._largest_batch, number * len(batch))
                with torch.inference_mode(), autocast(self._device, self._precision):
                    outputs = run(copies[0] if len(copies) == 1 else torch.cat(copies))
                del copies
                for each, output in zip(batch, outputs.split(number)):
                    sums[each.group] = self._added(sums.get(each.group), output, each)
        return [sums[group][:wanted] for group in range(self._summands.group_count)]

    def _added(self, total: Tensor | None, output: Tensor, forward_pass: ForwardPass) -> Tensor:
        """``total`` and the output turned back; the first output of several is widened to float32."""
        order = self._summands.order_of(forward_pass.axes, output.shape[1])
        if order is not None:
            output = output[:, list(order)]
        if total is None:
            output = mirrored(output, forward_pass.axes)
            is_one_of_several = self._summands.share(forward_pass.group) < 1
            return output.to(torch.float32, copy=True) if is_one_of_several else output
        add_flipped(total, output, forward_pass.axes)
        return total
