"""Accumulators of some slices, which move on along the first axis of the network's grid."""

from __future__ import annotations

import tempfile
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from segfw.base.resources import ran_out_of_memory
from segfw.inference.host_memory import FLOAT32, Limits, allocate, choose_keeping, describe
from segfw.inference.tiles import Tile


def add_flipped(total_bazyx: Tensor, part_bazyx: Tensor, axes: tuple[int, ...]) -> None:
    """Adds ``part`` flipped along the axes of space to ``total``; the part may be of 16 bit."""
    if total_bazyx.device.type != "cpu":
        total_bazyx += part_bazyx.flip([axis + 2 for axis in axes]) if axes else part_bazyx
        return
    # Slice by slice, so that what is flipped and widened to float32 stays near the processor.
    depth, in_plane = total_bazyx.shape[2], [axis + 1 for axis in axes if axis > 0]
    for z in range(depth):
        source = part_bazyx[:, :, depth - 1 - z if 0 in axes else z]
        total_bazyx[:, :, z] += source.flip(in_plane) if in_plane else source


class Window:
    """Weighted sums (A, z, Y, X) from slice ``first`` of the padded grid on.

    Weights of all tiles in a voxel sum to 1, so that a sum that is complete is the result.
    """

    def __init__(self, values_azyx: Tensor) -> None:
        self.values, self.first = values_azyx, 0

    def move_on(self, first: int) -> None:
        """Makes slice ``first`` the first one: those before it are forgotten, those that come in are zero."""
        depth, by = self.values.shape[1], first - self.first
        if by == 0:
            return
        for z in range(depth - by):
            self.values[:, z] = self.values[:, z + by]
        self.values[:, max(0, depth - by) :] = 0
        self.first = first

    def add(self, part_azyx: Tensor, tile: Tile, channels: slice, weights: tuple[Tensor, Tensor], share: float) -> None:
        """Adds ``share`` of a tile's output, weighted by slice (Z,) and in the slice (Y, X)."""
        (z, y, x), (depth, height, width) = tile.start, part_azyx.shape[1:]
        z -= self.first
        target = self.values[channels, z : z + depth, y : y + height, x : x + width]
        by_slice, in_slice = weights[0] * share, weights[1]
        if target.device.type != "cpu":
            target.addcmul_(part_azyx.to(target.device), by_slice[:, None, None] * in_slice)
            return
        part_azyx = part_azyx.cpu()
        for index in range(depth):
            sums, values = target[:, index], part_azyx[:, index].float()
            weight = by_slice[index] * in_slice
            if sums.dtype == torch.float32:
                sums.addcmul_(values, weight)
            else:
                sums.copy_(sums.float().addcmul_(values, weight))


def make_window(
    shape: tuple[int, ...], *, channels_last: bool, device: torch.device, room_bytes: float, limits: Limits
) -> Window:
    """Zeros (A, z, Y, X): float32 on the device if they fit, else on the host, in at most ``room_bytes`` of memory.

    With ``channels_last`` those of a voxel lie next to each other in memory.
    """
    in_memory = (*shape[1:], shape[0]) if channels_last else shape
    values = None
    if device.type != "cpu" and not limits.on_host:
        try:
            values = allocate(FLOAT32, in_memory, device)
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            say_on_host(limits)
    if values is None:
        values = _host_zeros(in_memory, room_bytes, limits)
    return Window(values.movedim(-1, 0) if channels_last else values)


def on_host(window: Window, room_bytes: float, limits: Limits) -> Tensor:
    """The window's sums in the host's memory, laid out alike."""
    say_on_host(limits)
    is_last = window.values.stride(0) == 1
    laid_out = window.values.movedim(0, -1) if is_last else window.values
    copy = _host_zeros(tuple(laid_out.shape), room_bytes, limits).copy_(laid_out)
    return copy.movedim(-1, 0) if is_last else copy


def say_on_host(limits: Limits) -> None:
    """Remembers that sums do not fit on the device."""
    limits.on_host = True
    limits.say_once("the device has no memory for the sums beside the network; they are kept on the host")


def _host_zeros(shape: tuple[int, ...], room_bytes: float, limits: Limits) -> Tensor:
    keeping = choose_keeping(prod(shape), room_bytes)
    note = describe(keeping, prod(shape), room_bytes, limits.folder or Path(tempfile.gettempdir()))
    if note:
        limits.say_once(note)
    return allocate(keeping, shape, torch.device("cpu"), limits.folder)
