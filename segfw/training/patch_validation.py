"""How good the network is while it trains: quick, on patches, and now and then on whole cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from segfw.base.device import autocast
from segfw.base.ranks import Ranks
from segfw.networks.losses import dice_ce_loss, overlap_counts
from segfw.training.batches import Batches
from segfw.training.checkpoint import TrainState
from segfw.training.feeding import Feeder
from segfw.training.step import Run

# Network and case id -> true positives, false positives, false negatives (3, K) of the case predicted as a whole.
CountWholeCase = Callable[[nn.Module, str], Tensor]
WHOLE_CASES = 8  # a fixed subset of the validation cases
WHOLE_CASES_SHARE = 0.05  # of the work of training that their validation may take
STEP_PER_TILE = 3  # a training step on a patch costs as much as predicting so many tiles


@torch.no_grad()
def validate_patches(run: Run, state: TrainState, batches: Batches, steps: int) -> dict:
    """Loss and pooled Dice on the same patches in every epoch: quick, and comparable between epochs only.

    A network whose layers do the same in training and evaluation stays in training mode, for which it was compiled.
    ``val_predicted`` is the number of foreground voxels predicted.
    """
    state.network.train(not _differs_in_training(state.network))
    share = run.ranks.samples(run.settings.batch_size)
    loss, counts = torch.zeros((), device=run.device), 0
    feeder = Feeder(lambda step: batches.cut(step, share), 0, device=run.device)
    try:
        for cut in islice(feeder, steps):
            image, classes = batches.finish(cut, run.device)
            with autocast(run.device, run.precision):
                parts = [run.forward(part) for part in image.chunk(state.counters.parts)]
            logits = torch.cat([part if isinstance(part, Tensor) else part[0] for part in parts])
            loss += dice_ce_loss(logits, classes, run.configuration.batch_dice, run.target, join=run.ranks.sum)
            counts = counts + overlap_counts(logits.float(), classes, run.target)
    finally:
        feeder.close()
    counts = run.ranks.sum(counts)
    dice = pooled_dice(counts)
    return {
        "val_loss": float(loss) / steps,
        **_dice_figures("val_dice", dice),
        "val_predicted": int(counts[:2].sum()),
    }


def _differs_in_training(network: nn.Module) -> bool:
    """True with running statistics or dropout, which networks of the user's own may have."""
    return any(
        isinstance(module, nn.modules.batchnorm._BatchNorm)
        or (isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0)
        for module in network.modules()
    )


def pooled_dice(counts_3K: Tensor) -> list[float]:
    """Dice per structure from its voxel counts; NaN where it is neither there nor predicted."""
    true_positive, false_positive, false_negative = counts_3K.cpu().double()
    total = 2 * true_positive + false_positive + false_negative
    return torch.where(total > 0, 2 * true_positive / total.clamp_min(1), torch.nan).tolist()


def _dice_figures(name: str, dice: Sequence[float]) -> dict:
    """For an epoch's row: the mean of what is known, 0 without any, and all by structure, 0 for what is not."""
    known = [value for value in dice if not math.isnan(value)]
    each = [0.0 if math.isnan(value) else value for value in dice]
    return {name: sum(known) / len(known) if known else 0.0, f"{name}_per_label": each}


@dataclass(frozen=True, kw_only=True)
class WholeCases:
    """A fixed subset of the validation cases, predicted as a whole by ``count``."""

    case_ids: tuple[str, ...]
    count: CountWholeCase
    tiles: int  # that they are predicted in, roughly
    structures: int
    ranks: Ranks

    def validate(self, network: nn.Module) -> dict:
        """Mean over cases of the Dice, per structure and over structures; nothing if no case could be predicted."""
        total, number = torch.zeros(2, self.structures, dtype=torch.float64)
        network.eval()
        for case_id in self.ranks.share(self.case_ids):
            counts = self._counts(network, case_id)
            if counts is not None:
                dice = torch.tensor(pooled_dice(counts), dtype=torch.float64)
                total, number = total + dice.nan_to_num(0), number + ~dice.isnan()
        network.train()
        total, number = self.ranks.sum(total), self.ranks.sum(number)
        if not number.any():
            return {}
        means = torch.where(number > 0, total / number.clamp_min(1), torch.nan).tolist()
        return _dice_figures("whole_case_dice", means)

    def _counts(self, network: nn.Module, case_id: str) -> Tensor | None:
        """None where the case is too large for the memory that training leaves."""
        try:
            return self.count(network, case_id)
        except torch.OutOfMemoryError:
            print(f"note: {case_id} is too large to be validated as a whole while training")
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return None


def fixed_subset(case_ids: Sequence[str]) -> tuple[str, ...]:
    """At most WHOLE_CASES ids, evenly spread over the sorted list."""
    ids = sorted(case_ids)
    count = min(WHOLE_CASES, len(ids))
    return tuple(ids[index * len(ids) // count] for index in range(count))
