"""Instance norm that keeps images channels-last on the CPU and on CUDA, alone or with its activation in one kernel.

The stock one folds samples into channels, for which it copies every image out of the layout that the convolutions
beside it want, and they copy it back: on CUDA that costs more than the layout gains (pytorch#59168). On other devices
the stock one is used.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd, prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.modules.instancenorm import _InstanceNorm

# B batch, C channel, ... one or more axes of space
# Sums over space are taken of so many voxels beside each other, and of so many after each other.
LANES = 16
ROWS = 1024
# Values of one image on CUDA below which the samples are not normalised one after the other: launches would then take
# longer than the copies that they spare (computed: two launches of 5 us are a pass over 2 MB at 0.4 TB/s).
LEAST_VALUES = 2**18
DEVICES = ("cpu", "cuda")  # where the layout is kept

# (image (B, C, ...), weight, bias, eps, slope, what is added before the activation) -> image
NormActivation = Callable[[Tensor, Tensor, Tensor, float, float, Tensor | None], Tensor]


class KeepsLayout(_InstanceNorm):
    """The choice of the implementation, in front of PyTorch's instance norms: same parameters, names and results.

    ``slope`` is that of the leaky ReLU that follows, where this layer does its work; 1 is none. ``fused`` is a kernel
    that does both at once, ``can_fuse`` says for which images; the compiler joins them by itself.
    """

    slope: float = 1.0
    fused: NormActivation | None = None
    can_fuse: Callable[[Tensor], bool]

    def forward(self, input: Tensor, shortcut: Tensor | None = None) -> Tensor:
        x = input  # the name is PyTorch's
        if self.fused is not None and not torch.compiler.is_compiling() and self.can_fuse(x):
            return self.fused(x, self.weight, self.bias, self.eps, self.slope, shortcut)
        normed = self._normed(x)
        if shortcut is not None:
            normed = normed + shortcut.to(normed.dtype)
        return normed if self.slope == 1.0 else F.leaky_relu(normed, self.slope)

    def _normed(self, x: Tensor) -> Tensor:
        if x.device.type in DEVICES and torch.compiler.is_compiling():
            return _FusedNorm.apply(x, self.weight, self.bias, self.eps)
        if x.device.type == "cpu" and _is_channels_last(x):
            return _ChannelsLastNorm.apply(x, self.weight, self.bias, self.eps)
        if x.device.type == "cuda" and _is_channels_last(x):
            return norm_on_cuda(x, self.weight, self.bias, self.eps)
        return super().forward(x)


class InstanceNorm2d(KeepsLayout, nn.InstanceNorm2d):
    """Takes and gives (B, C, Y, X); always with ``affine=True`` and without running statistics."""


class InstanceNorm3d(KeepsLayout, nn.InstanceNorm3d):
    """Takes and gives (B, C, Z, Y, X); always with ``affine=True`` and without running statistics."""


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last_3d if x.dim() == 5 else torch.channels_last


def _is_channels_last(x: Tensor) -> bool:
    """False where both layouts are the same, as with one channel or one voxel, and for what they do not exist."""
    return x.dim() in (4, 5) and not x.is_contiguous() and x.is_contiguous(memory_format=_layout(x))


class _ChannelsLastContext(FunctionCtx):
    saved_tensors: tuple[Tensor, Tensor, Tensor, Tensor]  # image, weight, mean and scale (B, C)
    eps: float


class _FusedContext(FunctionCtx):
    saved_tensors: tuple[Tensor, Tensor, Tensor, Tensor]  # image, weight, mean and scale (B, C, 1, ...)


class _ChannelsLastNorm(torch.autograd.Function):
    """Batch norm of one sample after the other: PyTorch has it for channels-last images and 16 bit, in few passes."""

    @staticmethod
    def forward(ctx: _ChannelsLastContext, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean_BC, var_BC = moments(x, weight.dtype)
        y = torch.empty_like(x)
        unused = weight.new_empty(0)
        for image, result, mean, var in zip(x.split(1), y.split(1), mean_BC, var_BC):
            torch.native_batch_norm(image, weight, bias, mean, var, False, 0.0, eps, out=(result, unused, unused))
        ctx.save_for_backward(x, weight, mean_BC, (var_BC + eps).rsqrt())
        ctx.eps = eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: _ChannelsLastContext, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean_BC, scale_BC = ctx.saved_tensors
        by_x = torch.empty_like(x)
        by_weight = torch.zeros_like(weight)
        by_bias = torch.zeros_like(weight)
        grads = grad.contiguous(memory_format=_layout(x)).split(1)
        for image, result, by_y, mean, scale in zip(x.split(1), by_x.split(1), grads, mean_BC, scale_BC):
            by_image, more_by_weight, more_by_bias = torch.ops.aten.native_batch_norm_backward(
                by_y, image, weight, None, None, mean, scale, True, ctx.eps, [True, True, True]
            )
            result.copy_(by_image)
            by_weight += more_by_weight
            by_bias += more_by_bias
        return by_x, by_weight, by_bias, None


def norm_on_cuda(x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, least_values: int = LEAST_VALUES) -> Tensor:
    """The norm of a channels-last image (B, C, ...), channels-last.

    Sample by sample; several images of less than ``least_values`` values all at once by PyTorch's own, and back.
    """
    if len(x) > 1 and x.numel() < least_values * len(x):
        return F.instance_norm(x, weight=weight, bias=bias, eps=eps).contiguous(memory_format=_layout(x))
    return NormBySample.apply(x, weight, bias, eps)


class NormBySample(torch.autograd.Function):
    """Batch norm of one sample after the other, as rows of channels, for which every PyTorch has a CUDA kernel.

    It takes 16 bit beside weights of 32 and adds in float32, after Welford, so that no slabs are needed as on the CPU.
    """

    @staticmethod
    def forward(ctx: _ChannelsLastContext, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y = torch.empty_like(x)
        exact = torch.promote_types(x.dtype, torch.float32)  # the type in which it adds
        mean_BC = torch.empty(x.shape[:2], dtype=exact, device=x.device)
        scale_BC = torch.empty_like(mean_BC)
        for rows, result, mean, scale in zip(_rows(x), _rows(y), mean_BC, scale_BC):
            torch.native_batch_norm(rows, weight, bias, None, None, True, 0.0, eps, out=(result, mean, scale))
        ctx.save_for_backward(x, weight, mean_BC, scale_BC)
        ctx.eps = eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: _ChannelsLastContext, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean_BC, scale_BC = ctx.saved_tensors
        grad = grad.contiguous(memory_format=_layout(x))
        by_x = torch.empty_like(x)
        by_weight = torch.zeros_like(weight)
        by_bias = torch.zeros_like(weight)
        for by_y, rows, result, mean, scale in zip(_rows(grad), _rows(x), _rows(by_x), mean_BC, scale_BC):
            by_image, more_by_weight, more_by_bias = torch.ops.aten.native_batch_norm_backward(
                by_y, rows, weight, None, None, mean, scale, True, ctx.eps, [True, True, True]
            )
            result.copy_(by_image)
            by_weight += more_by_weight
            by_bias += more_by_bias
        return by_x, by_weight, by_bias, None


def _rows(x: Tensor) -> Tensor:
    """A channels-last image as (B, voxels, C), without a copy."""
    return x.movedim(1, -1).flatten(1, -2)


def moments(x: Tensor, dtype: torch.dtype, *, slab_rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Mean and variance over space of every sample and channel (B, C).

    PyTorch adds row after row in float32, which over a million voxels goes wrong by percents. Hence a row is here
    several voxels beside each other, ``slab_rows`` rows are added at a time, and what comes out is joined.
    """
    voxels = prod(x.shape[2:])
    channels = x.shape[1]
    lanes = gcd(voxels, LANES)
    rows = x.movedim(1, -1).reshape(len(x), voxels // lanes, lanes * channels)  # a view: channels are last in memory
    # Running statistics that nothing is added to: they decide the type of the result, which is else that of x.
    nothing = torch.zeros(2, lanes * channels, dtype=dtype)
    slabs = rows.split(slab_rows, 1)
    by_slab = torch.stack([_moments_of_images(slab, nothing) for slab in slabs], 1)
    mean, var = by_slab.unflatten(-1, (lanes, channels))
    share = torch.tensor([slab.shape[1] * lanes / voxels for slab in slabs], dtype=dtype).view(-1, 1, 1, 1) / lanes
    mean_BC = (share * mean).sum((0, 2))
    var_BC = (share * (var + (mean - mean_BC[:, None]).square())).sum((0, 2))
    return mean_BC, var_BC


def _moments_of_images(slab: Tensor, nothing: Tensor) -> Tensor:
    """Mean and variance over the rows of a slab (B, rows, L), as (2, B, L)."""
    moments = [torch.stack(torch.batch_norm_update_stats(image, nothing[0], nothing[1], 0.0)) for image in slab]
    return torch.stack(moments, 1)


class _FusedNorm(torch.autograd.Function):
    """The formula in plain operations, which torch.compile makes two passes of, joined with what stands beside them.

    Left to itself it takes PyTorch's instance norm apart into something slower than PyTorch's own.
    """

    @staticmethod
    def forward(ctx: _FusedContext, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        space = tuple(range(2, x.dim()))
        values = x.to(weight.dtype)
        mean = values.mean(space, keepdim=True)
        scale = (values - mean).square().mean(space, keepdim=True).add(eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale)
        return ((values - mean) * (scale * _column(weight, x)) + _column(bias, x)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: _FusedContext, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        space = tuple(range(2, x.dim()))
        normed = (x.to(weight.dtype) - mean) * scale
        grad = grad.to(weight.dtype)
        by_bias = grad.sum(space, keepdim=True)
        by_weight = (grad * normed).sum(space, keepdim=True)
        voxels = prod(x.shape[2:])
        by_x = (grad - by_bias / voxels - normed * (by_weight / voxels)) * (scale * _column(weight, x))
        return by_x.to(x.dtype), by_weight.sum(0).flatten(), by_bias.sum(0).flatten(), None


def _column(values_C: Tensor, like: Tensor) -> Tensor:
    return values_C.view(-1, *(1,) * (like.dim() - 2))
