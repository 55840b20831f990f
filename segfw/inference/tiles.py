"""Where tiles lie, what each voxel of them weighs, and how they are mirrored (Isensee et al. 2021, 'inference')."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.base.resources import ran_out_of_memory
from segfw.grid.boxes import Block
from segfw.images.geometry import Shape, as_shape
from segfw.networks.previous_stage import one_hot_previous

ChannelOrders = Mapping[int, Sequence[int]]  # mirrored axis -> channels in the order that mirroring asks for
NO_ORDERS: ChannelOrders = {}
IMAGE_SHARE = 0.05  # of a GPU's free memory that an image may take there beside networks and sums
ConstantValues = tuple[float, ...]  # of each channel of a tile that has one value throughout


def tile_starts(size: int, tile: int, step: float) -> list[int]:
    """Evenly spaced starts of tiles that cover ``size`` voxels, at most ``step * tile`` apart; first 0, last flush."""
    if size <= tile:
        return [0]
    count = ceil((size - tile) / (tile * step)) + 1
    # Rounding makes neighbours equal where the step is below a voxel, as along the slices of a 2-D patch.
    return list(dict.fromkeys(round((size - tile) * index / (count - 1)) for index in range(count)))


def tile_count(shape: Shape, patch_size: Shape, step: float) -> int:
    """Tiles that an image of ``shape`` is cut into."""
    total = 1
    for size, tile in zip(shape, patch_size):
        total *= len(tile_starts(size, tile, step))
    return total


@lru_cache(maxsize=64)
def blending_weights(size: int, tile: int, step: float) -> Tensor:
    """Weights (N, tile) along one axis of the N tiles that cover it: Gaussians that sum to 1 in every voxel.

    Sigma is an eighth of the tile. The middle of an even number of voxels is the one behind it, as nnU-Net has it: with
    half a voxel less, a model that nnU-Net trained lost 0.01 of its Dice with nnU-Net's own masks. A tile's weights in
    space are the product over axes, because the Gaussian of three axes and the regular grid of tiles both are products;
    so is the sum by which the published method divides at the end. Divided beforehand, what is accumulated stays in the
    range of the outputs, which float16 can hold.
    """
    starts = tile_starts(size, tile, step)
    offsets = torch.arange(tile, dtype=torch.float64) - tile // 2
    gaussian = torch.exp(-0.5 * (offsets / (tile / 8)) ** 2)
    total = torch.zeros(max(size, tile), dtype=torch.float64)
    for start in starts:
        total[start : start + tile] += gaussian
    return torch.stack([gaussian / total[start : start + tile] for start in starts]).float()


def mirror_combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """All subsets of the axes, the empty one first."""
    subsets: list[tuple[int, ...]] = []
    for size in range(len(axes) + 1):
        subsets += combinations(axes, size)
    return subsets


def exchanged(axes: Sequence[int], orders: ChannelOrders, channels: int) -> tuple[int, ...]:
    """The channel that belongs in each place after mirroring along the axes, by the order that each asks for."""
    order = tuple(range(channels))
    for axis in axes:
        if axis in orders:
            order = tuple(order[index] for index in orders[axis])
    return order


def mirrored(tiles_bczyx: Tensor, axes: Sequence[int], orders: ChannelOrders = NO_ORDERS) -> Tensor:
    """Flipped along the axes, and the channels in the order that each of them asks for; undone by doing it again."""
    order = exchanged(axes, orders, tiles_bczyx.shape[1])
    if order != tuple(range(len(order))):
        tiles_bczyx = tiles_bczyx[:, list(order)]
    return tiles_bczyx.flip([axis + 2 for axis in axes]) if axes else tiles_bczyx


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One place of the grid of tiles: index of the tile along each axis, and the first voxel of it."""

    index: tuple[int, int, int]
    start: tuple[int, int, int]


class TiledImage:
    """An image (C, Z, Y, X), with what a first stage found in it (Z, Y, X), of which tiles are cut.

    Padded with zeros on both sides of an axis that is shorter than a tile; ``before`` is by how much in front.
    """

    def __init__(
        self,
        image_czyx: Tensor,
        patch_size: Shape,
        step: float,
        previous_zyx: Tensor | None = None,
        previous_classes: int = 1,
    ) -> None:
        self.shape = as_shape(image_czyx.shape[1:])
        self.patch_size = as_shape(patch_size)
        self.step = step
        self.previous_classes = previous_classes
        missing = [max(0, tile - size) for size, tile in zip(self.shape, patch_size)]
        self.before = as_shape(count // 2 for count in missing)
        sides: list[int] = []  # as F.pad wants them: the last axis first
        for count in reversed(missing):
            sides += [count // 2, count - count // 2]
        is_padded = any(sides)
        self.image = F.pad(image_czyx, sides) if is_padded else image_czyx
        self.previous = previous_zyx
        if previous_zyx is not None and is_padded:
            self.previous = F.pad(previous_zyx, sides)
        self.padded_shape = as_shape(self.image.shape[1:])
        self._on_device: Tensor | None = None  # slices of the image
        self._slices_there = slice(0, 0)
        self._room_bytes: float | None = None  # there, by what was free at first: PyTorch keeps what is free later

    def keep_on(self, device: torch.device, first: int, stop: int) -> None:
        """Keeps slices ``first`` to ``stop`` on a CUDA device, of which tiles are cut there; the whole image if it can.

        That is where it is a small part of what is free, and the slices where they are. Without them every tile crosses
        the bus, and voxels as often as tiles overlap: eight times in the middle, where slices of tiles that lie beside
        each other do so twice.
        """
        there = self._slices_there
        if device.type != "cuda" or (there.start <= first and stop <= there.stop):
            return
        if self._room_bytes is None:
            self._room_bytes = IMAGE_SHARE * torch.cuda.mem_get_info(device)[0]
        self._on_device = None  # before there is room for others
        self._slices_there = slice(0, 0)
        for slices in (slice(0, self.padded_shape[0]), slice(first, stop)):
            part = self.image[:, slices]
            if part.nbytes <= self._room_bytes:
                try:
                    self._on_device = part.to(device)
                    self._slices_there = slices
                except Exception as error:
                    if not ran_out_of_memory(error):
                        raise
                    self._room_bytes = 0.0
                return

    def leave_device(self) -> bool:
        """Forgets what is kept on the device, for good; False if there is nothing."""
        was_there = self._on_device is not None
        self._on_device = None
        self._slices_there = slice(0, 0)
        self._room_bytes = 0.0
        return was_there

    def layers(self) -> list[list[Tile]]:
        """Tiles by their first slice, in order."""
        z, y, x = (
            list(enumerate(tile_starts(size, tile, self.step)))
            for size, tile in zip(self.padded_shape, self.patch_size)
        )
        result = []
        for in_z, start_z in z:
            layer = []
            for in_y, start_y in y:
                layer += [Tile(index=(in_z, in_y, in_x), start=(start_z, start_y, start_x)) for in_x, start_x in x]
            result.append(layer)
        return result

    def cut(self, tile: Tile, device: torch.device) -> Tensor:
        """What the network sees there (C, *patch_size), float32: classes of the first stage as channels, one-hot."""
        place = self._place(tile)
        source = self.image
        z, y, x = place
        if self._on_device is not None:
            source = self._on_device
            z = slice(z.start - self._slices_there.start, z.stop - self._slices_there.start)
        image = source[:, z, y, x].to(device, torch.float32)
        if self.previous is None:
            return image
        previous = one_hot_previous(self.previous[place].to(device)[None], self.previous_classes)[0]
        return torch.cat((image, previous))

    def constant(self, tile: Tile) -> ConstantValues | None:
        """The value of each channel where all of them are the same throughout the tile, else None."""
        place = self._place(tile)
        channels = list(self.image[(slice(None), *place)])
        if self.previous is not None:
            channels.append(self.previous[place])
        values = tuple(float(channel[0, 0, 0]) for channel in channels)
        # A few voxels tell most tiles apart without reading them.
        if any(float(channel[-1, -1, -1]) != value for channel, value in zip(channels, values)):
            return None
        return values if all(bool((channel == value).all()) for channel, value in zip(channels, values)) else None

    def weights(self, tile: Tile, device: torch.device) -> tuple[Tensor, Tensor]:
        """What the tile's voxels weigh, which is the product of two: (Z,) by slice and (Y, X) in the slice."""
        along_z, along_y, along_x = (
            blending_weights(size, patch, self.step)[index].to(device)
            for size, patch, index in zip(self.padded_shape, self.patch_size, tile.index)
        )
        return along_z, along_y[:, None] * along_x

    def _place(self, tile: Tile) -> Block:
        z, y, x = (slice(start, start + size) for start, size in zip(tile.start, self.patch_size))
        return z, y, x
