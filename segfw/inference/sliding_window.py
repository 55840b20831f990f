"""Tiles over a volume, layer by layer along its first axis, blended into slabs of finished slices.

Sums exist of as many slices as a tile has, and one more: memory does not grow with the length of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from segfw.grid.slabs import Slab
from segfw.images.geometry import Shape
from segfw.inference.accumulator import Window, make_window, on_host
from segfw.inference.host_memory import Limits
from segfw.inference.summands import Members, heads_on, members_of
from segfw.inference.tile_runner import Outputs
from segfw.inference.tiles import Tile, TiledImage

CHANNELS_LAST_FROM = 8  # of fewer channels next to each other each step of a loop over them is dear
LEAST_SLICES = 8  # that are finished together where tiles are flat


@torch.no_grad()
def sliding_window(
    image_czyx: Tensor,
    networks: Members | Sequence[Callable[[Tensor], Tensor]],
    patch_size: Shape,
    *,
    step: float = 0.5,
    device: torch.device | None = None,
    precision: torch.dtype = torch.float32,
    previous_zyx: Tensor | None = None,
    previous_classes: int = 1,
    room_bytes: float = float("inf"),
    limits: Limits | None = None,
) -> Iterator[Slab]:
    """Yields the logits of a volume in slabs: the mean over networks and mirrored copies, tiles blended.

    Networks take (B, C, *patch_size) and return (B, K, *patch_size); ``members_of`` says how mirrored copies and U-Nets
    are dealt with. A volume smaller than a tile is padded with zeros on both sides. In the second stage of a cascade
    ``previous_zyx`` is what the first one found, which has ``previous_classes`` and joins the image's channels one-hot.

    Slabs lie on ``device`` (default: the image's) as long as they fit there beside the network, else on the host, where
    they take at most ``room_bytes`` of memory. ``limits`` is what was found to fit before. Raises TileTooLarge if one
    tile alone does not fit, and UserError if there is no room for the sums.
    """
    device, limits = device or image_czyx.device, limits or Limits()
    members = networks if isinstance(networks, Members) else members_of(networks)
    image = TiledImage(image_czyx, patch_size, step, previous_zyx, previous_classes)
    window: Window | None = None

    def leave_device() -> bool:
        nonlocal window
        if window is None or window.values.device.type == "cpu":
            return False
        window.values = on_host(window, room_bytes, limits)
        return True

    outputs = Outputs(image, members, limits, device, precision, leave_device)
    groups = _grouped(image.layers(), outputs.tiles_per_run, patch_size)
    firsts = [max(0, group[0].start[0] - 1) for group in groups]  # with the slice that each slab overlaps with
    depth = max(group[-1].start[0] + patch_size[0] - first for group, first in zip(groups, firsts))
    stops = [*(group[0].start[0] for group in groups[1:]), image.padded_shape[0]]
    for tiles, first, stop in zip(groups, firsts, stops):
        for tile, sums in outputs(tiles):
            channels = sums[0].shape[0]
            if window is None:
                shape = (channels * len(sums), depth, *image.padded_shape[1:])
                last = channels >= CHANNELS_LAST_FROM  # as networks give them and as they are restored
                window = make_window(shape, channels_last=last, device=device, room_bytes=room_bytes, limits=limits)
            window.move_on(first)
            weights = image.weights(tile, window.values.device)
            for group, part in enumerate(sums):
                place = slice(group * channels, (group + 1) * channels)
                window.add(part, tile, place, weights, members.share(group))
        yield _slab(window, image, members, tiles[0].start[0], stop)


def _slab(window: Window, image: TiledImage, members: Members, start: int, stop: int) -> Slab:
    """Slices of the padded grid as a slab of the image's own."""
    (before, top, left), (depth, height, width) = image.before, image.shape
    first, start, stop = (min(max(z - before, 0), depth) for z in (max(0, start - 1), start, stop))
    at = first + before - window.first
    values = window.values[:, at : at + stop - first, top : top + height, left : left + width]
    heads = heads_on(members.heads, values.device)
    return Slab(first=first, start=start, stop=stop, channels_azyx=values, heads=heads, members=members.member_count)


def _grouped(layers: Sequence[list[Tile]], tiles_per_run: int, patch_size: Shape) -> list[list[Tile]]:
    """Layers that are finished together: as many as fill a run of the network, and some slices where tiles are flat."""
    groups: list[list[Tile]] = []
    for layer in layers:
        is_open = groups and (
            len(groups[-1]) < tiles_per_run
            or (patch_size[0] < LEAST_SLICES and layer[0].start[0] - groups[-1][0].start[0] < LEAST_SLICES)
        )
        if is_open:
            groups[-1] += layer
        else:
            groups.append([*layer])
    return groups
