"""The sums that losses are made of with the kernels of ``kernels`` in place of plain operations, where these agree."""

# B sample, K class or region, V voxel, R row of a table

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from segfw.base.sending import sent
from segfw.kernels.trial import agrees
from segfw.networks.loss_sums import SigmoidSums, SoftmaxSums, SumsOfOutputs, Target, hardest_of, told_of

TOLERANCE = 1e-4  # in float32, where sums are added in another order
MOST_CLASSES = 1024  # that a program of a kernel holds at once
MOST_REGIONS = 512  # of which it keeps more
TRIAL_SHAPE = (2, 4, 6, 7)  # of classes
TRIAL_OUTPUTS = 5
TRIAL_ANNOTATED = ((True, True, False, True, False), (True, True, True, True, True))


def fused_sums(device: torch.device, target: Target) -> SumsOfOutputs | None:
    """The sums of a loss of labels or of regions in one kernel; None where it does not work on ``device``.

    Triton must be there. The trial has ignored voxels; it takes all the others and, a second time, the hardest of
    samples that are annotated in part.
    """
    kernel = sums_of_regions if target.regions else sums_of_labels
    plain: SumsOfOutputs = SigmoidSums.apply if target.regions else SoftmaxSums.apply
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(TRIAL_SHAPE[0], TRIAL_OUTPUTS, *TRIAL_SHAPE[1:], generator=generator).to(device)
    classes = torch.randint(0, TRIAL_OUTPUTS + 1, TRIAL_SHAPE, generator=generator).to(device)
    tried = _trial_target(bool(target.regions))
    annotated = torch.tensor(TRIAL_ANNOTATED)

    def results(function: SumsOfOutputs) -> list[Tensor]:
        found = []
        for hardest, known in ((1.0, None), (0.2, annotated)):
            leaf = logits.clone().requires_grad_()
            entropy, counted, overlap, volume, truth = function(leaf, classes, tried, hardest, known)
            loss = entropy + (overlap * 0.5 - volume * 0.25).sum()
            found += [entropy, counted, overlap, volume, truth, *torch.autograd.grad(loss, leaf)]
        return found

    name = "loss of regions" if target.regions else "loss"
    is_right = agrees(name, lambda: results(kernel), lambda: results(plain), tolerance=TOLERANCE)
    return kernel if is_right else None


def _trial_target(has_regions: bool) -> Target:
    """Overlapping regions or none, beside an ignored class."""
    regions = ((1, 2, 3), (2, 3), (3,), (4,), (1, 4)) if has_regions else ()
    return Target(regions=regions, ignore=TRIAL_OUTPUTS)


def sums_of_labels(
    logits_BKZYX: Tensor,
    classes_BZYX: Tensor,
    target: Target,
    hardest: float,
    annotated_BK: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """As ``SoftmaxSums``, which computes what is too large for the kernel."""
    from segfw.kernels.softmax_dice import softmax_dice_sums

    if logits_BKZYX.shape[1] > MOST_CLASSES:
        return SoftmaxSums.apply(logits_BKZYX, classes_BZYX, target, hardest, annotated_BK)
    hidden = None
    if annotated_BK is not None:
        hidden = ~annotated_BK
        hidden[:, 0] = True
        hidden = sent(hidden, logits_BKZYX.device)
    takes_all = hardest >= 1
    entropy, counted, *of_classes = softmax_dice_sums(
        logits_BKZYX, classes_BZYX, target.ignore, hidden_BK=hidden, by_voxel=not takes_all
    )
    if not takes_all:
        entropy, counted = _of_hardest(entropy, hardest, all_count=target.ignore is None)
    if hidden is not None:
        of_classes = [sums * ~hidden[:, 1:] for sums in of_classes]
    return entropy, counted, *of_classes


def sums_of_regions(
    logits_BKZYX: Tensor,
    classes_BZYX: Tensor,
    target: Target,
    hardest: float,
    annotated_BK: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """As ``SigmoidSums``, which computes what is too large for the kernel."""
    from segfw.kernels.sigmoid_dice import sigmoid_dice_sums

    if logits_BKZYX.shape[1] > MOST_REGIONS:
        return SigmoidSums.apply(logits_BKZYX, classes_BZYX, target, hardest, annotated_BK)
    device = logits_BKZYX.device
    known: list[tuple[bool, ...]] = [()] if annotated_BK is None else [tuple(row) for row in annotated_BK.tolist()]
    table_BRK = torch.stack([_table_on(device, target, row) for row in known])
    takes_all = hardest >= 1
    entropy, counted, *of_regions = sigmoid_dice_sums(logits_BKZYX, classes_BZYX, table_BRK, by_voxel=not takes_all)
    if not takes_all:
        all_count = target.ignore is None and annotated_BK is None
        entropy, counted = _of_hardest(entropy.flatten(0, 1), hardest, all_count=all_count)
    if annotated_BK is not None:
        has_dice = sent(annotated_BK, device)
        of_regions = [sums * has_dice for sums in of_regions]
    return entropy, counted, *of_regions


def _of_hardest(entropy_BV: Tensor, hardest: float, *, all_count: bool) -> tuple[Tensor, Tensor]:
    """Entropy of the hardest voxels of each row, and how many these are; -1 where a voxel does not count."""
    in_space = entropy_BV[:, None, None]
    probs = (-in_space.detach()).exp()
    choice, counted = hardest_of(probs, None if all_count else in_space[:, None] < 0, hardest)
    assert choice is not None  # of all voxels the kernel adds up
    return (in_space.clamp_min(0) * choice.weights(probs)).sum(), counted


@lru_cache(maxsize=64)
def _table_on(device: torch.device, target: Target, annotated: tuple[bool, ...]) -> Tensor:
    """``region_table`` as a tensor that stays on the device, so that a step sends nothing."""
    return torch.tensor(region_table(target, annotated), dtype=torch.uint8, device=device)


def region_table(target: Target, annotated: Sequence[bool] = ()) -> list[list[int]]:
    """By class, and one row more for all others, whether voxels lie in each region: as ``sigmoid_dice_sums`` reads it.

    ``annotated`` says which regions somebody drew in the sample; without it all.
    """
    from segfw.kernels.sigmoid_dice import INSIDE, OUTSIDE, UNKNOWN

    most = max(index for members in target.regions for index in members)
    classes = 2 + max(most, target.ignore or 0)
    unannotated = [region for region, is_known in enumerate(annotated) if not is_known]
    rows = [[INSIDE if index in members else OUTSIDE for members in target.regions] for index in range(classes)]
    for region in unannotated:
        told = told_of(target.regions, region, unannotated)
        for index in range(classes):
            if index not in told:
                rows[index][region] = UNKNOWN
    if target.ignore is not None:
        rows[target.ignore] = [UNKNOWN] * len(target.regions)
    return rows
