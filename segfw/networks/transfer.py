"""A network begins with the weights of another one, as far as they fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.networks.spec import NetworkSpec

NAMES_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Which weights were taken over, by name; ``channels`` are how many images the other network and this one see."""

    matched: tuple[str, ...]
    adapted: tuple[str, ...]  # see the image: shared channels were taken, further ones begin at zero
    left_fresh: tuple[str, ...]  # as they were initialised: the other has no such weight, or one of another shape
    unused: tuple[str, ...]  # of the other network, which this one does not have
    channels: tuple[int, int]

    def sentence(self) -> str:
        """One line: how much was taken over, and what begins anew."""
        taken = len(self.matched) + len(self.adapted)
        anew = f"{_listed(self.left_fresh)} begin anew" if self.left_fresh else "nothing begins anew"
        return f"{taken} of {taken + len(self.left_fresh)} weights taken over, {anew}"

    def details(self) -> str:
        """What became of the channels, and of weights that have no place here; '' where there is nothing to say."""
        lines = []
        if self.adapted:
            there, here = self.channels
            rest = "further ones begin at zero" if here > there else "the rest is dropped"
            shared = f"the first {count(min(there, here), 'channel')} taken for the same, {rest}"
            lines.append(f"  {count(there, 'channel')} there and {here} here, {shared}: {_listed(self.adapted)}")
        if self.unused:
            lines.append(f"  {len(self.unused)} have no place here: {_listed(self.unused)}")
        return "\n".join(lines)


def head_names(spec: NetworkSpec, build: Callable[[NetworkSpec], nn.Module]) -> frozenset[str]:
    """The weights of the layers that make outputs: those whose shape depends on the number of classes."""
    with torch.device("meta"):
        network = build(spec).state_dict()
        wider = build(spec.model_copy(update={"classes": spec.classes + 1})).state_dict()
    return frozenset(name for name, tensor in network.items() if tensor.shape != wider[name].shape)


@torch.no_grad()
def transfer(network: nn.Module, weights: Mapping[str, Tensor], leave: Collection[str] = ()) -> Transfer:
    """Copies into ``network`` every weight of the same name and shape, in place, and says which.

    Weights that see the image, and differ in its number of channels only, keep those that both have by position;
    further channels begin at zero, so that at first the network does what the other one did. Heads for another number
    of labels are left as they are; for as many labels they are taken, whatever the labels are called. Weights that
    ``leave`` names begin anew in any case. Raises UserError if no kernel fits: offsets alone, such as those of heads
    for as many labels, know nothing.
    """
    weights = {name: tensor for name, tensor in weights.items() if name not in leave}
    fresh = network.state_dict()
    channels = _image_channels(fresh, weights)
    matched: list[str] = []
    adapted: list[str] = []
    left_fresh: list[str] = []
    for name, tensor in fresh.items():
        other = weights.get(name)
        if other is not None and other.shape == tensor.shape:
            tensor.copy_(other)
            matched.append(name)
        elif other is not None and _differs_in_channels_only(tensor, other, channels):
            shared = min(channels)
            tensor[:, :shared] = other[:, :shared].to(tensor)
            tensor[:, shared:] = 0
            adapted.append(name)
        else:
            left_fresh.append(name)
    if not any(fresh[name].ndim > 1 for name in (*matched, *adapted)):
        raise UserError(_why_nothing_fits(fresh, weights))
    return Transfer(
        matched=tuple(matched),
        adapted=tuple(adapted),
        left_fresh=tuple(left_fresh),
        unused=tuple(name for name in weights if name not in fresh),
        channels=channels,
    )


def _why_nothing_fits(fresh: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    nothing = f"--init-from: none of its {len(weights)} weights fits this network"
    alike = next((name for name, tensor in fresh.items() if tensor.ndim > 1 and name in weights), None)
    if alike is None:
        there = ", ".join(sorted(weights)[:2])
        here = ", ".join(sorted(fresh)[:2])
        return f"{nothing} (there {there}, ..., here {here}, ...); take a model of the same --preset"
    sizes = [" x ".join(map(str, tensors[alike].shape)) for tensors in (weights, fresh)]
    return (
        f"{nothing} ({alike} is {sizes[0]} there and {sizes[1]} here); take a model of the same --preset and as wide: "
        "what is planned with a short --time-budget is narrower"
    )


def _image_channels(fresh: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Channels of the image in the other network and in this one: what their first convolution takes."""
    for name, tensor in fresh.items():
        if tensor.ndim >= 4 and name in weights and weights[name].ndim == tensor.ndim:
            return weights[name].shape[1], tensor.shape[1]
    return 0, 0


def _differs_in_channels_only(tensor: Tensor, other: Tensor, channels: tuple[int, int]) -> bool:
    if tensor.ndim < 4 or other.ndim != tensor.ndim or (other.shape[1], tensor.shape[1]) != channels:
        return False
    return tensor.shape[0] == other.shape[0] and tensor.shape[2:] == other.shape[2:]


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
