"""What all networks make of tiles and their mirrored copies, in batches that fit in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from segfw.base.device import autocast
from segfw.base.records import UserError
from segfw.base.resources import ran_out_of_memory
from segfw.base.words import first_line
from segfw.inference.accumulator import add_flipped
from segfw.inference.host_memory import Limits
from segfw.inference.summands import Members, Part
from segfw.inference.tiles import Tile, TiledImage, mirrored

CPU_VOXELS_PER_BATCH, GPU_VOXELS_PER_BATCH = 2**19, 2**23  # more at once is no faster, only larger
MOST_KNOWN = 2  # constant images whose sums are kept, such as air: each takes the memory of a tile

Sums = list[Tensor]  # of each group of channels (B, A, Z, Y, X), of B tiles; or (A, Z, Y, X), of one


class TileTooLarge(UserError):
    """Not even one tile fits in memory."""


class Outputs:
    """Sums over networks and mirrored copies of tiles.

    A batch that runs out of memory is halved, and at one tile the sums of the volume leave the device, by
    ``leave_device``, which says whether there was anything to gain. Tiles whose image is constant are run once for
    each of its values, since the same input gives the same output.
    """

    def __init__(
        self,
        image: TiledImage,
        members: Members,
        limits: Limits,
        device: torch.device,
        precision: torch.dtype,
        leave_device: Callable[[], bool],
    ) -> None:
        self.image, self.members, self.limits, self.device, self.precision = image, members, limits, device, precision
        self.leave_device = leave_device
        self.constants = {tile: image.constant(tile) for layer in image.layers() for tile in layer}
        self.waiting = Counter(self.constants.values())  # tiles to come of each constant image
        self.known: dict[tuple[float, ...], Sums] = {}
        self.largest = 0  # copies that were given to a network at once since memory ran out

    @property
    def copies(self) -> int:
        """Copies of tiles that are given to a network at once."""
        voxels = CPU_VOXELS_PER_BATCH if self.device.type == "cpu" else GPU_VOXELS_PER_BATCH
        return self.limits.copies or max(1, voxels // prod(self.image.patch_size))

    @property
    def tiles_per_run(self) -> int:
        """Tiles whose sums exist at once: as many as can be run with all their mirrored copies."""
        mirrors = len({part.axes for part in self.members.parts})
        return max(1, self.copies // mirrors)

    def __call__(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, Sums]]:
        """The tiles in order, each with the sums (A, Z, Y, X) of its groups."""
        done = 0
        while done < len(tiles):
            some = tiles[done : done + self.tiles_per_run]
            fresh = self._to_be_run(some)
            found = self._sums_or_room(list(fresh)) if fresh else []
            if found is None:
                continue  # nothing was given away, and there is more room now
            for tile in some:
                yield tile, self._taken(tile, fresh, found)
            while len(self.known) > MOST_KNOWN:  # those forgotten are run again
                del self.known[next(iter(self.known))]
            done += len(some)

    def _to_be_run(self, tiles: Sequence[Tile]) -> dict[Tile, int]:
        """Tiles whose sums are not known yet, one of each constant image, and their place in the batch."""
        values_of = {tile: self.constants[tile] for tile in tiles}
        first = {values: tile for tile, values in reversed(values_of.items()) if values is not None}
        chosen = [
            tile
            for tile, values in values_of.items()
            if values is None or (values not in self.known and first[values] == tile)
        ]
        return {tile: place for place, tile in enumerate(chosen)}

    def _taken(self, tile: Tile, fresh: dict[Tile, int], found: Sums) -> Sums:
        values = self.constants[tile]
        self.waiting[values] -= 1
        is_awaited = values is not None and self.waiting[values] > 0
        if tile not in fresh:
            return self.known[values] if is_awaited else self.known.pop(values)
        sums = [part[fresh[tile]] for part in found]
        if is_awaited:  # a copy where others share its memory, which are not needed as long
            self.known[values] = [part.clone() for part in sums] if len(fresh) > 1 else sums
        return sums

    def _sums_or_room(self, tiles: Sequence[Tile]) -> Sums | None:
        """None where memory ran out, after more of it was made."""
        try:
            return self._sums(torch.stack([self.image.cut(tile, self.device) for tile in tiles]))
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            reason = first_line(error, 160)
        # Only here, where the error no longer holds on to the tensors that filled the memory.
        if self.largest > 1:
            self.limits.copies = self.largest // 2
            self.limits.say_once(f"out of memory: networks get {self.limits.copies} tiles at a time from now on")
        elif not self.leave_device():
            size = "x".join(map(str, self.image.patch_size))
            raise TileTooLarge(
                f"a single tile of {size} voxels does not fit in the memory of {self.device} ({reason}); "
                "close what else uses it, or take --device cpu"
            )
        self.largest = 0
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _sums(self, tiles_bczyx: Tensor) -> Sums:
        """Of each group of channels (B, A, Z, Y, X)."""
        sums: list[Tensor | None] = [None] * self.members.group_count
        number = len(tiles_bczyx)
        at_once = max(1, self.copies // number)
        for index, run in enumerate(self.members.runs):
            parts = [part for part in self.members.parts if part.network == index]
            for start in range(0, len(parts), at_once):
                some = parts[start : start + at_once]
                copies = [mirrored(tiles_bczyx, part.axes, self.members.input_orders) for part in some]
                self.largest = max(self.largest, number * len(some))
                with torch.inference_mode(), autocast(self.device, self.precision):
                    outputs = run(copies[0] if len(copies) == 1 else torch.cat(copies))
                del copies
                for part, output in zip(some, outputs.split(number)):
                    sums[part.group] = self._added(sums[part.group], output, part)
        return sums

    def _added(self, total: Tensor | None, output: Tensor, part: Part) -> Tensor:
        """``total`` and the output turned back; the first output of several is widened to float32."""
        order = self.members.order_of(part.axes, output.shape[1])
        if order is not None:
            output = output[:, list(order)]
        if total is None:
            output = mirrored(output, part.axes)
            return output.to(torch.float32, copy=True) if self.members.share(part.group) < 1 else output
        add_flipped(total, output, part.axes)
        return total
