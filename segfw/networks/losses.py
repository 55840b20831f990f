"""Dice plus cross entropy, with deep supervision (Isensee et al. 2021, Methods)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# B batch, K class, Z Y X space
SMOOTH = 1e-5


def dice_ce_loss(logits_BKZYX: Tensor, classes_BZYX: Tensor, batch_dice: bool) -> Tensor:
    """Cross entropy minus the mean soft Dice of the foreground classes; in float32 whatever the logits' type."""
    logits = logits_BKZYX.float()
    return F.cross_entropy(logits, classes_BZYX) - soft_dice(logits.softmax(1), classes_BZYX, batch_dice).mean()


def soft_dice(probs_BKZYX: Tensor, classes_BZYX: Tensor, batch_dice: bool) -> Tensor:
    """Soft Dice of each foreground class, per sample (B, K-1) or, with ``batch_dice``, over the batch (K-1,).

    A class that is neither there nor predicted scores 1.
    """
    axes = (0, 2, 3, 4) if batch_dice else (2, 3, 4)
    classes = probs_BKZYX.shape[1]
    foreground = torch.arange(1, classes, device=probs_BKZYX.device).view(1, -1, 1, 1, 1)
    truth = classes_BZYX[:, None] == foreground
    probs = probs_BKZYX[:, 1:]
    overlap, total = (probs * truth).sum(axes), probs.sum(axes) + truth.sum(axes)
    return (2 * overlap + SMOOTH) / (total + SMOOTH)


def supervision_weights(outputs: int) -> tuple[float, ...]:
    """Weights of the outputs, finest first: halved per stage, the coarsest left out, sum 1.

    A network with a single output keeps it (the published rule divides by zero there).
    """
    weights = [0.5**stage for stage in range(outputs)]
    if outputs > 1:
        weights[-1] = 0.0
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def deep_supervision_loss(outputs: Sequence[Tensor], classes_BZYX: Tensor, batch_dice: bool) -> Tensor:
    """Weighted ``dice_ce_loss`` of every decoder stage against the mask at its resolution."""
    loss = outputs[0].new_zeros((), dtype=torch.float32)
    for weight, logits in zip(supervision_weights(len(outputs)), outputs):
        if weight > 0:
            loss = loss + weight * dice_ce_loss(logits, downsample(classes_BZYX, logits.shape[2:]), batch_dice)
    return loss


def downsample(classes_BZYX: Tensor, shape: Sequence[int]) -> Tensor:
    """Nearest neighbour at the centre of each coarse voxel."""
    if tuple(classes_BZYX.shape[1:]) == tuple(shape):
        return classes_BZYX
    return F.interpolate(classes_BZYX[:, None].float(), tuple(shape), mode="nearest-exact")[:, 0].long()


@torch.no_grad()
def overlap_counts(logits_BKZYX: Tensor, classes_BZYX: Tensor) -> Tensor:
    """True positives, false positives and false negatives (3, K-1) of the hard prediction, summed over the batch."""
    classes = logits_BKZYX.shape[1]
    joint = torch.bincount((classes_BZYX * classes + logits_BKZYX.argmax(1)).flatten(), minlength=classes**2)
    joint = joint.view(classes, classes)
    true_positive = joint.diagonal()[1:]
    return torch.stack((true_positive, joint.sum(0)[1:] - true_positive, joint.sum(1)[1:] - true_positive))
