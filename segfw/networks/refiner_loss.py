"""The loss of a refiner: Dice and entropy of one structure, in which voxels around clicks weigh more."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.networks.losses import Join, Loss, alone, downsample, soft_dice, supervision_weights

# B batch, Z Y X space
# A voxel of a refiner's truth is 0 or 1, the structure, or counts nowhere; NEAR_CLICK is added where a click is near.
IGNORED = 2
NEAR_CLICK = 4
NEAR_CLICK_WEIGHT = 2.0  # of voxels near a click, where the user is waiting for something to happen; the others weigh 1


def build_refiner_loss(join: Join = alone) -> Loss:
    """The loss of all outputs; ``join`` adds its sums over the processes that share a batch."""
    return partial(refiner_loss, join=join)


def refiner_loss(outputs: Sequence[Tensor], truth_BZYX: Tensor, *, join: Join = alone) -> Tensor:
    """Weighted entropy minus weighted soft Dice of the structure, in float32, of each output at its resolution.

    Parameters
    ----------
    outputs
        Logits (B, 2, Z, Y, X) of 'is not' and 'is the structure', finest first.
    truth_BZYX
        Classes as they are described above.
    join
        Adds up the sums of processes.
    """
    weights = [weight for weight in supervision_weights(len(outputs)) if weight > 0]
    sums = [_sums(logits, downsample(truth_BZYX, logits.shape[2:])) for logits in outputs[: len(weights)]]
    joined = join(torch.stack(sums))
    loss = joined.new_zeros(())
    for weight, (entropy, counted, dice, samples) in zip(weights, joined):
        loss = loss + weight * (entropy / counted.clamp_min(1) - dice / samples.clamp_min(1))
    # What has no weight gets a gradient of zero, for which data-parallel training would wait for ever.
    return loss + sum((logits[:0].float().sum() for logits in outputs[len(weights) :]), start=loss.new_zeros(()))


def _sums(logits_BKZYX: Tensor, truth_BZYX: Tensor) -> Tensor:
    """Entropy and the weights it is of, then the sum of the samples' Dices and the number of these."""
    lean_BZYX = logits_BKZYX[:, 1].float() - logits_BKZYX[:, 0].float()
    truth = truth_of(truth_BZYX)
    weight = 1 + (NEAR_CLICK_WEIGHT - 1) * (truth_BZYX >= NEAR_CLICK).float()
    weight = weight * (truth_BZYX % NEAR_CLICK != IGNORED)
    entropy = (weight * (F.softplus(lean_BZYX) - truth * lean_BZYX)).sum()
    found = torch.sigmoid(lean_BZYX)
    space = (1, 2, 3)
    overlap_B = (weight * found * truth).sum(space)
    total_B = (weight * found).sum(space) + (weight * truth).sum(space)
    is_counted_B = weight.sum(space) > 0
    dice = (soft_dice(overlap_B, total_B) * is_counted_B).sum()
    return torch.stack((entropy, weight.sum(), dice, is_counted_B.sum().float()))


def truth_of(truth_BZYX: Tensor) -> Tensor:
    """1 where the structure is, as numbers."""
    return (truth_BZYX % NEAR_CLICK == 1).float()
