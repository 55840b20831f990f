"""Instance norm, a sum with a shortcut and leaky ReLU in one kernel pair, for images whose channels are last in memory.

The stock operations read and write the image five times forward (two of them copies into another layout), these read it
twice and write it once; backward twice each instead of eight times. Sums are taken in float32, lane by lane after
Welford (1962) and joined after Chan et al. (1979), in an order that does not depend on chance: no atomic additions.
"""

# B sample, V voxel, C channel, S slab: a part of the voxels that one program adds up. Memory is (B, V, C).

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from segfw.kernels.launch import on_its_device

TILE = 2048  # values that a program works on at once: 16 for each thread of four warps
MOST_CHANNELS = 64  # of a tile
PROGRAMS = 1024  # that add up at the same time: enough for the largest cards, few enough to join quickly
LARGEST_IMAGE = 2**31 - 1  # values of one sample, which are counted in 32 bits


@triton.jit
def _moments_of_slabs(
    x: tl.tensor,
    means: tl.tensor,
    squares: tl.tensor,
    voxels: tl.tensor,
    channels: tl.tensor,
    slab_voxels: tl.tensor,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Mean of each slab (B, S, C), and the sum of squared distances from it."""
    slab = tl.program_id(0)
    sample = tl.program_id(2)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < channels
    image = x + sample.to(tl.int64) * voxels * channels
    first = slab * slab_voxels
    end = tl.minimum(first + slab_voxels, voxels)
    count = tl.zeros([BLOCK_V], dtype=tl.float32)
    mean = tl.zeros([BLOCK_V, BLOCK_C], dtype=tl.float32)
    square = tl.zeros([BLOCK_V, BLOCK_C], dtype=tl.float32)
    for start in range(first, end, BLOCK_V):
        voxel = start + tl.arange(0, BLOCK_V)
        is_voxel = voxel < end
        inside = is_voxel[:, None] & is_channel[None, :]
        value = tl.load(image + voxel[:, None] * channels + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        count += is_voxel.to(tl.float32)
        difference = tl.where(inside, value - mean, 0.0)
        mean += difference / tl.maximum(count, 1.0)[:, None]
        square += difference * (value - mean)
    total = tl.sum(count, 0)
    joined = tl.sum(mean * count[:, None], 0) / total
    apart = mean - joined[None, :]
    joined_square = tl.sum(square + apart * apart * count[:, None], 0)
    place = (sample * tl.num_programs(0) + slab) * channels + channel
    tl.store(means + place, joined, mask=is_channel)
    tl.store(squares + place, joined_square, mask=is_channel)


@triton.jit
def _joined_moments(
    means: tl.tensor,
    squares: tl.tensor,
    mean: tl.tensor,
    scale: tl.tensor,
    voxels: tl.tensor,
    channels: tl.tensor,
    slabs: tl.tensor,
    slab_voxels: tl.tensor,
    eps: tl.tensor,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Mean and one over the standard deviation of each sample and channel (B, C), from those of its slabs."""
    sample = tl.program_id(1)
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < channels
    total = tl.zeros([BLOCK_C], dtype=tl.float32)
    square = tl.zeros([BLOCK_C], dtype=tl.float32)
    for start in range(0, slabs, BLOCK_S):
        slab = start + tl.arange(0, BLOCK_S)
        inside = (slab < slabs)[:, None] & is_channel[None, :]
        place = (sample * slabs + slab)[:, None] * channels + channel[None, :]
        count = tl.minimum(slab_voxels, voxels - slab * slab_voxels).to(tl.float32)
        total += tl.sum(tl.load(means + place, mask=inside, other=0.0) * count[:, None], 0)
    joined = total / voxels
    for start in range(0, slabs, BLOCK_S):
        slab = start + tl.arange(0, BLOCK_S)
        inside = (slab < slabs)[:, None] & is_channel[None, :]
        place = (sample * slabs + slab)[:, None] * channels + channel[None, :]
        count = tl.minimum(slab_voxels, voxels - slab * slab_voxels).to(tl.float32)
        apart = tl.load(means + place, mask=inside, other=0.0) - joined[None, :]
        own = tl.load(squares + place, mask=inside, other=0.0)
        square += tl.sum(tl.where(inside, own + apart * apart * count[:, None], 0.0), 0)
    place = sample * channels + channel
    tl.store(mean + place, joined, mask=is_channel)
    tl.store(scale + place, 1.0 / tl.sqrt(square / voxels + eps), mask=is_channel)


@triton.jit
def _normalise(
    x: tl.tensor,
    shortcut: tl.tensor,
    y: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    mean: tl.tensor,
    scale: tl.tensor,
    voxels: tl.tensor,
    channels: tl.tensor,
    slope: tl.tensor,
    HAS_SHORTCUT: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Leaky ReLU of the normalised image, with the shortcut added before."""
    sample = tl.program_id(2)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < channels
    voxel = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = (voxel < voxels)[:, None] & is_channel[None, :]
    place = sample.to(tl.int64) * voxels * channels + voxel[:, None] * channels + channel[None, :]
    own = sample * channels + channel
    middle = tl.load(mean + own, mask=is_channel, other=0.0)
    factor = tl.load(scale + own, mask=is_channel, other=0.0)
    factor *= tl.load(weight + channel, mask=is_channel, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, mask=is_channel, other=0.0).to(tl.float32)
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    value = (value - middle[None, :]) * factor[None, :] + offset[None, :]
    if HAS_SHORTCUT:
        value += tl.load(shortcut + place, mask=inside, other=0.0).to(tl.float32)
    value = tl.where(value > 0, value, value * slope)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _gradient_sums_of_slabs(
    x: tl.tensor,
    y: tl.tensor,
    by_y: tl.tensor,
    by_shortcut: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    mean: tl.tensor,
    scale: tl.tensor,
    by_bias: tl.tensor,
    by_weight: tl.tensor,
    voxels: tl.tensor,
    channels: tl.tensor,
    slab_voxels: tl.tensor,
    slope: tl.tensor,
    HAS_SHORTCUT: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Sums over each slab (B, S, C) of the gradient before the activation, and of it times the normed image.

    With a shortcut that gradient is the shortcut's, too, and is kept; whether a voxel lies above the kink is then read
    off the result, else computed again.
    """
    slab = tl.program_id(0)
    sample = tl.program_id(2)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < channels
    begin = sample.to(tl.int64) * voxels * channels
    own = sample * channels + channel
    middle = tl.load(mean + own, mask=is_channel, other=0.0)
    spread = tl.load(scale + own, mask=is_channel, other=0.0)
    factor = tl.load(weight + channel, mask=is_channel, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, mask=is_channel, other=0.0).to(tl.float32)
    first = slab * slab_voxels
    end = tl.minimum(first + slab_voxels, voxels)
    total = tl.zeros([BLOCK_V, BLOCK_C], dtype=tl.float32)
    total_normed = tl.zeros([BLOCK_V, BLOCK_C], dtype=tl.float32)
    for start in range(first, end, BLOCK_V):
        voxel = start + tl.arange(0, BLOCK_V)
        inside = (voxel < end)[:, None] & is_channel[None, :]
        place = begin + voxel[:, None] * channels + channel[None, :]
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        gradient = tl.load(by_y + place, mask=inside, other=0.0).to(tl.float32)
        normed = (value - middle[None, :]) * spread[None, :]
        if HAS_SHORTCUT:
            before = tl.load(y + place, mask=inside, other=0.0).to(tl.float32)  # of the same sign
        else:
            before = (value - middle[None, :]) * (spread * factor)[None, :] + offset[None, :]
        gradient = tl.where(before > 0, gradient, gradient * slope)
        if HAS_SHORTCUT:
            tl.store(by_shortcut + place, gradient.to(by_shortcut.dtype.element_ty), mask=inside)
        total += gradient
        total_normed += gradient * normed
    place = (sample * tl.num_programs(0) + slab) * channels + channel
    tl.store(by_bias + place, tl.sum(total, 0), mask=is_channel)
    tl.store(by_weight + place, tl.sum(total_normed, 0), mask=is_channel)


@triton.jit
def _gradient_of_image(
    x: tl.tensor,
    by_y: tl.tensor,
    by_x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    mean: tl.tensor,
    scale: tl.tensor,
    by_bias: tl.tensor,
    by_weight: tl.tensor,
    voxels: tl.tensor,
    channels: tl.tensor,
    slope: tl.tensor,
    IS_BEFORE_ACTIVATION: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """From the gradient of the result, or from that before the activation, and its sums (B, C)."""
    sample = tl.program_id(2)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < channels
    voxel = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = (voxel < voxels)[:, None] & is_channel[None, :]
    place = sample.to(tl.int64) * voxels * channels + voxel[:, None] * channels + channel[None, :]
    own = sample * channels + channel
    middle = tl.load(mean + own, mask=is_channel, other=0.0)
    spread = tl.load(scale + own, mask=is_channel, other=0.0)
    factor = spread * tl.load(weight + channel, mask=is_channel, other=0.0).to(tl.float32)
    mean_gradient = tl.load(by_bias + own, mask=is_channel, other=0.0) / voxels
    mean_normed = tl.load(by_weight + own, mask=is_channel, other=0.0) / voxels
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    gradient = tl.load(by_y + place, mask=inside, other=0.0).to(tl.float32)
    centred = value - middle[None, :]
    if not IS_BEFORE_ACTIVATION:
        offset = tl.load(bias + channel, mask=is_channel, other=0.0).to(tl.float32)
        before = centred * factor[None, :] + offset[None, :]
        gradient = tl.where(before > 0, gradient, gradient * slope)
    normed = centred * spread[None, :]
    gradient = (gradient - mean_gradient[None, :] - normed * mean_normed[None, :]) * factor[None, :]
    tl.store(by_x + place, gradient.to(by_x.dtype.element_ty), mask=inside)


class _Sizes:
    """How an image (B, C, ...) is shared out among programs."""

    def __init__(self, x: Tensor) -> None:
        self.samples = x.shape[0]
        self.channels = x.shape[1]
        self.voxels = x[0, 0].numel()
        self.block_c = min(MOST_CHANNELS, triton.next_power_of_2(self.channels))
        self.block_v = TILE // self.block_c
        self.parts = triton.cdiv(self.channels, self.block_c)
        most_slabs = max(1, PROGRAMS // (self.samples * self.parts))
        tiles = triton.cdiv(self.voxels, self.block_v)
        self.slab_voxels = triton.cdiv(tiles, most_slabs) * self.block_v
        self.slabs = triton.cdiv(self.voxels, self.slab_voxels)
        self.blocks = {"BLOCK_V": self.block_v, "BLOCK_C": self.block_c}

    @property
    def of_slabs(self) -> tuple[int, int, int]:
        return self.slabs, self.parts, self.samples

    @property
    def of_tiles(self) -> tuple[int, int, int]:
        return triton.cdiv(self.voxels, self.block_v), self.parts, self.samples

    def by_slab(self, like: Tensor) -> Tensor:
        return torch.empty(self.samples, self.slabs, self.channels, dtype=torch.float32, device=like.device)

    def by_sample(self, like: Tensor) -> Tensor:
        return torch.empty(self.samples, self.channels, dtype=torch.float32, device=like.device)


class _Context(FunctionCtx):
    """``y`` is kept only where a shortcut was added."""

    saved_tensors: tuple[Tensor, ...]  # image, weight, bias, mean and scale (B, C), and y
    slope: float


class _NormActivation(torch.autograd.Function):
    @staticmethod
    @on_its_device
    def forward(
        ctx: _Context, x: Tensor, shortcut: Tensor | None, weight: Tensor, bias: Tensor, eps: float, slope: float
    ) -> Tensor:
        sizes = _Sizes(x)
        means = sizes.by_slab(x)
        squares = sizes.by_slab(x)
        _moments_of_slabs[sizes.of_slabs](
            x, means, squares, sizes.voxels, sizes.channels, sizes.slab_voxels, **sizes.blocks
        )
        mean = sizes.by_sample(x)
        scale = sizes.by_sample(x)
        _joined_moments[(sizes.parts, sizes.samples)](
            means,
            squares,
            mean,
            scale,
            sizes.voxels,
            sizes.channels,
            sizes.slabs,
            sizes.slab_voxels,
            eps,
            BLOCK_S=sizes.block_v,
            BLOCK_C=sizes.block_c,
        )
        y = torch.empty_like(x)
        _normalise[sizes.of_tiles](
            x,
            x if shortcut is None else shortcut,
            y,
            weight,
            bias,
            mean,
            scale,
            sizes.voxels,
            sizes.channels,
            slope,
            HAS_SHORTCUT=shortcut is not None,
            **sizes.blocks,
        )
        kept = (x, weight, bias, mean, scale) if shortcut is None else (x, weight, bias, mean, scale, y)
        ctx.save_for_backward(*kept)
        ctx.slope = slope
        return y

    @staticmethod
    @once_differentiable
    @on_its_device
    def backward(ctx: _Context, by_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, scale, *result = ctx.saved_tensors
        y = result[0] if result else None
        sizes = _Sizes(x)
        by_y = in_layout(by_y)
        has_shortcut = y is not None
        by_shortcut = torch.empty_like(x) if has_shortcut else None
        bias_sums = sizes.by_slab(x)
        weight_sums = sizes.by_slab(x)
        _gradient_sums_of_slabs[sizes.of_slabs](
            x,
            x if y is None else y,
            by_y,
            x if by_shortcut is None else by_shortcut,
            weight,
            bias,
            mean,
            scale,
            bias_sums,
            weight_sums,
            sizes.voxels,
            sizes.channels,
            sizes.slab_voxels,
            ctx.slope,
            HAS_SHORTCUT=has_shortcut,
            **sizes.blocks,
        )
        bias_sums_BC = bias_sums.sum(1)
        weight_sums_BC = weight_sums.sum(1)
        by_x = torch.empty_like(x)
        _gradient_of_image[sizes.of_tiles](
            x,
            by_y if by_shortcut is None else by_shortcut,
            by_x,
            weight,
            bias,
            mean,
            scale,
            bias_sums_BC,
            weight_sums_BC,
            sizes.voxels,
            sizes.channels,
            ctx.slope,
            IS_BEFORE_ACTIVATION=has_shortcut,
            **sizes.blocks,
        )
        by_weight = weight_sums_BC.sum(0).to(weight.dtype)
        by_bias = bias_sums_BC.sum(0).to(bias.dtype)
        return by_x, by_shortcut, by_weight, by_bias, None, None


def in_layout(image: Tensor) -> Tensor:
    """The image with channels last in memory, (B, voxels, C); a copy where they are not."""
    return image.contiguous(memory_format=torch.channels_last_3d if image.dim() == 5 else torch.channels_last)


def can_take(x: Tensor) -> bool:
    """Whether the kernels compute for such an image (B, C, ...): 16 or 32 bit, two or three axes, not too large."""
    is_known = x.dim() in (4, 5) and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return is_known and 0 < x.numel() <= LARGEST_IMAGE * x.shape[0]


def norm_activation(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float, shortcut: Tensor | None = None
) -> Tensor:
    """Leaky ReLU of the instance norm of ``x`` (B, C, ...), to which ``shortcut`` of the same shape is added before.

    A ``slope`` of 1 is no activation; it must be above 0. The result has the type of ``x`` and channels last.
    """
    assert slope > 0, slope
    if shortcut is not None:
        shortcut = in_layout(shortcut.to(x.dtype))
    return _NormActivation.apply(in_layout(x), shortcut, weight, bias, eps, slope)
