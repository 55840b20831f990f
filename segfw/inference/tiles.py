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

from segfw.images.geometry import Shape
from segfw.networks.previous_stage import one_hot_previous

Orders = Mapping[int, Sequence[int]]  # mirrored axis -> channels
NO_ORDERS: Orders = {}


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
    return [subset for size in range(len(axes) + 1) for subset in combinations(axes, size)]


def exchanged(axes: Sequence[int], orders: Orders, channels: int) -> tuple[int, ...]:
    """The channel that belongs in each place after mirroring along the axes, by the order that each asks for."""
    order = tuple(range(channels))
    for axis in axes:
        if axis in orders:
            order = tuple(order[index] for index in orders[axis])
    return order


def mirrored(tiles_bczyx: Tensor, axes: Sequence[int], orders: Orders = NO_ORDERS) -> Tensor:
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
        self, image_czyx: Tensor, patch_size: Shape, step: float, previous_zyx: Tensor | None, previous_classes: int
    ) -> None:
        self.shape: Shape = tuple(image_czyx.shape[1:])
        self.patch_size, self.step, self.previous_classes = tuple(patch_size), step, previous_classes
        missing = [max(0, tile - size) for size, tile in zip(self.shape, patch_size)]
        self.before: Shape = tuple(count // 2 for count in missing)
        sides = [side for count in missing[::-1] for side in (count // 2, count - count // 2)]
        self.image = F.pad(image_czyx, sides) if any(sides) else image_czyx
        self.previous = previous_zyx
        if previous_zyx is not None and any(sides):
            self.previous = F.pad(previous_zyx, sides)
        self.padded_shape: Shape = tuple(self.image.shape[1:])

    def layers(self) -> list[list[Tile]]:
        """Tiles by their first slice, in order."""
        z, y, x = (
            list(enumerate(tile_starts(size, tile, self.step)))
            for size, tile in zip(self.padded_shape, self.patch_size)
        )
        return [[Tile(index=(i, j, k), start=(at_z, at_y, at_x)) for j, at_y in y for k, at_x in x] for i, at_z in z]

    def cut(self, tile: Tile, device: torch.device) -> Tensor:
        """What the network sees there (C, *patch_size), float32: classes of the first stage as channels, one-hot."""
        place = tuple(slice(start, start + size) for start, size in zip(tile.start, self.patch_size))
        image = self.image[(slice(None), *place)].to(device, torch.float32)
        if self.previous is None:
            return image
        return torch.cat((image, one_hot_previous(self.previous[place].to(device)[None], self.previous_classes)[0]))

    def constant(self, tile: Tile) -> tuple[float, ...] | None:
        """The value of each channel where all of them are the same throughout the tile, else None."""
        place = tuple(slice(start, start + size) for start, size in zip(tile.start, self.patch_size))
        parts = [*self.image[(slice(None), *place)], *(() if self.previous is None else (self.previous[place],))]
        values = tuple(float(part[0, 0, 0]) for part in parts)
        # A few voxels tell most tiles apart without reading them.
        if any(float(part[-1, -1, -1]) != value for part, value in zip(parts, values)):
            return None
        return values if all(bool((part == value).all()) for part, value in zip(parts, values)) else None

    def weights(self, tile: Tile, device: torch.device) -> tuple[Tensor, Tensor]:
        """What the tile's voxels weigh, which is the product of two: (Z,) by slice and (Y, X) in the slice."""
        along = [
            blending_weights(size, patch, self.step)[index].to(device)
            for size, patch, index in zip(self.padded_shape, self.patch_size, tile.index)
        ]
        return along[0], along[1][:, None] * along[2]
