"""What is added up of the outputs of several networks on several mirrored copies: logits, or what they are made of.

A U-Net's last layer is linear, and so are the mean over copies, the blending of tiles and the interpolation that
follows. Where its F features are fewer than the K classes they are accumulated in place of the logits, and the last
layer comes at the end, in float32 and some slices at a time: memory does not grow with the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from segfw.grid.slabs import Heads
from segfw.inference.tiles import NO_ORDERS, ChannelOrders, exchanged, mirror_combinations
from segfw.networks.unet import UNet

RunNetwork = Callable[[Tensor], Tensor]  # (B, C, *patch_size) -> (B, A, *patch_size)


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """One network on one mirrored copy of a tile, and the group of channels that its output is added to."""

    network: int
    axes: tuple[int, ...]
    group: int


@dataclass(frozen=True, kw_only=True)
class Summands:
    """Networks and mirrored copies, and what becomes of their outputs.

    ``passes`` are in the order in which they run. Outputs of one group are averaged. ``member_count`` folds are told
    apart; with ``heads`` groups hold features, without them the logits of a member each.
    """

    runs: tuple[RunNetwork, ...]
    passes: tuple[ForwardPass, ...]
    input_orders: ChannelOrders
    output_orders: ChannelOrders  # of logits; features have no order that could change
    group_count: int
    member_count: int
    heads: Heads | None = None

    @property
    def mirrored_copies(self) -> int:
        """Copies of a tile that each network is given, the tile as it is among them."""
        return len({each.axes for each in self.passes})

    def order_of(self, axes: tuple[int, ...], channels: int) -> tuple[int, ...] | None:
        """The output channel of a copy mirrored along ``axes`` that belongs in each place; None if they stay."""
        order = exchanged(axes, self.output_orders, channels)
        return None if order == tuple(range(channels)) else order

    def share(self, group: int) -> float:
        """What one pass counts in the mean of its group."""
        return 1 / sum(each.group == group for each in self.passes)


def summands_of(
    networks: Sequence[RunNetwork],
    mirror_axes: Sequence[int] = (),
    *,
    output_orders: ChannelOrders = NO_ORDERS,
    input_orders: ChannelOrders = NO_ORDERS,
    by_member: bool = False,
) -> Summands:
    """Decides whether features or logits are added up, whichever has fewer channels.

    The mean of all networks is one member; ``by_member`` keeps them apart. Networks whose class is not one of
    ``networks.unet`` or that compute their logits in their own way give logits.
    """
    mirrors = mirror_combinations(mirror_axes)
    logits = _sums_of_logits(networks, mirrors, output_orders, input_orders, by_member=by_member)
    unets = [network for network in networks if gives_features(network)]
    if len(unets) < len(networks):
        return logits
    classes, features = unets[0].head()[0].shape
    # Where a mirror image exchanges left and right, its features go with a last layer whose rows are exchanged.
    order_of_mirror = {axes: exchanged(axes, output_orders, classes) for axes in mirrors}
    orders = list(dict.fromkeys(order_of_mirror.values()))
    if features * len(unets) * len(orders) >= classes * logits.member_count:
        return logits
    passes = []
    for number in range(len(unets)):
        for axes in mirrors:
            group = number * len(orders) + orders.index(order_of_mirror[axes])
            passes.append(ForwardPass(network=number, axes=axes, group=group))
    shares = [list(order_of_mirror.values()).count(order) / len(mirrors) for order in orders]
    return Summands(
        runs=tuple(network.features for network in unets),
        passes=tuple(passes),
        input_orders=input_orders,
        output_orders=NO_ORDERS,
        group_count=len(unets) * len(orders),
        member_count=len(unets),
        heads=_heads(unets, orders, shares),
    )


def gives_features(network: Callable[[Tensor], Tensor]) -> TypeGuard[UNet]:
    """Whether a network is ``head`` of ``features``: a U-Net whose way to its logits nobody changed."""
    return isinstance(network, UNet) and type(network).forward is UNet.forward


def _sums_of_logits(
    networks: Sequence[RunNetwork],
    mirrors: Sequence[tuple[int, ...]],
    output_orders: ChannelOrders,
    input_orders: ChannelOrders,
    *,
    by_member: bool,
) -> Summands:
    """One group of channels for each member: all networks together, or each on its own."""
    members = len(networks) if by_member else 1
    passes = []
    for number in range(len(networks)):
        group = number if by_member else 0
        passes += [ForwardPass(network=number, axes=axes, group=group) for axes in mirrors]
    return Summands(
        runs=tuple(networks),
        passes=tuple(passes),
        input_orders=input_orders,
        output_orders=output_orders,
        group_count=members,
        member_count=members,
    )


def _heads(networks: Sequence[UNet], orders: Sequence[tuple[int, ...]], shares: Sequence[float]) -> Heads:
    """How the features of all groups become logits, a linear map per network."""
    weights_ka = []
    biases_k = []
    for number, network in enumerate(networks):
        weight_kf, bias_k = network.head()
        weight_kf = weight_kf.float()
        bias_k = bias_k.float()
        classes, features = weight_kf.shape
        by_group_kgf = weight_kf.new_zeros(classes, len(networks) * len(orders), features)
        mean_bias_k = torch.zeros_like(bias_k)
        for place, (order, share) in enumerate(zip(orders, shares)):
            by_group_kgf[:, number * len(orders) + place] = share * weight_kf[list(order)]
            mean_bias_k = mean_bias_k + share * bias_k[list(order)]
        weights_ka.append(by_group_kgf.flatten(1))
        biases_k.append(mean_bias_k)
    return Heads(weights_ka=tuple(weights_ka), biases_k=tuple(biases_k))


def heads_on(heads: Heads | None, device: torch.device) -> Heads | None:
    """The same on the device on which the channels lie."""
    if heads is None:
        return None
    return Heads(
        weights_ka=tuple(weights.to(device) for weights in heads.weights_ka),
        biases_k=tuple(bias.to(device) for bias in heads.biases_k),
    )
