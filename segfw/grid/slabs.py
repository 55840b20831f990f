"""Logits of a volume, some finished slices at a time, so that those of all classes and slices never exist together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from segfw.base.records import UserError
from segfw.grid.boxes import Block


class NoNumbers(UserError):
    """What networks give is NaN or infinite, so that nothing can be said of the voxels."""


@dataclass(frozen=True, kw_only=True)
class Heads:
    """How channels become logits, one linear map per member of an ensemble: (K, A) weights and (K,) biases each.

    The last layer of a U-Net is linear, and so are blending, averaging and interpolation: what comes before it can be
    accumulated in place of the logits, which costs memory by features and not by classes.
    """

    weights_ka: Sequence[Tensor]
    biases_k: Sequence[Tensor]

    def mean(self) -> tuple[Tensor, Tensor]:
        """Weights (K, A) and biases (K,) of the mean of all members."""
        number = len(self.weights_ka)
        weights = sum(self.weights_ka[1:], start=self.weights_ka[0])
        biases = sum(self.biases_k[1:], start=self.biases_k[0])
        return weights / number, biases / number

    def logits(self, channels_azyx: Tensor, member: int | None = None) -> Tensor:
        """(K, Z, Y, X) float32: of one member, or the mean of all."""
        if member is None:
            weights, bias = self.mean()
        else:
            weights = self.weights_ka[member]
            bias = self.biases_k[member]
        # Channels lie next to each other in memory, where nothing else costs a copy in another order.
        flat_na = channels_azyx.movedim(0, -1).flatten(0, 2).to(weights.dtype)
        return torch.addmm(bias[:, None], weights, flat_na.T).unflatten(1, channels_azyx.shape[1:])


@dataclass(frozen=True, kw_only=True)
class Slab:
    """Slices ``start`` to ``stop`` of the network's grid, which are finished, and those from ``first`` on before them.

    A stream of slabs covers the grid from slice 0 to its end without gaps, in order; ``first`` is ``start - 1``
    (0 in the first slab), because linear interpolation between two slabs needs the last slice of the one before.
    ``channels_azyx`` (A, stop - first, Y, X) are the logits of ``members`` one after the other, or with ``heads`` what
    logits are made of; they are valid only until the next slab is asked for.
    """

    first: int
    start: int
    stop: int
    channels_azyx: Tensor
    heads: Heads | None = None
    members: int = 1  # without heads

    def on_host(self) -> Slab:
        """The same in the host's memory."""
        heads = self.heads and Heads(
            weights_ka=[weights.cpu() for weights in self.heads.weights_ka],
            biases_k=[bias.cpu() for bias in self.heads.biases_k],
        )
        return replace(self, channels_azyx=self.channels_azyx.cpu(), heads=heads)

    def of_member(self, member: int) -> Slab:
        """The same of one member of the ensemble alone."""
        if self.heads is not None:
            heads = Heads(weights_ka=[self.heads.weights_ka[member]], biases_k=[self.heads.biases_k[member]])
            return replace(self, heads=heads)
        outputs = self.outputs
        channels = self.channels_azyx[member * outputs : (member + 1) * outputs]
        return replace(self, channels_azyx=channels, members=1)

    @property
    def member_count(self) -> int:
        """Members of the ensemble, with heads or without."""
        return self.members if self.heads is None else len(self.heads.weights_ka)

    @property
    def outputs(self) -> int:
        """K, the number of logits of a voxel."""
        return len(self.channels_azyx) // self.members if self.heads is None else len(self.heads.biases_k[0])

    def rows(self, block: Block) -> Tensor:
        """Channels (z, y, x, A) float32 of a block, of which the mean logits are a linear map: ``last_layer``."""
        z, y, x = block
        channels = self.channels_azyx[:, z.start - self.first : z.stop - self.first, y, x]
        if self.heads is None and self.members > 1:
            channels = channels.unflatten(0, (self.members, -1)).float().mean(0)
        return channels.movedim(0, -1).float().contiguous()

    def last_layer(self) -> tuple[Tensor, Tensor] | None:
        """Weights (K, A) and biases (K,) that make mean logits of ``rows``; None where rows are logits."""
        return None if self.heads is None else self.heads.mean()

    def logits(self, block: Block, member: int | None = None) -> Tensor:
        """Logits (K, z, y, x) float32 of a block: their mean, or those of one member of the ensemble.

        The block's z counts from the grid's slice 0.
        """
        z, y, x = block
        channels = self.channels_azyx[:, z.start - self.first : z.stop - self.first, y, x]
        if self.heads is not None:
            return self.heads.logits(channels, member)
        if self.members == 1:
            return channels.float()
        each = channels.unflatten(0, (self.members, -1))
        return each.float().mean(0) if member is None else each[member].float()

    def logits_at(self, places_n3: Tensor) -> Tensor:
        """Mean logits (K, N) float32 of single voxels; places (z, y, x) count from the grid's slice 0."""
        places = places_n3.to(self.channels_azyx.device)
        channels_an = self.channels_azyx[:, places[:, 0] - self.first, places[:, 1], places[:, 2]].float()
        if self.heads is not None:
            weights, bias = self.heads.mean()
            return torch.addmm(bias[:, None], weights, channels_an.to(weights.dtype))
        return channels_an if self.members == 1 else channels_an.unflatten(0, (self.members, -1)).mean(0)


def one_slab(logits_kzyx: Tensor) -> Slab:
    """All slices at once, of logits that exist as a whole."""
    return Slab(first=0, start=0, stop=logits_kzyx.shape[1], channels_azyx=logits_kzyx)


def dense(slabs: Iterable[Slab]) -> Tensor:
    """Logits (K, Z, Y, X) of a whole stream, for small volumes and tests."""
    parts = []
    for slab in slabs:
        everything = (slice(slab.start, slab.stop), slice(None), slice(None))
        parts.append(slab.logits(everything).clone())
    return torch.cat(parts, 1)
