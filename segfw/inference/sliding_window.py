"""Tiles over a volume, blended with Gaussian weights (Isensee et al. 2021, Methods, 'inference')."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations, product
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.data.geometry import Shape
from segfw.networks.inputs import one_hot_previous

Orders = Mapping[int, Sequence[int]]  # mirrored axis -> channels
NO_ORDERS: Orders = {}
CPU_VOXELS_PER_BATCH, GPU_VOXELS_PER_BATCH = 2**19, 2**23  # more at once is no faster, only larger


def tile_starts(size: int, tile: int, step: float) -> list[int]:
    """Evenly spaced starts of tiles that cover ``size`` voxels, at most ``step * tile`` apart; first 0, last flush."""
    if size <= tile:
        return [0]
    count = ceil((size - tile) / (tile * step)) + 1
    # Rounding makes neighbours equal where the step is below a voxel, as along the slices of a 2-D patch.
    return list(dict.fromkeys(round((size - tile) * index / (count - 1)) for index in range(count)))


@lru_cache(maxsize=8)
def gaussian_weights(tile: Shape) -> Tensor:
    """Weights (Z, Y, X) of a tile, largest 1 in the middle: sigma an eighth of the tile, and nowhere zero.

    The middle of an even number of voxels is the one behind it, as nnU-Net has it: with half a voxel less, models that
    nnU-Net trained lost 0.01 of their Dice with nnU-Net's own masks where several tiles overlap.
    """
    weights = torch.ones(())
    for size in tile:
        offsets = torch.arange(size, dtype=torch.float64) - size // 2
        weights = weights[..., None] * torch.exp(-0.5 * (offsets / (size / 8)) ** 2)
    smallest = weights[weights > 0].min()
    return (weights / weights.max()).clamp_min(float(smallest)).float()


def mirror_combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """All subsets of the axes, the empty one first."""
    return [subset for size in range(len(axes) + 1) for subset in combinations(axes, size)]


def sliding_window(
    image_czyx: Tensor,
    networks: Sequence[Callable[[Tensor], Tensor]],
    patch_size: Shape,
    *,
    step: float = 0.5,
    mirror_axes: Sequence[int] = (),
    output_orders: Orders = NO_ORDERS,
    input_orders: Orders = NO_ORDERS,
    device: torch.device | None = None,
    previous_zyx: Tensor | None = None,
    previous_classes: int = 1,
) -> Tensor:
    """Logits (K, Z, Y, X) float32 of a volume: the mean over networks and mirrored copies, tiles blended.

    Networks take (B, C, *patch_size) and return (B, K, *patch_size). A volume smaller than a tile is padded with
    zeros on both sides. The result lies on ``device`` (default: the image's).

    Where left and right change places in the mirror, ``output_orders`` has for such an axis the output channel of a
    mirrored image that belongs in each place, and ``input_orders`` the input channel (see ``planning.mirroring``). In
    the second stage of a cascade ``previous_zyx`` is what the first one found, which has ``previous_classes`` and
    joins C one-hot.
    """
    device = device or image_czyx.device
    if previous_zyx is not None:
        # One channel until tiles are cut, so that memory does not grow with the number of classes.
        image_czyx = torch.cat([part.to(device).float() for part in (image_czyx, previous_zyx[None])])
    shape = tuple(image_czyx.shape[1:])
    missing = [max(0, tile - size) for size, tile in zip(shape, patch_size)]
    before = [count // 2 for count in missing]
    padding = [side for count, first in zip(missing[::-1], before[::-1]) for side in (first, count - first)]
    padded = F.pad(image_czyx, padding).to(device)
    weights = gaussian_weights(tuple(patch_size)).to(device)
    logits = weight_sum = None
    for places, tiles in _tile_batches(padded, patch_size, step, device.type):
        if previous_zyx is not None:
            tiles = torch.cat((tiles[:, :-1], one_hot_previous(tiles[:, -1], previous_classes)), 1)
        predicted = _mean_logits(tiles, networks, mirror_axes, output_orders, input_orders) * weights
        if logits is None:
            logits = torch.zeros((predicted.shape[1], *padded.shape[1:]), device=device)
            weight_sum = torch.zeros(padded.shape[1:], device=device)
        for place, tile in zip(places, predicted):
            logits[(slice(None), *place)] += tile
            weight_sum[place] += weights
    logits /= weight_sum
    return logits[(slice(None), *(slice(first, first + size) for first, size in zip(before, shape)))]


def _tile_batches(
    image_czyx: Tensor, patch_size: Shape, step: float, device_type: str
) -> Iterator[tuple[list[tuple[slice, ...]], Tensor]]:
    """Places of some tiles and the tiles themselves, (B, C, Z, Y, X)."""
    starts = [tile_starts(size, tile, step) for size, tile in zip(image_czyx.shape[1:], patch_size)]
    places = [tuple(slice(s, s + tile) for s, tile in zip(start, patch_size)) for start in product(*starts)]
    voxels = CPU_VOXELS_PER_BATCH if device_type == "cpu" else GPU_VOXELS_PER_BATCH
    count = max(1, voxels // (patch_size[0] * patch_size[1] * patch_size[2]))
    for first in range(0, len(places), count):
        chosen = places[first : first + count]
        yield chosen, torch.stack([image_czyx[(slice(None), *place)] for place in chosen])


def _mean_logits(
    tiles_bczyx: Tensor,
    networks: Sequence[Callable[[Tensor], Tensor]],
    mirror_axes: Sequence[int],
    output_orders: Orders,
    input_orders: Orders,
) -> Tensor:
    total = None
    mirrors = mirror_combinations(mirror_axes)
    for axes in mirrors:
        image = _mirrored(tiles_bczyx, axes, input_orders)
        for network in networks:
            logits = _mirrored(network(image).float(), axes, output_orders)
            total = logits if total is None else total + logits
    return total / (len(mirrors) * len(networks))


def _mirrored(tiles_bczyx: Tensor, axes: Sequence[int], orders: Orders) -> Tensor:
    """Flipped along the axes, and the channels in the order that each of them asks for; undone by doing it again."""
    for axis in axes:
        if axis in orders:
            tiles_bczyx = tiles_bczyx[:, list(orders[axis])]
    return tiles_bczyx.flip([axis + 2 for axis in axes]) if axes else tiles_bczyx
