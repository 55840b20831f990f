"""Section ``norm``: instance norm with leaky ReLU on a tensor of full resolution, in several ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.gpu.timing import call_ms
from bench.gpu.visit import Visit, attempt
from segfw.networks.norm import _FusedNorm

EPS = 1e-5
SLOPE = 0.01
MEMORY_BYTES_PER_MS = 4.3e9  # of the card that passes are told in: an H200's copy reads and writes 4.3 TB/s


class SampleByBatchNorm(torch.autograd.Function):
    """Batch norm of one sample at a time, which is instance norm.

    CUDA has channels-last kernels for it, for 16 bit with float32 statistics; those of instance norm copy every image
    out of that layout.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y = torch.empty_like(x)
        means = []
        scales = []
        for image, result in zip(x.split(1), y.split(1)):
            normed, mean, scale = torch.native_batch_norm(image, weight, bias, None, None, True, 0.0, eps)
            result.copy_(normed)
            means.append(mean)
            scales.append(scale)
        ctx.save_for_backward(x, weight, torch.stack(means), torch.stack(scales))
        ctx.eps = eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, means, scales = ctx.saved_tensors
        layout = torch.channels_last_3d if x.dim() == 5 else torch.channels_last
        grads = grad.contiguous(memory_format=layout).split(1)
        by_x = torch.empty_like(x)
        by_weight = torch.zeros_like(weight)
        by_bias = torch.zeros_like(weight)
        for image, result, by_y, mean, scale in zip(x.split(1), by_x.split(1), grads, means, scales):
            by_image, more_by_weight, more_by_bias = torch.ops.aten.native_batch_norm_backward(
                by_y, image, weight, None, None, mean, scale, True, ctx.eps, [True, True, True]
            )
            result.copy_(by_image)
            by_weight += more_by_weight
            by_bias += more_by_bias
        return by_x, by_weight, by_bias, None


def norm(visit: Visit, found: dict, until_left_s: float) -> None:
    """Forward and both directions in ms, and the forward pass in passes over the tensor."""
    shape = (2, 32, *visit.problem().patch_size) if visit.on_cuda else (1, 8, 8, 8, 8)
    weight = torch.ones(shape[1], device=visit.device, requires_grad=True)
    bias = torch.zeros(shape[1], device=visit.device, requires_grad=True)

    def stock(x: Tensor) -> Tensor:
        return F.leaky_relu(F.instance_norm(x, weight=weight, bias=bias), SLOPE)

    def by_formula(x: Tensor) -> Tensor:
        return F.leaky_relu(_FusedNorm.apply(x, weight, bias, EPS), SLOPE)

    def by_sample(x: Tensor) -> Tensor:
        return F.leaky_relu_(SampleByBatchNorm.apply(x, weight, bias, EPS), SLOPE)

    def compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return torch.compile(function) if visit.on_cuda else function

    channels_last = torch.channels_last_3d
    ways = {
        "stock contiguous": (stock, torch.contiguous_format),
        "stock channels-last": (stock, channels_last),
        "batch norm by sample channels-last": (by_sample, channels_last),
        "compiled stock channels-last": (compiled(stock), channels_last),
        "compiled formula channels-last": (compiled(by_formula), channels_last),
    }
    for name, (function, layout) in ways.items():
        attempt(found, name, partial(_timed, visit, function, shape, layout))


def _timed(visit: Visit, function: Callable[[Tensor], Tensor], shape: tuple, layout: torch.memory_format) -> dict:
    x = torch.randn(shape, device=visit.device, dtype=torch.bfloat16).to(memory_format=layout).requires_grad_()
    gradient = torch.randn_like(x)
    forward_ms = call_ms(lambda: function(x), 10, visit.device)["median_ms"]
    both_ms = call_ms(lambda: function(x).backward(gradient), 10, visit.device)["median_ms"]
    passes = forward_ms / (x.nbytes / MEMORY_BYTES_PER_MS)
    return {"forward_ms": forward_ms, "both_ms": both_ms, "passes": round(passes, 1)}
