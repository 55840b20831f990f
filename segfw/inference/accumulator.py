"""Weighted sums of what networks make of overlapping tiles, of some slices that move on along the first axis."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from segfw.base.resources import ran_out_of_memory
from segfw.grid.slabs import NoNumbers, Slab
from segfw.inference.host_memory import FLOAT32, LearnedLimits, allocate, choose_storage, storage_note
from segfw.inference.summands import Summands, heads_on
from segfw.inference.tiles import Tile, TiledImage

CHANNELS_LAST_FROM = 8  # of fewer channels next to each other each step of a loop over them is dear


class Accumulator:
    """Sums (A, z, Y, X) of ``depth`` slices of an image's padded grid; slice ``first`` of the grid is the first one.

    Weights of all tiles in a voxel sum to 1, so that a sum that is complete is the result. The sums are made when the
    first tile comes, which tells how many channels there are: float32 on the device, if they fit there beside the
    network, else on the host, in at most ``room_bytes`` of its memory. They move to the host when they are asked to
    leave the device.
    """

    def __init__(
        self,
        image: TiledImage,
        summands: Summands,
        *,
        depth: int,
        device: torch.device,
        room_bytes: float,
        limits: LearnedLimits,
    ) -> None:
        self.first = 0
        self._image = image
        self._summands = summands
        self._slices_shape = (depth, *image.padded_shape[1:])
        self._device = device
        self._room_bytes = room_bytes
        self._limits = limits
        self._values: Tensor | None = None

    def move_to(self, first: int) -> None:
        """Makes slice ``first`` the first one: those before it are forgotten, those that come in are zero."""
        by = first - self.first
        self.first = first
        if self._values is None or by == 0:
            return
        depth = self._values.shape[1]
        for z in range(depth - by):
            self._values[:, z] = self._values[:, z + by]
        self._values[:, max(0, depth - by) :] = 0

    def add(self, tile: Tile, group_sums: Sequence[Tensor]) -> None:
        """Adds what the passes over a tile sum to, (A, *patch_size) of each group, weighted by place in the tile."""
        channels = len(group_sums[0])
        if self._values is None:
            self._values = self._zeros(channels * len(group_sums), channels_last=channels >= CHANNELS_LAST_FROM)
        weights = self._image.weights(tile, self._values.device)
        z, y, x = tile.start
        z -= self.first
        for group, sums_azyx in enumerate(group_sums):
            depth, height, width = sums_azyx.shape[1:]
            in_group = self._values[group * channels : (group + 1) * channels]
            target = in_group[:, z : z + depth, y : y + height, x : x + width]
            add_weighted(target, sums_azyx, *weights, share=self._summands.share(group))

    def leave_device(self) -> bool:
        """Moves the sums to the host; False if there is nothing to gain, because they lie there or do not exist."""
        if self._values is None or self._values.device.type == "cpu":
            return False
        self._values = moved_to_host(self._values, self._room_bytes, self._limits)
        return True

    def slab(self, start: int, stop: int) -> Slab:
        """Slices ``start`` to ``stop`` of the padded grid, which are complete, as a slab of the image's own grid."""
        if self._values is None:
            raise ValueError("no tile was added")
        depth, height, width = self._image.shape
        before, top, left = self._image.before
        # With the slice before, which linear interpolation needs.
        slab_first = min(max(max(0, start - 1) - before, 0), depth)
        slab_start = min(max(start - before, 0), depth)
        slab_stop = min(max(stop - before, 0), depth)
        at = slab_first + before - self.first
        values = self._values[:, at : at + slab_stop - slab_first, top : top + height, left : left + width]
        _require_numbers(values)
        return Slab(
            first=slab_first,
            start=slab_start,
            stop=slab_stop,
            channels_azyx=values,
            heads=heads_on(self._summands.heads, values.device),
            members=self._summands.member_count,
        )

    def _zeros(self, channels: int, *, channels_last: bool) -> Tensor:
        """Zeros (A, z, Y, X); with ``channels_last`` those of a voxel lie next to each other in memory."""
        in_memory = (*self._slices_shape, channels) if channels_last else (channels, *self._slices_shape)
        values = self._device_zeros(in_memory)
        if values is None:
            values = _host_zeros(in_memory, self._room_bytes, self._limits)
        return values.movedim(-1, 0) if channels_last else values

    def _device_zeros(self, shape: tuple[int, ...]) -> Tensor | None:
        """None where the device is the host, or has no room."""
        if self._device.type == "cpu" or self._limits.sums_on_host:
            return None
        try:
            return allocate(FLOAT32, shape, self._device)
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
        self._limits.keep_sums_on_host()
        return None


def _require_numbers(values_azyx: Tensor) -> None:
    """NoNumbers if a value is NaN or infinite: the largest of such would be the background, without a word."""
    # The sum, which is quick, is no number then; it may also be beyond what the type holds where all values are right.
    if values_azyx.device.type == "meta":  # only shapes are computed
        return
    if not values_azyx.sum().isfinite() and not values_azyx.isfinite().all():
        raise NoNumbers(
            "what the networks give is no number (NaN or infinite); take --precision fp32, and if that does not help "
            "look for values in the image that are far from those of the training, or restore the model's weights"
        )


def add_weighted(target_azyx: Tensor, sums_azyx: Tensor, by_slice_z: Tensor, in_slice_yx: Tensor, share: float) -> None:
    """Adds ``share`` of a tile's sums to their place, weighted by slice (Z,) and in the slice (Y, X)."""
    by_slice_z = by_slice_z * share
    if target_azyx.device.type != "cpu":
        target_azyx.addcmul_(sums_azyx.to(target_azyx.device), by_slice_z[:, None, None] * in_slice_yx)
        return
    sums_azyx = sums_azyx.cpu()
    for z in range(sums_azyx.shape[1]):
        target = target_azyx[:, z]
        values = sums_azyx[:, z].float()
        weight_yx = by_slice_z[z] * in_slice_yx
        if target.dtype == torch.float32:
            target.addcmul_(values, weight_yx)
        else:
            target.copy_(target.float().addcmul_(values, weight_yx))


def add_flipped(total_bazyx: Tensor, part_bazyx: Tensor, axes: tuple[int, ...]) -> None:
    """Adds ``part`` flipped along the axes of space to ``total``; the part may be of 16 bit."""
    if total_bazyx.device.type != "cpu":
        total_bazyx += part_bazyx.flip([axis + 2 for axis in axes]) if axes else part_bazyx
        return
    # Slice by slice, so that what is flipped and widened to float32 stays near the processor.
    depth = total_bazyx.shape[2]
    in_plane = [axis + 1 for axis in axes if axis > 0]
    for z in range(depth):
        source = part_bazyx[:, :, depth - 1 - z if 0 in axes else z]
        total_bazyx[:, :, z] += source.flip(in_plane) if in_plane else source


def moved_to_host(values_azyx: Tensor, room_bytes: float, limits: LearnedLimits) -> Tensor:
    """The sums in the host's memory, laid out alike."""
    limits.keep_sums_on_host()
    is_last = values_azyx.stride(0) == 1
    in_memory = values_azyx.movedim(0, -1) if is_last else values_azyx
    copy = _host_zeros(tuple(in_memory.shape), room_bytes, limits).copy_(in_memory)
    return copy.movedim(-1, 0) if is_last else copy


def _host_zeros(shape: tuple[int, ...], room_bytes: float, limits: LearnedLimits) -> Tensor:
    values = prod(shape)
    storage = choose_storage(values, room_bytes, limits.least_room_bytes)
    note = storage_note(storage, values, room_bytes, limits.scratch or Path(tempfile.gettempdir()))
    if note:
        limits.say_once(note)
    return allocate(storage, shape, torch.device("cpu"), limits.scratch)
