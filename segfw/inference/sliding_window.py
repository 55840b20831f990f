"""Tiles over a volume, layer by layer along its first axis, blended into slabs of finished slices.

Sums exist of as many slices as a tile has, and one more: memory does not grow with the length of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segfw.grid.slabs import Slab
from segfw.images.geometry import Shape
from segfw.inference.accumulator import Accumulator
from segfw.inference.host_memory import LearnedLimits
from segfw.inference.summands import Summands, summands_of
from segfw.inference.tile_runner import TileRunner
from segfw.inference.tiles import Tile, TiledImage
from segfw.planning.published import TILE_STEP

LEAST_SLICES = 8  # that are finished together where tiles are flat


@torch.no_grad()
def sliding_window(
    image_czyx: Tensor,
    networks: Summands | Sequence[Callable[[Tensor], Tensor]],
    patch_size: Shape,
    *,
    step: float = TILE_STEP,
    device: torch.device | None = None,
    precision: torch.dtype = torch.float32,
    previous_zyx: Tensor | None = None,
    previous_classes: int = 1,
    room_bytes: float = float("inf"),
    limits: LearnedLimits | None = None,
) -> Iterator[Slab]:
    """Yields the logits of a volume in slabs: the mean over networks and mirrored copies, tiles blended.

    Networks take (B, C, *patch_size) and return (B, K, *patch_size); ``summands_of`` says how mirrored copies and
    U-Nets are dealt with. A volume smaller than a tile is padded with zeros on both sides. In the second stage of a
    cascade ``previous_zyx`` is what the first one found, which has ``previous_classes`` and joins the image's channels
    one-hot.

    Slabs lie on ``device`` (default: the image's) as long as they fit there beside the network, else on the host, where
    they take at most ``room_bytes`` of memory. ``limits`` is what was found to fit before. Raises TileTooLarge if one
    tile alone does not fit, and UserError if there is no room for the sums.
    """
    device = device or image_czyx.device
    limits = limits or LearnedLimits()
    summands = networks if isinstance(networks, Summands) else summands_of(networks)
    image = TiledImage(image_czyx, patch_size, step, previous_zyx, previous_classes)
    runner = TileRunner(image, summands, device=device, precision=precision, limits=limits)
    groups = layer_groups(image, runner.tiles_at_once)
    depth = max(group.tiles[-1].start[0] + patch_size[0] - group.first for group in groups)
    accumulator = Accumulator(image, summands, depth=depth, device=device, room_bytes=room_bytes, limits=limits)
    for group in groups:
        image.keep_on(device, group.tiles[0].start[0], group.tiles[-1].start[0] + patch_size[0])
        accumulator.move_to(group.first)
        for tile, group_sums in runner.run(group.tiles, accumulator):
            accumulator.add(tile, group_sums)
        yield accumulator.slab(group.start, group.stop)


@dataclass(frozen=True, kw_only=True)
class LayerGroup:
    """Layers of tiles that finish slices ``start`` to ``stop`` of the padded grid together.

    Slice ``first`` is the one before them, which the slab before ended with and this one begins with.
    """

    tiles: tuple[Tile, ...]
    first: int
    start: int
    stop: int


def layer_groups(image: TiledImage, tiles_at_once: int) -> list[LayerGroup]:
    """All layers in groups: as many as fill a run of the network, and some slices where tiles are flat."""
    is_flat = image.patch_size[0] < LEAST_SLICES
    grouped: list[list[Tile]] = []
    for layer in image.layers():
        if grouped and (
            len(grouped[-1]) < tiles_at_once or (is_flat and layer[0].start[0] - grouped[-1][0].start[0] < LEAST_SLICES)
        ):
            grouped[-1] += layer
        else:
            grouped.append(list(layer))
    starts = [tiles[0].start[0] for tiles in grouped]
    stops = [*starts[1:], image.padded_shape[0]]
    return [
        LayerGroup(tiles=tuple(tiles), first=max(0, start - 1), start=start, stop=stop)
        for tiles, start, stop in zip(grouped, starts, stops)
    ]
