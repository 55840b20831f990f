"""Dice plus cross entropy for labels, regions and an ignore label, with deep supervision (Isensee et al. 2021).

The sums over voxels have gradients written by hand. Autograd would keep four to six float32 copies of the logits until
the backward pass, which decides whether a hundred classes fit; these keep the probabilities and make the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# B batch, K class or region (output of the network), Z Y X space
SMOOTH = 1e-5


class Target(NamedTuple):
    """What the network's outputs mean: classes from 0 on (softmax), or regions, unions of classes (sigmoid).

    Voxels of the class ``ignore`` count nowhere.
    """

    regions: tuple[tuple[int, ...], ...] = ()
    ignore: int | None = None

    def structures(self, outputs: int) -> Sequence[tuple[int, ...]]:
        """The classes that each output is the union of; for softmax each class but the background, output 0."""
        return self.regions or [(index,) for index in range(1, outputs)]


LABELS = Target()  # plain labels, all voxels annotated


def dice_ce_loss(logits_BKZYX: Tensor, classes_BZYX: Tensor, batch_dice: bool, target: Target = LABELS) -> Tensor:
    """Cross entropy minus the mean soft Dice, in float32 whatever the logits' type; 0 where no voxel counts.

    Entropy is the mean over voxels (and regions, where it is binary), Dice over all classes but the background, or
    over all regions.
    """
    sums = _SigmoidSums if target.regions else _SoftmaxSums
    entropy, overlap_BK, volume_BK, truth_BK = sums.apply(logits_BKZYX, classes_BZYX, target)
    loss = entropy - soft_dice(overlap_BK, volume_BK + truth_BK, batch_dice).mean()
    return loss if target.ignore is None else loss * (classes_BZYX != target.ignore).any()


def soft_dice(overlap_BK: Tensor, total_BK: Tensor, batch_dice: bool) -> Tensor:
    """Soft Dice from the sums per sample: of each sample (B, K) or, with ``batch_dice``, over the batch (K,).

    A structure that is neither there nor predicted scores 1.
    """
    if batch_dice:
        overlap_BK, total_BK = overlap_BK.sum(0), total_BK.sum(0)
    return (2 * overlap_BK + SMOOTH) / (total_BK + SMOOTH)


class _SoftmaxSums(torch.autograd.Function):
    """Mean cross entropy, and for each class but 0: probability where it is, probability in all, and its voxels."""

    @staticmethod
    def forward(ctx, logits_BKZYX: Tensor, classes_BZYX: Tensor, target: Target) -> tuple[Tensor, ...]:
        log_probs = logits_BKZYX.float().log_softmax(1)
        index, left_out, count = _index(classes_BZYX, target.ignore)
        entropy = -log_probs.gather(1, index)
        probs = log_probs.exp_()
        if left_out is not None:
            entropy.masked_fill_(left_out, 0)
            probs.masked_fill_(left_out, 0)
        at_truth = probs.gather(1, index)[:, 0]
        structures = _inside(classes_BZYX, target.structures(probs.shape[1]))
        overlap, truth = zip(*((_sum(torch.where(inside, at_truth, 0)), _sum(inside)) for inside in structures))
        truth_BK = torch.stack(truth, 1)
        ctx.save_for_backward(probs, classes_BZYX)
        ctx.target, ctx.dtype = target, logits_BKZYX.dtype
        ctx.mark_non_differentiable(truth_BK)
        return entropy.sum() / count, torch.stack(overlap, 1), _sum(probs)[:, 1:], truth_BK

    @staticmethod
    def backward(ctx, by_entropy: Tensor, by_overlap_BK: Tensor, by_volume_BK: Tensor, _) -> tuple[Tensor, None, None]:
        probs, classes = ctx.saved_tensors
        index, left_out, count = _index(classes, ctx.target.ignore)
        by_entropy = by_entropy / count
        by_overlap, by_volume = (F.pad(slope, (1, 0)) for slope in (by_overlap_BK, by_volume_BK))  # no background
        # With g = d loss / d probability, softmax gives p * (g - sum over classes of p * g); g is by_volume everywhere
        # and by_overlap more at the true class. The entropy adds p, and -1 at the true class.
        grad = probs * by_volume[:, :, None, None, None]
        at_truth = probs.gather(1, index)
        at_truth *= by_overlap.gather(1, index.flatten(1)).view_as(at_truth)
        grad.addcmul_(probs, by_entropy - grad.sum(1, keepdim=True) - at_truth)
        at_truth -= by_entropy
        grad.scatter_add_(1, index, at_truth if left_out is None else at_truth.masked_fill_(left_out, 0))
        return grad.to(ctx.dtype), None, None


class _SigmoidSums(torch.autograd.Function):
    """Mean binary cross entropy, and for each region: probability where it is, probability in all, and its voxels."""

    @staticmethod
    def forward(ctx, logits_BKZYX: Tensor, classes_BZYX: Tensor, target: Target) -> tuple[Tensor, ...]:
        probs = logits_BKZYX.to(torch.float32, copy=True).sigmoid_()
        _, left_out, count = _index(classes_BZYX, target.ignore)
        if left_out is not None:
            probs.masked_fill_(left_out, 0)
        entropy, overlap, truth = 0.0, [], []
        for region, inside in enumerate(_inside(classes_BZYX, target.regions)):
            logits = logits_BKZYX[:, region].float()
            surprise = F.softplus(torch.where(inside, -logits, logits))  # never a difference of large numbers
            entropy += (surprise if left_out is None else surprise.masked_fill_(left_out[:, 0], 0)).sum()
            overlap.append(_sum(torch.where(inside, probs[:, region], 0)))
            truth.append(_sum(inside))
        truth_BK = torch.stack(truth, 1)
        ctx.save_for_backward(probs, classes_BZYX)
        ctx.target, ctx.dtype = target, logits_BKZYX.dtype
        ctx.mark_non_differentiable(truth_BK)
        return entropy / (count * len(target.regions)), torch.stack(overlap, 1), _sum(probs), truth_BK

    @staticmethod
    def backward(ctx, by_entropy: Tensor, by_overlap_BK: Tensor, by_volume_BK: Tensor, _) -> tuple[Tensor, None, None]:
        probs, classes = ctx.saved_tensors
        _, _, count = _index(classes, ctx.target.ignore)
        by_entropy = by_entropy / (count * len(ctx.target.regions))
        grad = torch.empty_like(probs)
        for region, inside in enumerate(_inside(classes, ctx.target.regions)):
            p, overlap, volume = probs[:, region], by_overlap_BK[:, region], by_volume_BK[:, region]
            slope = volume[:, None, None, None] + overlap[:, None, None, None] * inside
            # Voxels left out have p = 0 and lie inside of no region: both terms vanish.
            grad[:, region] = p * (1 - p) * slope + by_entropy * (p - inside.float())
        return grad.to(ctx.dtype), None, None


def _index(classes_BZYX: Tensor, ignore: int | None) -> tuple[Tensor, Tensor | None, Tensor | int]:
    """Classes to gather by (B, 1, Z, Y, X), where voxels are left out, and how many count (at least 1)."""
    index = classes_BZYX[:, None]
    if ignore is None:
        return index, None, index.numel()
    left_out = index == ignore
    return index.masked_fill(left_out, 0), left_out, (~left_out).sum().clamp_min(1)


def _inside(classes_BZYX: Tensor, structures: Sequence[tuple[int, ...]]) -> Iterator[Tensor]:
    """Mask (B, Z, Y, X) of each structure, one at a time."""
    for members in structures:
        inside = classes_BZYX == members[0]
        for index in members[1:]:
            inside |= classes_BZYX == index
        yield inside


def _sum(array: Tensor) -> Tensor:
    """Over space."""
    return array.sum((-3, -2, -1))


def supervision_weights(outputs: int) -> tuple[float, ...]:
    """Weights of the outputs, finest first: halved per stage, the coarsest left out, sum 1.

    A network with a single output keeps it (the published rule divides by zero there).
    """
    weights = [0.5**stage for stage in range(outputs)]
    if outputs > 1:
        weights[-1] = 0.0
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def deep_supervision_loss(
    outputs: Sequence[Tensor], classes_BZYX: Tensor, batch_dice: bool, target: Target = LABELS
) -> Tensor:
    """Weighted ``dice_ce_loss`` of every decoder stage against the mask at its resolution."""
    loss = outputs[0].new_zeros((), dtype=torch.float32)
    for weight, logits in zip(supervision_weights(len(outputs)), outputs):
        if weight > 0:
            classes = downsample(classes_BZYX, logits.shape[2:])
            loss = loss + weight * dice_ce_loss(logits, classes, batch_dice, target)
    return loss


def downsample(classes_BZYX: Tensor, shape: Sequence[int]) -> Tensor:
    """Nearest neighbour at the centre of each coarse voxel."""
    if tuple(classes_BZYX.shape[1:]) == tuple(shape):
        return classes_BZYX
    return F.interpolate(classes_BZYX[:, None].float(), tuple(shape), mode="nearest-exact")[:, 0].long()


@torch.no_grad()
def overlap_counts(logits_BKZYX: Tensor, classes_BZYX: Tensor, target: Target = LABELS) -> Tensor:
    """True positives, false positives and false negatives (3, K) of the hard prediction, summed over the batch.

    K are the classes but the background, or the regions.
    """
    counted = None if target.ignore is None else classes_BZYX != target.ignore
    winner = None if target.regions else logits_BKZYX.argmax(1)
    counts = []
    for number, inside in enumerate(_inside(classes_BZYX, target.structures(logits_BKZYX.shape[1]))):
        found = logits_BKZYX[:, number] > 0 if winner is None else winner == number + 1
        if counted is not None:
            found = found & counted
        both = (found & inside).sum()
        counts.append(torch.stack((both, found.sum() - both, inside.sum() - both)))
    return torch.stack(counts, 1)
