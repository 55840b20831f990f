"""Networks for tiles, and the whole computation done slowly."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

from builders.networks import spec
from segfw.inference.tiles import mirror_combinations, mirrored, tile_starts
from segfw.networks import build_network


def blurred(tiles: torch.Tensor) -> torch.Tensor:
    """A network that knows where in its tile a voxel lies, so that tiles disagree: three classes of two channels."""
    ramp = torch.linspace(0.5, 2, tiles[0, 0].numel()).reshape(tiles.shape[2:])
    return torch.cat((tiles * ramp, tiles.roll(1, -1).sum(1, keepdim=True)), 1)


def slow_oracle(image, networks, patch, *, step=0.5, axes=(), outputs=None, inputs=None):
    """The whole computation as published: float64 sums of weighted logits over the whole volume, divided at the end."""
    shape = image.shape[1:]
    missing = [max(0, size - own) for own, size in zip(shape, patch)]
    sides = [(count // 2, count - count // 2) for count in missing]
    padded = torch.from_numpy(np.pad(image.numpy(), [(0, 0), *sides]))
    gaussian = np.ones(())
    for size in patch:
        offsets = np.arange(size) - size // 2
        gaussian = gaussian[..., None] * np.exp(-0.5 * (offsets / (size / 8)) ** 2)
    total = 0
    weight = np.zeros(padded.shape[1:])
    starts = [tile_starts(size, tile, step) for size, tile in zip(padded.shape[1:], patch)]
    for start in product(*starts):
        place = tuple(slice(s, s + size) for s, size in zip(start, patch))
        tile = padded[(slice(None), *place)][None]
        logits = [
            mirrored(network(mirrored(tile, flipped, inputs or {})), flipped, outputs or {})
            for network in networks
            for flipped in mirror_combinations(axes)
        ]
        mean = torch.stack(logits).double().mean(0)[0].detach().numpy()
        if weight.sum() == 0:
            total = np.zeros((len(mean), *padded.shape[1:]))
        total[(slice(None), *place)] += mean * gaussian
        weight[place] += gaussian
    cut = tuple(slice(first, first + size) for (first, _), size in zip(sides, shape))
    return torch.from_numpy((total / weight)[(slice(None), *cut)]).float()


def unet(seed: int = 0, **changes) -> torch.nn.Module:
    torch.manual_seed(seed)
    network = build_network(spec(**changes)).eval()
    for module in network.modules():  # biases and norms of a network that has learned something
        if getattr(module, "bias", None) is not None:
            torch.nn.init.normal_(module.bias, std=0.5)
    return network
