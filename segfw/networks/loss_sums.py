"""The sums over voxels that losses are made of, with gradients written by hand.

Autograd would keep four to six float32 copies of the logits until the backward pass, which decides whether a hundred
classes fit; these keep the probabilities and make the gradient.

Where a case is annotated in part, what its mask calls background may be any of the structures that nobody drew there.
Such a voxel's truth has the probability q0 of all of these together with the background (the marginal loss of Shi et
al., Medical Image Analysis 70, 2021), and the structures that were not drawn have no Dice there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from segfw.base.sending import sent

# B batch, K class or region (output of the network), Z Y X space
SMALLEST = torch.finfo(torch.float32).tiny  # a divisor where a probability has become 0


class Target(NamedTuple):
    """What the network's outputs mean: classes from 0 on (softmax), or regions, unions of classes (sigmoid).

    Voxels of the class ``ignore`` count nowhere.
    """

    regions: tuple[tuple[int, ...], ...] = ()
    ignore: int | None = None

    def structures(self, outputs: int) -> Sequence[tuple[int, ...]]:
        """The classes that each output is the union of; for softmax each class but the background, output 0."""
        return self.regions or [(index,) for index in range(1, outputs)]


# (logits (B, K, Z, Y, X), classes (B, Z, Y, X), target, share of the hardest voxels, bool mask (B, K) on the CPU of the
# outputs that are annotated in each sample or None where all are) -> what SoftmaxSums gives
SumsOfOutputs = Callable[[Tensor, Tensor, Target, float, Tensor | None], tuple[Tensor, ...]]


class Hardest(NamedTuple):
    """The hardest voxels of each patch: those whose truth is less likely than ``limit``, and a share of those at it.

    Both (B, 1, 1, 1). The share makes the weights sum to the number wanted, whatever voxels are alike.
    """

    limit: Tensor
    share: Tensor

    def weights(self, at_truth_BZYX: Tensor) -> Tensor:
        """Weight of each voxel in the entropy; the probabilities must be the very same numbers in backward."""
        return torch.where(at_truth_BZYX == self.limit, self.share, (at_truth_BZYX < self.limit).float())


class Partial(NamedTuple):
    """Which outputs are annotated in each sample of a batch: (B, K) on the logits' device, and the others as numbers.

    Of the classes of a softmax the background, output 0, always is.
    """

    annotated_BK: Tensor
    unannotated: list[list[int]]  # outputs, by sample

    @staticmethod
    def of(annotated_BK: Tensor | None, device: torch.device) -> Partial | None:
        """From a bool mask (B, K) on the CPU, so that nothing waits for a GPU; None if there is none."""
        if annotated_BK is None:
            return None
        unannotated = [[index for index, known in enumerate(row) if not known] for row in annotated_BK.tolist()]
        return Partial(sent(annotated_BK, device), unannotated)

    def log_of_background(self, log_probs: Tensor) -> Tensor:
        """Logarithm of q0 (B, Z, Y, X), the probability of background or of anything that is not annotated."""
        log_q0 = log_probs[:, 0].clone()
        for sample, outputs in enumerate(self.unannotated):
            for output in outputs:
                torch.logaddexp(log_q0[sample], log_probs[sample, output], out=log_q0[sample])
        return log_q0

    def of_background(self, probs: Tensor) -> Tensor:
        """q0 (B, Z, Y, X) from probabilities: the very same numbers in the forward and the backward pass."""
        q0 = probs[:, 0].clone()
        for sample, outputs in enumerate(self.unannotated):
            for output in outputs:
                q0[sample] += probs[sample, output]
        return q0

    def share_background(self, grad: Tensor, probs: Tensor, q0: Tensor, by_background: Tensor) -> None:
        """Moves what entropy asked of the background (B, Z, Y, X) to all that q0 is the sum of, by their shares."""
        divisor = q0.clamp_min(SMALLEST)
        for sample, outputs in enumerate(self.unannotated):
            for output in outputs:
                moved = by_background[sample] * (probs[sample, output] / divisor[sample])
                grad[sample, output] -= moved
                grad[sample, 0] += moved

    def unknown(self, classes_BZYX: Tensor, regions: Sequence[tuple[int, ...]], region: int) -> Tensor | None:
        """Where nobody knows whether a voxel lies in a region, (B, Z, Y, X); None if that is known everywhere.

        A region that is not annotated holds all that an annotated part of it holds, and nothing of an annotated region
        that it has no class in common with. Of all other voxels nothing is known.
        """
        if all(region not in outputs for outputs in self.unannotated):
            return None
        unknown = torch.zeros_like(classes_BZYX, dtype=torch.bool)
        for sample, outputs in enumerate(self.unannotated):
            if region in outputs:
                unknown[sample] = True
                for index in told_of(regions, region, outputs):
                    unknown[sample] &= classes_BZYX[sample] != index
        return unknown


def told_of(regions: Sequence[tuple[int, ...]], region: int, unannotated: Sequence[int]) -> list[int]:
    """Classes of which annotated regions say whether they lie in one that is not annotated."""
    own = set(regions[region])
    told: set[int] = set()
    for index, members in enumerate(regions):
        is_part = own.issuperset(members)
        if index not in unannotated and (is_part or own.isdisjoint(members)):
            told.update(members)
    return sorted(told)


class _SoftmaxContext(FunctionCtx):
    """What the forward pass keeps for the backward pass."""

    saved_tensors: tuple[Tensor, Tensor]  # probabilities (B, K, Z, Y, X), classes (B, Z, Y, X)
    target: Target
    dtype: torch.dtype  # of the logits
    choice: Hardest | None  # None where all voxels count
    partial: Partial | None  # None where all structures are annotated in every sample


class _SigmoidContext(FunctionCtx):
    """As ``_SoftmaxContext``, with a choice of voxels for each region."""

    saved_tensors: tuple[Tensor, Tensor]
    target: Target
    dtype: torch.dtype
    choices: list[Hardest | None]
    partial: Partial | None


class SoftmaxSums(torch.autograd.Function):
    """Sum of the cross entropy and number of its voxels; for each class but 0 the sums that Dice is made of.

    These are (B, K): probability where the class is, probability in all, and its voxels. ``annotated_BK`` is a bool
    mask on the CPU of the classes that are annotated in each sample; None where all are.
    """

    @staticmethod
    def forward(
        ctx: _SoftmaxContext,
        logits_BKZYX: Tensor,
        classes_BZYX: Tensor,
        target: Target,
        hardest: float,
        annotated_BK: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        partial = Partial.of(annotated_BK, logits_BKZYX.device)
        log_probs = logits_BKZYX.float().log_softmax(1)
        index, left_out = _index(classes_BZYX, target.ignore)
        entropy = -log_probs.gather(1, index)
        if partial is not None:
            log_q0 = partial.log_of_background(log_probs)
            entropy = torch.where(classes_BZYX[:, None] == 0, -log_q0[:, None], entropy)
        probs = log_probs.exp_()
        if left_out is not None:
            entropy.masked_fill_(left_out, 0)
            probs.masked_fill_(left_out, 0)
        at_truth = probs.gather(1, index)[:, 0]
        if partial is not None:
            at_truth = torch.where(classes_BZYX == 0, partial.of_background(probs), at_truth)
        choice, counted = hardest_of(at_truth, left_out, hardest)
        if choice is not None:
            entropy *= choice.weights(at_truth)[:, None]
        overlap = []
        truth = []
        for inside in masks(classes_BZYX, target.structures(probs.shape[1])):
            overlap.append(_sum(torch.where(inside, at_truth, 0)))
            truth.append(_sum(inside))
        overlap_BK = torch.stack(overlap, 1)
        volume_BK = _sum(probs)[:, 1:]
        truth_BK = torch.stack(truth, 1)
        if partial is not None:
            overlap_BK = overlap_BK * partial.annotated_BK[:, 1:]
            volume_BK = volume_BK * partial.annotated_BK[:, 1:]
            truth_BK = truth_BK * partial.annotated_BK[:, 1:]
        ctx.save_for_backward(probs, classes_BZYX)
        ctx.target = target
        ctx.dtype = logits_BKZYX.dtype
        ctx.choice = choice
        ctx.partial = partial
        ctx.mark_non_differentiable(truth_BK, counted)
        return entropy.sum(), counted, overlap_BK, volume_BK, truth_BK

    @staticmethod
    def backward(
        ctx: _SoftmaxContext, by_entropy: Tensor, _: None, by_overlap_BK: Tensor, by_volume_BK: Tensor, __: None
    ) -> tuple[Tensor | None, ...]:
        probs, classes = ctx.saved_tensors
        index, left_out = _index(classes, ctx.target.ignore)
        by_overlap = F.pad(by_overlap_BK, (1, 0))  # the background has no Dice
        by_volume = F.pad(by_volume_BK, (1, 0))
        partial = ctx.partial
        if partial is not None:
            by_overlap = by_overlap * partial.annotated_BK
            by_volume = by_volume * partial.annotated_BK
        # With g = d loss / d probability, softmax gives p * (g - sum over classes of p * g); g is by_volume everywhere
        # and by_overlap more at the true class. The entropy adds p, and -1 at the true class.
        grad = probs * by_volume[:, :, None, None, None]
        at_truth = probs.gather(1, index)
        q0 = None if partial is None else partial.of_background(probs)
        if q0 is not None:
            at_truth = torch.where(classes[:, None] == 0, q0[:, None], at_truth)
        if ctx.choice is not None:
            by_entropy = by_entropy * ctx.choice.weights(at_truth[:, 0])[:, None]
        at_truth *= by_overlap.gather(1, index.flatten(1)).view_as(at_truth)
        grad.addcmul_(probs, by_entropy - grad.sum(1, keepdim=True) - at_truth)
        at_truth -= by_entropy
        grad.scatter_add_(1, index, at_truth if left_out is None else at_truth.masked_fill_(left_out, 0))
        if partial is not None and q0 is not None:
            by_background = (by_entropy * (classes[:, None] == 0))[:, 0]
            partial.share_background(grad, probs, q0, by_background)
        return grad.to(ctx.dtype), None, None, None, None


class SigmoidSums(torch.autograd.Function):
    """The same as ``SoftmaxSums`` for regions: the entropy is binary, and counts a voxel once for each region.

    In a region that is not annotated in a sample those voxels count of which other regions tell (``Partial.unknown``).
    """

    @staticmethod
    def forward(
        ctx: _SigmoidContext,
        logits_BKZYX: Tensor,
        classes_BZYX: Tensor,
        target: Target,
        hardest: float,
        annotated_BK: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        partial = Partial.of(annotated_BK, logits_BKZYX.device)
        probs = logits_BKZYX.to(torch.float32, copy=True).sigmoid_()
        ignored = _index(classes_BZYX, target.ignore)[1]
        if ignored is not None:
            probs.masked_fill_(ignored, 0)
        entropy = probs.new_zeros(())
        counted = probs.new_zeros(())
        overlap = []
        truth = []
        choices = []
        for region, inside in enumerate(masks(classes_BZYX, target.regions)):
            left_out = ignored
            unknown = None if partial is None else partial.unknown(classes_BZYX, target.regions, region)
            if unknown is not None:
                probs[:, region].masked_fill_(unknown, 0)
                inside &= ~unknown
                left_out = unknown[:, None] if ignored is None else ignored | unknown[:, None]
            logits = logits_BKZYX[:, region].float()
            surprise = F.softplus(torch.where(inside, -logits, logits))  # never a difference of large numbers
            if left_out is not None:
                surprise.masked_fill_(left_out[:, 0], 0)
            at_truth = _of_truth(probs[:, region], inside)
            choice, chosen = hardest_of(at_truth, left_out, hardest)
            if choice is not None:
                surprise *= choice.weights(at_truth)
            choices.append(choice)
            entropy = entropy + surprise.sum()
            counted = counted + chosen
            overlap.append(_sum(torch.where(inside, probs[:, region], 0)))
            truth.append(_sum(inside))
        overlap_BK = torch.stack(overlap, 1)
        volume_BK = _sum(probs)
        truth_BK = torch.stack(truth, 1)
        if partial is not None:
            overlap_BK = overlap_BK * partial.annotated_BK
            volume_BK = volume_BK * partial.annotated_BK
            truth_BK = truth_BK * partial.annotated_BK
        ctx.save_for_backward(probs, classes_BZYX)
        ctx.target = target
        ctx.dtype = logits_BKZYX.dtype
        ctx.choices = choices
        ctx.partial = partial
        ctx.mark_non_differentiable(truth_BK, counted)
        return entropy, counted, overlap_BK, volume_BK, truth_BK

    @staticmethod
    def backward(
        ctx: _SigmoidContext, by_entropy: Tensor, _: None, by_overlap_BK: Tensor, by_volume_BK: Tensor, __: None
    ) -> tuple[Tensor | None, ...]:
        probs, classes = ctx.saved_tensors
        grad = torch.empty_like(probs)
        partial = ctx.partial
        if partial is not None:
            by_overlap_BK = by_overlap_BK * partial.annotated_BK
            by_volume_BK = by_volume_BK * partial.annotated_BK
        for region, inside in enumerate(masks(classes, ctx.target.regions)):
            unknown = None if partial is None else partial.unknown(classes, ctx.target.regions, region)
            if unknown is not None:
                inside &= ~unknown
            p = probs[:, region]
            by_overlap = by_overlap_BK[:, region, None, None, None]
            by_volume = by_volume_BK[:, region, None, None, None]
            slope = by_volume + by_overlap * inside
            choice = ctx.choices[region]
            entropy = by_entropy if choice is None else by_entropy * choice.weights(_of_truth(p, inside))
            # Voxels left out or unknown have p = 0 and lie inside of no region: both terms vanish.
            grad[:, region] = p * (1 - p) * slope + entropy * (p - inside.float())
        return grad.to(ctx.dtype), None, None, None, None


def hardest_of(at_truth_BZYX: Tensor, left_out: Tensor | None, hardest: float) -> tuple[Hardest | None, Tensor]:
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
