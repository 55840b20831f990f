"""Dice plus cross entropy for labels, regions and an ignore label, with deep supervision (Isensee et al. 2021).

Every loss is a function of a few sums over the batch. ``join`` adds those up over the processes that share a batch:
each of them then has the loss of the whole batch, and the mean of their gradients is its gradient.

Where some cases are annotated in part, ``annotated`` (B, K) says which outputs are in each sample. A Dice is then that
of the samples that annotate its structure, and a structure that none does leaves the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.base.sending import sent
from segfw.networks.loss_sums import SigmoidSums, SoftmaxSums, SumsOfOutputs, Target, masks

# B batch, K class or region (output of the network), Z Y X space
SMOOTH = 1e-5
MOST_COUNTED = 1 << 24  # whole numbers up to which float32 holds
HARDEST = 0.1  # share of the voxels that top-k entropy looks at: nnU-Net's choice (Isensee et al. 2021)

LABELS = Target()  # plain labels, all voxels annotated
Join = Callable[[Tensor], Tensor]  # a sum over processes whose gradient is the sum of theirs, as all_reduce has it


def alone(sums: Tensor) -> Tensor:
    """The ``join`` of a process that has the whole batch."""
    return sums


def dice_ce_loss(
    logits_BKZYX: Tensor,
    classes_BZYX: Tensor,
    batch_dice: bool,
    target: Target = LABELS,
    *,
    hardest: float = 1.0,
    join: Join = alone,
    annotated: Tensor | None = None,
) -> Tensor:
    """Cross entropy minus the mean soft Dice, in float32 whatever the logits' type; 0 where no voxel counts.

    Entropy is the mean over voxels (and regions, where it is binary), Dice over all classes but the background, or
    over all regions. ``hardest`` below 1 takes the entropy over that share of each patch's counted voxels (in each
    region), those of which the network thinks the truth least likely; of each patch and not of the batch, so that
    the loss does not depend on how a batch is shared out.
    """
    return deep_supervision_loss(
        [logits_BKZYX], classes_BZYX, batch_dice, target, hardest=hardest, join=join, annotated=annotated
    )


def deep_supervision_loss(
    outputs: Sequence[Tensor],
    classes_BZYX: Tensor,
    batch_dice: bool,
    target: Target = LABELS,
    *,
    hardest: float = 1.0,
    join: Join = alone,
    fused: SumsOfOutputs | None = None,
    annotated: Tensor | None = None,
) -> Tensor:
    """Weighted ``dice_ce_loss`` of every output, finest first, against the mask at its resolution.

    ``outputs`` has any length from 1 on; what is joined over processes is joined for all of them at once. ``fused``
    makes the sums in place of plain operations, by a kernel. ``annotated`` is a bool mask on the CPU, of which all
    processes have one, or none of them.
    """
    plain: SumsOfOutputs = SigmoidSums.apply if target.regions else SoftmaxSums.apply
    sums_of = plain if fused is None else fused
    annotated_BS: Tensor | None = None  # of the structures, which have a Dice
    if annotated is not None:
        with_dice = annotated if target.regions else annotated[:, 1:]
        annotated_BS = sent(with_dice.float(), outputs[0].device)
    incomplete = None if annotated is None or annotated.all() else annotated
    weights = [weight for weight in supervision_weights(len(outputs)) if weight > 0]
    sums = [
        _batch_sums(
            sums_of(logits, downsample(classes_BZYX, logits.shape[2:]), target, hardest, incomplete),
            batch_dice,
            annotated_BS,
        )
        for logits in outputs[: len(weights)]
    ]
    joined = join(torch.stack(sums))
    zero = joined.new_zeros(())
    loss = sum(
        (weight * _loss_of(row, batch_dice, annotated is not None) for weight, row in zip(weights, joined)), start=zero
    )
    # What has no weight adds the sum over none of its patches: its layers then have a gradient, zero, and data-parallel
    # training, which waits for one of every layer, does not wait for ever.
    nothing = sum((logits[:0].float().sum() for logits in outputs[len(weights) :]), start=zero)
    return loss + nothing


def supervision_weights(outputs: int) -> tuple[float, ...]:
    """Weights of the outputs, finest first: halved per stage, the coarsest left out, sum 1.

    So of two outputs only the finest counts. A network with a single output, which a U-Net of one or two stages has,
    keeps it (the published rule divides by zero there).
    """
    weights = [0.5**stage for stage in range(outputs)]
    if outputs > 1:
        weights[-1] = 0.0
    total = sum(weights)
    return tuple(weight / total for weight in weights)


class UsesDice(Protocol):
    """What a loss has to know of a configuration."""

    @property
    def batch_dice(self) -> bool:
        """Dice over the whole batch instead of per patch."""


# (outputs, finest first; classes (B, Z, Y, X)) -> loss; also ``annotated``, bool (B, K), where cases are so in part
Loss = Callable[..., Tensor]


def build_dice_ce(
    configuration: UsesDice, target: Target, join: Join = alone, fused: SumsOfOutputs | None = None
) -> Loss:
    """Dice and cross entropy, as published."""
    return partial(deep_supervision_loss, batch_dice=configuration.batch_dice, target=target, join=join, fused=fused)


def build_dice_topk(
    configuration: UsesDice, target: Target, join: Join = alone, fused: SumsOfOutputs | None = None
) -> Loss:
    """Dice and the cross entropy of the hardest tenth of the voxels."""
    return partial(
        deep_supervision_loss,
        batch_dice=configuration.batch_dice,
        target=target,
        hardest=HARDEST,
        join=join,
        fused=fused,
    )


LOSSES: dict[str, Callable[..., Loss]] = {"dice-ce": build_dice_ce, "dice-topk": build_dice_topk}


def _batch_sums(sums: tuple[Tensor, ...], batch_dice: bool, annotated_BS: Tensor | None) -> Tensor:
    """All that the loss depends on, as a vector whose entries add up over the parts of a batch.

    Entropy, and how many voxels it is of; then the overlap of each structure and the sum of its volumes, or with a
    Dice per patch the sum of all Dices and their number. Where cases are annotated in part, the samples that annotate
    each structure follow for the Dice of a batch.
    """
    entropy, counted, overlap_BK, volume_BK, truth_BK = sums
    total_BK = volume_BK + truth_BK
    if batch_dice:
        samples = [] if annotated_BS is None else [annotated_BS.sum(0)]
        return torch.cat((torch.stack((entropy, counted)), overlap_BK.sum(0), total_BK.sum(0), *samples))
    dice_BK = soft_dice(overlap_BK, total_BK)
    number = torch.full_like(entropy, dice_BK.numel())
    if annotated_BS is not None:
        dice_BK = dice_BK * annotated_BS
        number = annotated_BS.sum()
    return torch.stack((entropy, counted, dice_BK.sum(), number))


def _loss_of(sums: Tensor, batch_dice: bool, is_partial: bool) -> Tensor:
    """The loss from ``_batch_sums``."""
    entropy = sums[0]
    counted = sums[1]
    if not batch_dice:
        dice = sums[2] / (sums[3].clamp_min(1) if is_partial else sums[3])
    elif is_partial:
        overlap, total, samples = sums[2:].chunk(3)
        is_annotated = samples > 0
        dice = (soft_dice(overlap, total) * is_annotated).sum() / is_annotated.sum().clamp_min(1)
    else:
        overlap, total = sums[2:].chunk(2)
        dice = soft_dice(overlap, total).mean()
    return (entropy / counted.clamp_min(1) - dice) * (counted > 0)


def soft_dice(overlap: Tensor, total: Tensor) -> Tensor:
    """Soft Dice from the volume of the overlap and the sum of both volumes.

    A structure that is neither there nor predicted scores 1.
    """
    return (2 * overlap + SMOOTH) / (total + SMOOTH)


def downsample(classes_BZYX: Tensor, shape: Sequence[int]) -> Tensor:
    """Nearest neighbour at the centre of each coarse voxel."""
    if tuple(classes_BZYX.shape[1:]) == tuple(shape):
        return classes_BZYX
    return F.interpolate(classes_BZYX[:, None].float(), tuple(shape), mode="nearest-exact")[:, 0].long()


@torch.no_grad()
def overlap_counts(
    logits_BKZYX: Tensor, classes_BZYX: Tensor, target: Target = LABELS, annotated: Tensor | None = None
) -> Tensor:
    """True positives, false positives and false negatives (3, K) of the hard prediction, summed over the batch.

    K are the classes but the background, or the regions; a structure that is not ``annotated`` (B, outputs) in a sample
    has none there. Classes cost a GPU few launches, whatever their number.
    """
    if annotated is not None:
        known = annotated if target.regions else annotated[:, 1:]
        counts_of = [
            overlap_counts(logits_BKZYX[sample : sample + 1], classes_BZYX[sample : sample + 1], target)
            for sample in range(len(known))
        ]
        return (torch.stack(counts_of) * known[:, None].to(logits_BKZYX.device)).sum(0)
    if not target.regions:
        return _overlap_of_classes(logits_BKZYX.argmax(1), classes_BZYX, logits_BKZYX.shape[1], target.ignore)
    counted = None if target.ignore is None else classes_BZYX != target.ignore
    counts = []
    for number, inside in enumerate(masks(classes_BZYX, target.regions)):
        found = logits_BKZYX[:, number] > 0
        if counted is not None:
            found = found & counted
        both = (found & inside).sum()
        counts.append(torch.stack((both, found.sum() - both, inside.sum() - both)))
    return torch.stack(counts, 1)


def _overlap_of_classes(winner_BZYX: Tensor, classes_BZYX: Tensor, outputs: int, ignore: int | None) -> Tensor:
    """The same from a table of how often each class was found where each class is."""
    truth = classes_BZYX if ignore is None else classes_BZYX.masked_fill(classes_BZYX == ignore, outputs)
    pairs = truth * outputs + winner_BZYX
    table = _histogram(pairs.flatten(), (outputs + 1) * outputs).view(outputs + 1, outputs)[:outputs]
    both = table.diagonal()
    return torch.stack((both, table.sum(0) - both, table.sum(1) - both))[:, 1:]


def _histogram(values: Tensor, bins: int) -> Tensor:
    """How often each whole number below ``bins`` occurs in ``values``, int64."""
    if values.device.type == "cpu":
        return torch.bincount(values, minlength=bins)
    return counted_without_waiting(values, bins)


def counted_without_waiting(values: Tensor, bins: int, *, most: int = MOST_COUNTED) -> Tensor:
    """As ``torch.bincount``, for which a GPU is asked for the largest value; ``most`` values at a time, in float32."""
    parts = (values.float() + 0.5).split(most)  # in the middle of their bins, whose borders are rounded
    return torch.stack([torch.histc(part, bins, 0, bins).long() for part in parts]).sum(0)
