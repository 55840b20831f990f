"""Section ``norm``: instance norm with leaky ReLU on a tensor of full resolution, in several ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.gpu.timing import call_ms
from bench.gpu.visit import Visit, attempt
from segfw.kernels.trial import has_triton
from segfw.networks.norm import NormBySample, _FusedNorm

EPS = 1e-5
SLOPE = 0.01
MEMORY_BYTES_PER_MS = 4.3e9  # of the card that passes are told in: an H200's copy reads and writes 4.3 TB/s


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
        return F.leaky_relu_(NormBySample.apply(x, weight, bias, EPS), SLOPE)

    def by_kernel(x: Tensor) -> Tensor:
        from segfw.kernels.norm_activation import norm_activation

        return norm_activation(x, weight, bias, EPS, SLOPE)

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
    if has_triton(visit.device):
        ways["kernel channels-last"] = (by_kernel, channels_last)
    for name, (function, layout) in ways.items():
        attempt(found, name, partial(_timed, visit, function, shape, layout))


def _timed(visit: Visit, function: Callable[[Tensor], Tensor], shape: tuple, layout: torch.memory_format) -> dict:
    x = torch.randn(shape, device=visit.device, dtype=torch.bfloat16).to(memory_format=layout).requires_grad_()
    gradient = torch.randn_like(x)
    forward_ms = call_ms(lambda: function(x), 10, visit.device)["median_ms"]
    both_ms = call_ms(lambda: function(x).backward(gradient), 10, visit.device)["median_ms"]
    passes = forward_ms / (x.nbytes / MEMORY_BYTES_PER_MS)
    return {"forward_ms": forward_ms, "both_ms": both_ms, "passes": round(passes, 1)}
