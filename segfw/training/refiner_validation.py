"""How good a refiner is while it trains: its masks against those it was given, with simulated clicks."""

from __future__ import annotations

import torch
from torch import Tensor

from segfw.model.training_record import PatchFigures
from segfw.networks.refiner_loss import IGNORED, NEAR_CLICK, refiner_loss, truth_of
from segfw.networks.spec import CLICK_CHANNELS
from segfw.training.checkpoint import TrainState
from segfw.training.patch_validation import evaluated, first_batches, known_mean, pooled_dice, zero_where_unknown
from segfw.training.refiner_batches import Answer, RefinerBatches
from segfw.training.step import Compute

REFINED = "refined, simulated clicks"
GIVEN = "given"
NAMES = (REFINED, GIVEN)  # of the two masks, in the place of labels: progress shows a line for each


def answer_of(compute: Compute, state: TrainState) -> Answer:
    """The network's own answer, without a gradient."""

    def answer(image_BCZYX: Tensor) -> Tensor:
        logits = evaluated(compute, state, image_BCZYX)
        state.network.train()
        return logits[:, 1] > logits[:, 0]

    return answer


@torch.no_grad()
def validate_refiner(
    compute: Compute, state: TrainState, batches: RefinerBatches, steps: int
) -> tuple[PatchFigures, int]:
    """Loss, and pooled Dice of the refined and of the given masks, on the same patches and clicks in every epoch.

    ``val_dice`` is that of the refined ones. Returns the figures, and how many voxels were found.
    """
    loss = torch.zeros((), device=compute.device)
    counts: list[Tensor] = []
    with first_batches(compute, batches, steps) as cuts:
        for cut in cuts:
            image, truth = batches.finish(cut, compute.device)
            logits = evaluated(compute, state, image)
            loss += refiner_loss([logits], truth, join=compute.ranks.sum)
            given = image[:, -CLICK_CHANNELS] > 0
            counts.append(torch.stack([_counts(found, truth) for found in (logits[:, 1] > logits[:, 0], given)], 1))
    counts_3K = compute.ranks.sum(torch.stack(counts).sum(0))
    dice = pooled_dice(counts_3K)
    figures: PatchFigures = {
        "val_loss": float(loss) / steps,
        "val_dice": known_mean(dice[:1]),
        "val_dice_per_label": zero_where_unknown(dice),
    }
    return figures, int(counts_3K[:2, 0].sum())


def _counts(found_BZYX: Tensor, truth_BZYX: Tensor) -> Tensor:
    """True positives, false positives and false negatives where the truth is known."""
    known = truth_BZYX % NEAR_CLICK != IGNORED
    wanted = truth_of(truth_BZYX) > 0
    both = (found_BZYX & wanted).sum()
    return torch.stack((both, (found_BZYX & known).sum() - both, wanted.sum() - both))
