"""How good the network is while it trains: quick, on the same validation patches after every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor

from segfw.base.device import autocast
from segfw.model.training_record import PatchFigures
from segfw.networks.losses import Target, dice_ce_loss, overlap_counts
from segfw.training.batches import Batches, CutBatch
from segfw.training.checkpoint import TrainState
from segfw.training.feeding import Feeder
from segfw.training.step import Compute, equal_parts


@torch.no_grad()
def validate_patches(
    compute: Compute, state: TrainState, batches: Batches, steps: int, *, batch_dice: bool, target: Target
) -> tuple[PatchFigures, int]:
    """Loss and pooled Dice on the same patches in every epoch: quick, and comparable between epochs only.

    By the network as it is, in evaluation: the one that was compiled for training would be compiled once more, for as
    long as many epochs' validation takes. Returns the figures, and the number of foreground voxels predicted.
    """
    loss = torch.zeros((), device=compute.device)
    counts: list[Tensor] = []
    with first_batches(compute, batches, steps) as cuts:
        for cut in cuts:
            image, classes = batches.finish(cut, compute.device)
            annotated = batches.annotated_in(cut)
            logits = evaluated(compute, state, image)
            loss += dice_ce_loss(logits, classes, batch_dice, target, join=compute.ranks.sum, annotated=annotated)
            counts.append(overlap_counts(logits.float(), classes, target, annotated))
    counts_3K = compute.ranks.sum(torch.stack(counts).sum(0))
    dice = pooled_dice(counts_3K)
    figures: PatchFigures = {
        "val_loss": float(loss) / steps,
        "val_dice": known_mean(dice),
        "val_dice_per_label": zero_where_unknown(dice),
    }
    return figures, int(counts_3K[:2].sum())


@contextmanager
def first_batches(compute: Compute, batches: Batches, steps: int) -> Iterator[Iterator[CutBatch]]:
    """The batches of the first ``steps``, this rank's part of each, read a few ahead: the same in every epoch."""
    share = compute.ranks.samples(batches.batch_size)
    feeder = Feeder(lambda step: batches.cut(step, share), 0, device=compute.device)
    try:
        yield islice(feeder, steps)
    finally:
        feeder.close()


@torch.no_grad()
def evaluated(compute: Compute, state: TrainState, image_BCZYX: Tensor) -> Tensor:
    """Logits of the network as it is, in evaluation, in which it stays; in as many parts as a step needs."""
    state.network.eval()
    with autocast(compute.device, compute.precision):
        parts = [state.network(part) for part in image_BCZYX.chunk(equal_parts(len(image_BCZYX), state.counters.parts))]
    return torch.cat([part if isinstance(part, Tensor) else part[0] for part in parts])


def pooled_dice(counts_3K: Tensor) -> list[float]:
    """Dice per structure from its voxel counts; NaN where it is neither there nor predicted."""
    true_positive, false_positive, false_negative = counts_3K.cpu().double()
    total = 2 * true_positive + false_positive + false_negative
    return torch.where(total > 0, 2 * true_positive / total.clamp_min(1), torch.nan).tolist()


def known_mean(dice: Sequence[float]) -> float:
    """Mean of what is known, that is no NaN; 0 without any."""
    known = [value for value in dice if not math.isnan(value)]
    return sum(known) / len(known) if known else 0.0


def zero_where_unknown(dice: Sequence[float]) -> list[float]:
    """The values, 0 for NaN, which JSON has no word for."""
    return [0.0 if math.isnan(value) else value for value in dice]
