"""Networks with the kernels of ``kernels`` in place of plain operations, where these can be used."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segfw.kernels.trial import agrees
from segfw.networks.blocks import ResidualBlock
from segfw.networks.norm import KeepsLayout

TOLERANCE = 1e-4  # in float32, where sums are added in another order


def with_fused_norms(network: nn.Module, device: torch.device) -> nn.Module:
    """The network, whose instance norms do the work of the activations behind them in one kernel.

    Names and weights stay as they are. Where the kernel does not work on ``device``, nothing changes; Triton must be
    there.
    """
    from segfw.kernels.norm_activation import can_take, norm_activation

    if not _norm_agrees(device):
        return network
    for module in network.modules():
        if isinstance(module, KeepsLayout):
            # On the instance, or a function would become a method that is given the layer.
            module.fused = norm_activation
            module.can_fuse = can_take
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            _join_neighbours(module)
        if isinstance(module, ResidualBlock):
            norm = module.second[1]
            if _can_join(norm, module.act):
                norm.slope = module.act.negative_slope
                module.act = nn.Identity()
    return network


def _join_neighbours(layers: nn.Sequential) -> None:
    for index in range(len(layers) - 1):
        norm = layers[index]
        activation = layers[index + 1]
        if _can_join(norm, activation):
            norm.slope = activation.negative_slope
            layers[index + 1] = nn.Identity()


def _can_join(norm: nn.Module, activation: nn.Module) -> bool:
    """Below a slope of 0 the sign of the result would not be that of what was activated."""
    return isinstance(norm, KeepsLayout) and isinstance(activation, nn.LeakyReLU) and activation.negative_slope > 0


@lru_cache
def _norm_agrees(device: torch.device) -> bool:
    """One small image, forward and backward, with a shortcut and without, against PyTorch's operations."""
    from segfw.kernels.norm_activation import norm_activation

    generator = torch.Generator().manual_seed(0)
    x, shortcut, by_y = torch.randn(3, 2, 5, 4, 6, 7, generator=generator).to(device).unbind()
    weight, bias = torch.randn(2, 5, generator=generator).to(device).unbind()
    eps = 1e-5
    slope = 0.01

    def kernel(image: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None) -> Tensor:
        return norm_activation(image, weight, bias, eps, slope, added)

    def plain(image: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None) -> Tensor:
        normed = F.instance_norm(image, weight=weight, bias=bias, eps=eps)
        return F.leaky_relu(normed if added is None else normed + added, slope)

    def results(function: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]) -> list[Tensor]:
        found = []
        for added in (None, shortcut):
            leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
            beside = None if added is None else added.clone().requires_grad_()
            y = function(leaves[0], leaves[1], leaves[2], beside)
            wanted = leaves if beside is None else [*leaves, beside]
            found += [y, *torch.autograd.grad(y, wanted, by_y)]
        return found

    return agrees("norm and activation", lambda: results(kernel), lambda: results(plain), tolerance=TOLERANCE)
