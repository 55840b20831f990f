"""What is added up of the outputs of several networks on several mirrored copies: logits, or what they are made of.

A U-Net's last layer is linear, and so are the mean over copies, the blending of tiles and the interpolation that
follows. Where its F features are fewer than the K classes they are accumulated in place of the logits, and the last
layer comes at the end, in float32 and some slices at a time: memory does not grow with the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segfw.grid.slabs import Heads
from segfw.inference.tiles import NO_ORDERS, Orders, exchanged, mirror_combinations
from segfw.networks.unet import UNet

Run = Callable[[Tensor], Tensor]  # (B, C, *patch_size) -> (B, A, *patch_size)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The output of one network on one mirrored copy of a tile, and the group of channels that it is added to."""

    network: int
    axes: tuple[int, ...]
    group: int


@dataclass(frozen=True, kw_only=True)
class Members:
    """Networks and mirrored copies, and what becomes of their outputs.

    ``parts`` are in the order in which they run. Outputs of one group are averaged. ``member_count`` folds are told
    apart; with ``heads`` groups hold features, without them the logits of a member each.
    """

    runs: tuple[Run, ...]
    parts: tuple[Part, ...]
    input_orders: Orders
    output_orders: Orders  # of logits; features have no order that could change
    group_count: int
    member_count: int
    heads: Heads | None = None

    def order_of(self, axes: tuple[int, ...], channels: int) -> tuple[int, ...] | None:
        """The output channel of a copy mirrored along ``axes`` that belongs in each place; None if they stay."""
        order = exchanged(axes, self.output_orders, channels)
        return None if order == tuple(range(channels)) else order

    def share(self, group: int) -> float:
        """What one part counts in the mean of its group."""
        return 1 / sum(part.group == group for part in self.parts)


def members_of(
    networks: Sequence[Callable[[Tensor], Tensor]],
    mirror_axes: Sequence[int] = (),
    *,
    output_orders: Orders = NO_ORDERS,
    input_orders: Orders = NO_ORDERS,
    by_member: bool = False,
) -> Members:
    """Decides whether features or logits are added up, whichever has fewer channels.

    The mean of all networks is one member; ``by_member`` keeps them apart. Networks whose class is not one of
    ``networks.unet`` or that compute their logits in their own way give logits.
    """
    mirrors = mirror_combinations(mirror_axes)
    if not all(gives_features(network) for network in networks):
        return _of_logits(networks, mirrors, output_orders, input_orders, by_member)
    classes, features = networks[0].head()[0].shape
    # Where a mirror image exchanges left and right, its features go with a last layer whose rows are exchanged.
    orders = list(dict.fromkeys(exchanged(axes, output_orders, classes) for axes in mirrors))
    if features * len(networks) * len(orders) >= classes * (len(networks) if by_member else 1):
        return _of_logits(networks, mirrors, output_orders, input_orders, by_member)
    parts = [
        Part(
            network=number,
            axes=axes,
            group=number * len(orders) + orders.index(exchanged(axes, output_orders, classes)),
        )
        for number in range(len(networks))
        for axes in mirrors
    ]
    shares = [
        sum(exchanged(axes, output_orders, classes) == order for axes in mirrors) / len(mirrors) for order in orders
    ]
    return Members(
        runs=tuple(network.features for network in networks),
        parts=tuple(parts),
        input_orders=input_orders,
        output_orders=NO_ORDERS,
        group_count=len(networks) * len(orders),
        member_count=len(networks),
        heads=_heads(networks, orders, shares),
    )


def gives_features(network: Callable[[Tensor], Tensor]) -> bool:
    """Whether a network is ``head`` of ``features``: a U-Net whose way to its logits nobody changed."""
    return isinstance(network, UNet) and type(network).forward is UNet.forward


def _of_logits(
    networks: Sequence[Run],
    mirrors: Sequence[tuple[int, ...]],
    output_orders: Orders,
    input_orders: Orders,
    by_member: bool,
) -> Members:
    parts = [
        Part(network=number, axes=axes, group=number if by_member else 0)
        for number in range(len(networks))
        for axes in mirrors
    ]
    members = len(networks) if by_member else 1
    return Members(
        runs=tuple(networks),
        parts=tuple(parts),
        input_orders=input_orders,
        output_orders=output_orders,
        group_count=members,
        member_count=members,
    )


def _heads(networks: Sequence[UNet], orders: Sequence[tuple[int, ...]], shares: Sequence[float]) -> Heads:
    weights, biases = [], []
    for number, network in enumerate(networks):
        weight_kf, bias_k = (tensor.float() for tensor in network.head())
        classes, features = weight_kf.shape
        by_channel = weight_kf.new_zeros(classes, len(networks) * len(orders), features)
        for place, (order, share) in enumerate(zip(orders, shares)):
            by_channel[:, number * len(orders) + place] = share * weight_kf[list(order)]
        weights.append(by_channel.flatten(1))
        biases.append(sum(share * bias_k[list(order)] for order, share in zip(orders, shares)))
    return Heads(weights_ka=tuple(weights), biases_k=tuple(biases))


def heads_on(heads: Heads | None, device: torch.device) -> Heads | None:
    """The same on the device on which the channels lie."""
    if heads is None:
        return None
    weights, biases = ([tensor.to(device) for tensor in side] for side in (heads.weights_ka, heads.biases_k))
    return Heads(weights_ka=tuple(weights), biases_k=tuple(biases))
