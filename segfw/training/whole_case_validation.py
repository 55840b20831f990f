"""How good the network is on whole cases while it trains: now and then, on a fixed subset of the validation cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, prod

import torch
from torch import Tensor, nn

from segfw.base.ranks import Ranks
from segfw.base.resources import ran_out_of_memory
from segfw.grid.slabs import NoNumbers
from segfw.grid.store import CaseArrays
from segfw.images.geometry import Shape
from segfw.model.training_record import WholeCaseFigures
from segfw.training.checkpoint import Counters
from segfw.training.patch_validation import known_mean, pooled_dice, zero_where_unknown

# Network, case id, size of the tiles -> true positives, false positives, false negatives (3, K) of the whole case
CountWholeCase = Callable[[nn.Module, str, Shape], Tensor]
WHOLE_CASES = 8  # a fixed subset of the validation cases
WHOLE_CASES_SHARE = 0.05  # of the work of training that their validation may take
STEP_PER_TILE = 3  # a training step on a patch costs as much as predicting so many tiles


@dataclass(frozen=True, kw_only=True)
class WholeCases:
    """A fixed subset of the validation cases, predicted as a whole by ``count``."""

    case_ids: tuple[str, ...]
    count: CountWholeCase
    patch_size: Shape
    tiles: int  # that they are predicted in, roughly
    structures: int
    ranks: Ranks
    share: float = WHOLE_CASES_SHARE  # of the work of training

    @staticmethod
    def of(
        cases: Mapping[str, CaseArrays],
        count: CountWholeCase,
        patch_size: Shape,
        structures: int,
        ranks: Ranks,
        share: float = WHOLE_CASES_SHARE,
    ) -> WholeCases:
        """A fixed subset of the validation ``cases`` by id."""
        case_ids = fixed_subset(list(cases))
        tiles = sum(_tiles(cases[case_id].classes.shape, patch_size) for case_id in case_ids)
        return WholeCases(
            case_ids=case_ids,
            count=count,
            patch_size=patch_size,
            tiles=tiles,
            structures=structures,
            ranks=ranks,
            share=share,
        )

    def is_due(self, counters: Counters, elapsed_s: float, time_budget_s: float | None) -> bool:
        """True where validation takes no more than its share of the work and fits in the time budget.

        Work is counted in tiles and patches, not in seconds, so that a resumed run keeps the same weights as its best.
        """
        tiles_trained = STEP_PER_TILE * counters.seen_voxels / prod(self.patch_size)
        end_s = elapsed_s * (1 + self.tiles / tiles_trained)
        if end_s > (time_budget_s or inf):
            return False
        return counters.whole_tiles + self.tiles <= self.share * tiles_trained

    def validate(self, network: nn.Module) -> WholeCaseFigures:
        """Mean over cases of the Dice, per structure and over structures; nothing if no case could be predicted."""
        total = torch.zeros(self.structures, dtype=torch.float64)
        number = torch.zeros(self.structures, dtype=torch.float64)
        network.eval()
        for case_id in self.ranks.share(self.case_ids):
            counts = self._counts(network, case_id)
            if counts is not None:
                dice = torch.tensor(pooled_dice(counts), dtype=torch.float64)
                total = total + dice.nan_to_num(0)
                number = number + ~dice.isnan()
        network.train()
        total = self.ranks.sum(total)
        number = self.ranks.sum(number)
        if not number.any():
            return {}
        means = torch.where(number > 0, total / number.clamp_min(1), torch.nan).tolist()
        return {"whole_case_dice": known_mean(means), "whole_case_dice_per_label": zero_where_unknown(means)}

    def _counts(self, network: nn.Module, case_id: str) -> Tensor | None:
        """None where the case is too large for the memory that training leaves, or gives no numbers."""
        try:
            return self.count(network, case_id, self.patch_size)
        except NoNumbers as error:
            print(f"warning: {case_id}: {error}; it is not counted")
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            print(f"note: {case_id} is too large to be validated as a whole while training")
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return None


def _tiles(shape: Sequence[int], patch_size: Shape) -> int:
    """Tiles of a case, which overlap by half: about two per tile's length along every axis."""
    return prod(ceil(2 * size / patch) for size, patch in zip(shape, patch_size))


def fixed_subset(case_ids: Sequence[str]) -> tuple[str, ...]:
    """At most WHOLE_CASES ids, evenly spread over the sorted list."""
    ids = sorted(case_ids)
    count = min(WHOLE_CASES, len(ids))
    return tuple(ids[index * len(ids) // count] for index in range(count))
