"""The sums over voxels that losses are made of, with gradients written by hand.

Autograd would keep four to six float32 copies of the logits until the backward pass, which decides whether a hundred
classes fit; these keep the probabilities and make the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

# B batch, K class or region (output of the network), Z Y X space


class Target(NamedTuple):
    """What the network's outputs mean: classes from 0 on (softmax), or regions, unions of classes (sigmoid).

    Voxels of the class ``ignore`` count nowhere.
    """

    regions: tuple[tuple[int, ...], ...] = ()
    ignore: int | None = None

    def structures(self, outputs: int) -> Sequence[tuple[int, ...]]:
        """The classes that each output is the union of; for softmax each class but the background, output 0."""
        return self.regions or [(index,) for index in range(1, outputs)]


# (logits (B, K, Z, Y, X), classes (B, Z, Y, X), target, share of the hardest voxels) -> what SoftmaxSums gives
SumsOfOutputs = Callable[[Tensor, Tensor, Target, float], tuple[Tensor, ...]]


class Hardest(NamedTuple):
    """The hardest voxels of each patch: those whose truth is less likely than ``limit``, and a share of those at it.

    Both (B, 1, 1, 1). The share makes the weights sum to the number wanted, whatever voxels are alike.
    """

    limit: Tensor
    share: Tensor

    def weights(self, at_truth_BZYX: Tensor) -> Tensor:
        """Weight of each voxel in the entropy; the probabilities must be the very same numbers in backward."""
        return torch.where(at_truth_BZYX == self.limit, self.share, (at_truth_BZYX < self.limit).float())


class _SoftmaxContext(FunctionCtx):
    """What the forward pass keeps for the backward pass."""

    saved_tensors: tuple[Tensor, Tensor]  # probabilities (B, K, Z, Y, X), classes (B, Z, Y, X)
    target: Target
    dtype: torch.dtype  # of the logits
    choice: Hardest | None  # None where all voxels count


class _SigmoidContext(FunctionCtx):
    """As ``_SoftmaxContext``, with a choice of voxels for each region."""

    saved_tensors: tuple[Tensor, Tensor]
    target: Target
    dtype: torch.dtype
    choices: list[Hardest | None]


class SoftmaxSums(torch.autograd.Function):
    """Sum of the cross entropy and number of its voxels; for each class but 0 the sums that Dice is made of.

    These are (B, K): probability where the class is, probability in all, and its voxels.
    """

    @staticmethod
    def forward(
        ctx: _SoftmaxContext, logits_BKZYX: Tensor, classes_BZYX: Tensor, target: Target, hardest: float
    ) -> tuple[Tensor, ...]:
        log_probs = logits_BKZYX.float().log_softmax(1)
        index, left_out = _index(classes_BZYX, target.ignore)
        entropy = -log_probs.gather(1, index)
        probs = log_probs.exp_()
        if left_out is not None:
            entropy.masked_fill_(left_out, 0)
            probs.masked_fill_(left_out, 0)
        at_truth = probs.gather(1, index)[:, 0]
        choice, counted = _choose(at_truth, left_out, hardest)
        if choice is not None:
            entropy *= choice.weights(at_truth)[:, None]
        overlap = []
        truth = []
        for inside in masks(classes_BZYX, target.structures(probs.shape[1])):
            overlap.append(_sum(torch.where(inside, at_truth, 0)))
            truth.append(_sum(inside))
        truth_BK = torch.stack(truth, 1)
        ctx.save_for_backward(probs, classes_BZYX)
        ctx.target = target
        ctx.dtype = logits_BKZYX.dtype
        ctx.choice = choice
        ctx.mark_non_differentiable(truth_BK, counted)
        return entropy.sum(), counted, torch.stack(overlap, 1), _sum(probs)[:, 1:], truth_BK

    @staticmethod
    def backward(
        ctx: _SoftmaxContext, by_entropy: Tensor, _: None, by_overlap_BK: Tensor, by_volume_BK: Tensor, __: None
    ) -> tuple[Tensor | None, ...]:
        probs, classes = ctx.saved_tensors
        index, left_out = _index(classes, ctx.target.ignore)
        by_overlap = F.pad(by_overlap_BK, (1, 0))  # the background has no Dice
        by_volume = F.pad(by_volume_BK, (1, 0))
        # With g = d loss / d probability, softmax gives p * (g - sum over classes of p * g); g is by_volume everywhere
        # and by_overlap more at the true class. The entropy adds p, and -1 at the true class.
        grad = probs * by_volume[:, :, None, None, None]
        at_truth = probs.gather(1, index)
        if ctx.choice is not None:
            by_entropy = by_entropy * ctx.choice.weights(at_truth[:, 0])[:, None]
        at_truth *= by_overlap.gather(1, index.flatten(1)).view_as(at_truth)
        grad.addcmul_(probs, by_entropy - grad.sum(1, keepdim=True) - at_truth)
        at_truth -= by_entropy
        grad.scatter_add_(1, index, at_truth if left_out is None else at_truth.masked_fill_(left_out, 0))
        return grad.to(ctx.dtype), None, None, None


class SigmoidSums(torch.autograd.Function):
    """The same as ``SoftmaxSums`` for regions: the entropy is binary, and counts a voxel once for each region."""

    @staticmethod
    def forward(
        ctx: _SigmoidContext, logits_BKZYX: Tensor, classes_BZYX: Tensor, target: Target, hardest: float
    ) -> tuple[Tensor, ...]:
        probs = logits_BKZYX.to(torch.float32, copy=True).sigmoid_()
        left_out = _index(classes_BZYX, target.ignore)[1]
        if left_out is not None:
            probs.masked_fill_(left_out, 0)
        entropy = probs.new_zeros(())
        counted = probs.new_zeros(())
        overlap = []
        truth = []
        choices = []
        for region, inside in enumerate(masks(classes_BZYX, target.regions)):
            logits = logits_BKZYX[:, region].float()
            surprise = F.softplus(torch.where(inside, -logits, logits))  # never a difference of large numbers
            if left_out is not None:
                surprise.masked_fill_(left_out[:, 0], 0)
            at_truth = _of_truth(probs[:, region], inside)
            choice, chosen = _choose(at_truth, left_out, hardest)
            if choice is not None:
                surprise *= choice.weights(at_truth)
            choices.append(choice)
            entropy = entropy + surprise.sum()
            counted = counted + chosen
            overlap.append(_sum(torch.where(inside, probs[:, region], 0)))
            truth.append(_sum(inside))
        truth_BK = torch.stack(truth, 1)
        ctx.save_for_backward(probs, classes_BZYX)
        ctx.target = target
        ctx.dtype = logits_BKZYX.dtype
        ctx.choices = choices
        ctx.mark_non_differentiable(truth_BK, counted)
        return entropy, counted, torch.stack(overlap, 1), _sum(probs), truth_BK

    @staticmethod
    def backward(
        ctx: _SigmoidContext, by_entropy: Tensor, _: None, by_overlap_BK: Tensor, by_volume_BK: Tensor, __: None
    ) -> tuple[Tensor | None, ...]:
        probs, classes = ctx.saved_tensors
        grad = torch.empty_like(probs)
        for region, inside in enumerate(masks(classes, ctx.target.regions)):
            p = probs[:, region]
            by_overlap = by_overlap_BK[:, region, None, None, None]
            by_volume = by_volume_BK[:, region, None, None, None]
            slope = by_volume + by_overlap * inside
            choice = ctx.choices[region]
            entropy = by_entropy if choice is None else by_entropy * choice.weights(_of_truth(p, inside))
            # Voxels left out have p = 0 and lie inside of no region: both terms vanish.
            grad[:, region] = p * (1 - p) * slope + entropy * (p - inside.float())
        return grad.to(ctx.dtype), None, None, None


def _choose(at_truth_BZYX: Tensor, left_out: Tensor | None, hardest: float) -> tuple[Hardest | None, Tensor]:
    """The hardest voxels by the probability of their truth, None if that is all; and how many voxels those are."""
    voxels = at_truth_BZYX[0].numel()
    if hardest >= 1:
        left = at_truth_BZYX.numel() if left_out is None else (~left_out).sum()
        return None, at_truth_BZYX.new_zeros(()) + left
    probs = at_truth_BZYX.flatten(1)
    if left_out is None:
        wanted = torch.full_like(probs[:, :1], max(1, ceil(hardest * voxels)))
        limit = probs.kthvalue(max(1, ceil(hardest * voxels)), 1, keepdim=True).values
    else:  # sorted, because how many are wanted is known on the device only
        probs = probs.masked_fill(left_out.flatten(1), 2)  # behind all that count
        wanted = (hardest * (probs < 2).sum(1, keepdim=True)).ceil().to(probs.dtype)
        limit = probs.sort(1).values.gather(1, (wanted.long() - 1).clamp_min(0))
    harder = (probs < limit).sum(1, keepdim=True)
    alike = (probs == limit).sum(1, keepdim=True)
    share = (wanted - harder) / alike
    return Hardest(limit[:, :, None, None], share[:, :, None, None]), wanted.sum()


def _of_truth(probs: Tensor, inside: Tensor) -> Tensor:
    """Probability of what is true, from that of lying inside."""
    return torch.where(inside, probs, 1 - probs)


def _index(classes_BZYX: Tensor, ignore: int | None) -> tuple[Tensor, Tensor | None]:
    """Classes to gather by and where voxels are left out, both (B, 1, Z, Y, X)."""
    index = classes_BZYX[:, None]
    if ignore is None:
        return index, None
    left_out = index == ignore
    return index.masked_fill(left_out, 0), left_out


def masks(classes_BZYX: Tensor, structures: Sequence[tuple[int, ...]]) -> Iterator[Tensor]:
    """Mask (B, Z, Y, X) of each structure, one at a time."""
    for members in structures:
        inside = classes_BZYX == members[0]
        for index in members[1:]:
            inside |= classes_BZYX == index
        yield inside


def _sum(array: Tensor) -> Tensor:
    """Over space."""
    return array.sum((-3, -2, -1))
