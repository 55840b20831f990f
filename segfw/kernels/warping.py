"""Patches of drawn transforms from their boxes in one launch: where a voxel lies, its 8 neighbours, and their vote."""

# W warped sample, C channel, L kind of mask, N voxel of the patch, Z Y X space

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from segfw.kernels.launch import device_of

BLOCK = 256  # voxels of a program: few, since each holds 8 neighbours, their weights and their votes


@triton.jit
def _place(
    numbers: tl.tensor, row: tl.constexpr, in_z: tl.tensor, in_y: tl.tensor, in_x: tl.tensor, move: tl.tensor
) -> tl.tensor:
    """Where voxels lie along one axis of the box: within it, but for rounding they would be anyhow."""
    turned = tl.load(numbers + 3 * row) * in_z
    turned += tl.load(numbers + 3 * row + 1) * in_y
    turned += tl.load(numbers + 3 * row + 2) * in_x
    place = turned + tl.load(numbers + 9 + row) + move
    last = tl.load(numbers + 12 + row)
    return tl.minimum(tl.maximum(place, 0.0), last)


@triton.jit
def _lower(place: tl.tensor, last: tl.tensor, IS_FLAT: tl.constexpr) -> tl.tensor:
    """The lower neighbour along an axis, below which there always is an upper one if the axis is turned."""
    lower = tl.floor(place)
    if not IS_FLAT:
        lower = tl.minimum(lower, tl.maximum(last - 1.0, 0.0))
    return lower


@triton.jit
def _warp(
    images: tl.tensor,
    masks: tl.tensor,
    moves: tl.tensor,
    numbers: tl.tensor,
    places: tl.tensor,
    image_result: tl.tensor,
    mask_result: tl.tensor,
    channels: tl.tensor,
    kinds: tl.tensor,
    values: tl.tensor,
    size_z: tl.tensor,
    size_y: tl.tensor,
    size_x: tl.tensor,
    HAS_MOVES: tl.constexpr,
    IS_FLAT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One block of voxels of one sample, in all channels and masks.

    ``numbers`` (W, 15) are the matrix, the centre and the last voxel of each box; ``places`` (W, 7) where it begins,
    its strides and the steps to the upper neighbours. ``values`` are those of all boxes in a channel.
    """
    sample = tl.program_id(1)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    voxels = size_z * size_y * size_x
    inside = voxel < voxels
    numbers += sample * 15
    places += sample * 7

    # Where the voxel lies in the box
    in_x = (voxel % size_x).to(tl.float32) - (size_x - 1) * 0.5
    in_y = ((voxel // size_x) % size_y).to(tl.float32) - (size_y - 1) * 0.5
    in_z = (voxel // (size_x * size_y)).to(tl.float32) - (size_z - 1) * 0.5
    move_z = tl.zeros([BLOCK], dtype=tl.float32)
    move_y = tl.zeros([BLOCK], dtype=tl.float32)
    move_x = tl.zeros([BLOCK], dtype=tl.float32)
    if HAS_MOVES:
        own = moves + sample.to(tl.int64) * 3 * voxels + voxel
        move_z = tl.load(own, mask=inside, other=0.0)
        move_y = tl.load(own + voxels, mask=inside, other=0.0)
        move_x = tl.load(own + 2 * voxels, mask=inside, other=0.0)
    z = _place(numbers, 0, in_z, in_y, in_x, move_z)
    y = _place(numbers, 1, in_z, in_y, in_x, move_y)
    x = _place(numbers, 2, in_z, in_y, in_x, move_x)
    z_below = _lower(z, tl.load(numbers + 12), IS_FLAT)
    y_below = _lower(y, tl.load(numbers + 13), False)
    x_below = _lower(x, tl.load(numbers + 14), False)

    # Its neighbours and what they weigh; the slices of a flat patch stay what they are
    index = tl.load(places) + z_below.to(tl.int32) * tl.load(places + 1)
    index += y_below.to(tl.int32) * tl.load(places + 2) + x_below.to(tl.int32) * tl.load(places + 3)
    up = tl.load(places + 4)
    back = tl.load(places + 5)
    right = tl.load(places + 6)
    of_up = z - z_below
    if IS_FLAT:
        of_up = tl.zeros([BLOCK], dtype=tl.float32)
    of_back = y - y_below
    of_right = x - x_below
    w0 = (1 - of_up) * (1 - of_back) * (1 - of_right)
    w1 = (1 - of_up) * (1 - of_back) * of_right
    w2 = (1 - of_up) * of_back * (1 - of_right)
    w3 = (1 - of_up) * of_back * of_right
    w4 = of_up * (1 - of_back) * (1 - of_right)
    w5 = of_up * (1 - of_back) * of_right
    w6 = of_up * of_back * (1 - of_right)
    w7 = of_up * of_back * of_right

    result = sample.to(tl.int64) * channels * voxels + voxel
    for _ in range(channels):
        image = images + index
        value = tl.load(image, mask=inside, other=0.0).to(tl.float32) * w0
        value += tl.load(image + right, mask=inside, other=0.0).to(tl.float32) * w1
        value += tl.load(image + back, mask=inside, other=0.0).to(tl.float32) * w2
        value += tl.load(image + back + right, mask=inside, other=0.0).to(tl.float32) * w3
        value += tl.load(image + up, mask=inside, other=0.0).to(tl.float32) * w4
        value += tl.load(image + up + right, mask=inside, other=0.0).to(tl.float32) * w5
        value += tl.load(image + up + back, mask=inside, other=0.0).to(tl.float32) * w6
        value += tl.load(image + up + back + right, mask=inside, other=0.0).to(tl.float32) * w7
        tl.store(image_result + result, value, mask=inside)
        images += values
        result += voxels

    result = sample.to(tl.int64) * kinds * voxels + voxel
    for _ in range(kinds):
        mask = masks + index
        a = tl.load(mask, mask=inside, other=0)
        b = tl.load(mask + right, mask=inside, other=0)
        c = tl.load(mask + back, mask=inside, other=0)
        d = tl.load(mask + back + right, mask=inside, other=0)
        e = tl.load(mask + up, mask=inside, other=0)
        f = tl.load(mask + up + right, mask=inside, other=0)
        g = tl.load(mask + up + back, mask=inside, other=0)
        h = tl.load(mask + up + back + right, mask=inside, other=0)
        # The first corner of each label gets all its votes, those of corners behind it fewer
        label = a
        most = w0 + _vote(a, b, w1) + _vote(a, c, w2) + _vote(a, d, w3) + _vote(a, e, w4)
        most = most + _vote(a, f, w5) + _vote(a, g, w6) + _vote(a, h, w7)
        votes = w1 + _vote(b, c, w2) + _vote(b, d, w3) + _vote(b, e, w4) + _vote(b, f, w5)
        votes = votes + _vote(b, g, w6) + _vote(b, h, w7)
        label = tl.where(votes > most, b, label)
        most = tl.maximum(most, votes)
        votes = w2 + _vote(c, d, w3) + _vote(c, e, w4) + _vote(c, f, w5) + _vote(c, g, w6) + _vote(c, h, w7)
        label = tl.where(votes > most, c, label)
        most = tl.maximum(most, votes)
        votes = w3 + _vote(d, e, w4) + _vote(d, f, w5) + _vote(d, g, w6) + _vote(d, h, w7)
        label = tl.where(votes > most, d, label)
        most = tl.maximum(most, votes)
        votes = w4 + _vote(e, f, w5) + _vote(e, g, w6) + _vote(e, h, w7)
        label = tl.where(votes > most, e, label)
        most = tl.maximum(most, votes)
        votes = w5 + _vote(f, g, w6) + _vote(f, h, w7)
        label = tl.where(votes > most, f, label)
        most = tl.maximum(most, votes)
        votes = w6 + _vote(g, h, w7)
        label = tl.where(votes > most, g, label)
        most = tl.maximum(most, votes)
        label = tl.where(w7 > most, h, label)
        tl.store(mask_result + result, label, mask=inside)
        masks += values
        result += voxels


@triton.jit
def _vote(label: tl.tensor, other: tl.tensor, weight: tl.tensor) -> tl.tensor:
    """The weight of a corner that has the same label, else nothing."""
    return tl.where(label == other, weight, 0.0)


def warp_at_once(
    images_CM: Tensor,
    masks_LM: Tensor,
    numbers: Tensor,
    places: Tensor,
    moves: Sequence[Tensor | None],
    patch_size: tuple[int, int, int],
    *,
    is_flat: bool,
) -> tuple[Tensor, Tensor]:
    """Images (W, C, N) float32 and masks (W, L, N) of patches, from the values M of all boxes in a row.

    ``numbers`` (W, 15) float32 are each box's matrix (3, 3), from offsets off the patch's centre, its centre and its
    last voxel; ``places`` (W, 7) int32 where it begins in the row, its strides, and how far its upper neighbours are.
    ``moves`` (3, N) are added where there are any. Of a patch that ``is_flat``, slices are not mixed.
    """
    count = len(numbers)
    voxels = prod(patch_size)
    device = images_CM.device
    assert images_CM.shape[1] < 2**31, "boxes are looked up in 32 bits"
    image_WCN = torch.empty(count, len(images_CM), voxels, device=device)
    mask_WLN = torch.empty(count, len(masks_LM), voxels, device=device, dtype=masks_LM.dtype)
    has_moves = any(move is not None for move in moves)
    moves_W3N = numbers
    if has_moves:
        still = torch.zeros(3, voxels, device=device)
        moves_W3N = torch.stack([still if move is None else move for move in moves])
    with device_of(images_CM):
        _warp[(triton.cdiv(voxels, BLOCK), count)](
            images_CM,
            masks_LM,
            moves_W3N,
            numbers,
            places,
            image_WCN,
            mask_WLN,
            len(images_CM),
            len(masks_LM),
            images_CM.shape[1],
            *patch_size,
            HAS_MOVES=has_moves,
            IS_FLAT=is_flat,
            BLOCK=BLOCK,
        )
    return image_WCN, mask_WLN
