"""The mask of largest expected Dice, structure by structure, in place of the class that wins each voxel.

Where voxels are in a structure's reference with probability p, independently, a mask M has an expected Dice of about
2 sum_M p / (N_M + sum p). The best mask is {p >= D / 2}, D being that very Dice (Lipton, Elkan and Narayanaswamy 2014,
for F1): the threshold is a fixed point, at most a half, and known only when the whole case was seen. So what comes by
is kept as levels of 8 bits: a histogram of all voxels, and the places where a structure is in doubt.

Voxels are not independent, so this is a heuristic; ``segfw select`` takes it where held-out cases say so.
"""

# S decoded structures, L levels, Z Y X space

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np
import torch
from torch import Tensor

from segfw.grid.boxes import Block, shape_of

LEVELS = 256
STEPS = 24  # levels per unit of log-odds: 0.01 of a probability near a half
HALF = 72  # the first level of probabilities from a half on
# Log-odds below which a voxel has level 0 and counts as certainly outside: a probability of 0.049. The tail of millions
# of such voxels, which no network tells apart well, would else be more than a small structure.
LOWEST = (1 - HALF) / STEPS
NEVER = LEVELS  # the threshold that no level reaches
HELD_BYTES = 64 * 2**20  # of compressed levels in memory; more lie in a nameless file


def levels_of(log_odds: Tensor) -> np.ndarray:
    """Level 0..255 of every voxel, uint8: level HALF begins at log-odds 0, level 1 at LOWEST."""
    levels = (log_odds * STEPS + HALF).floor_().clamp_(0, LEVELS - 1)
    return levels.to(torch.uint8).cpu().numpy()


def log_odds_of_levels() -> np.ndarray:
    """Log-odds in the middle of each level, (L,)."""
    return (np.arange(LEVELS) - HALF + 0.5) / STEPS


def probabilities_of_levels(temperature: float) -> np.ndarray:
    """Probability of each level, (L,): its log-odds divided by the temperature; 0 of level 0."""
    probabilities = 1 / (1 + np.exp(-log_odds_of_levels() / temperature))
    probabilities[0] = 0
    return probabilities


def threshold_level(counts_l: np.ndarray, temperature: float) -> int:
    """The lowest level in the mask of largest expected Dice, of voxels per level (L,); at most HALF.

    NEVER where no voxel has a half: whether a structure is there at all, of which the expected Dice of independent
    voxels knows nothing, is left to the network.
    """
    if not counts_l[HALF:].any():
        return NEVER
    probabilities = probabilities_of_levels(temperature)
    # Of the mask from each level on: the sum of its probabilities, and its voxels.
    inside = np.cumsum((counts_l * probabilities)[::-1])[::-1]
    voxels = np.cumsum(counts_l[::-1])[::-1]
    with np.errstate(invalid="ignore"):  # no voxel has the highest levels
        expected_dice = np.nan_to_num(2 * inside / (voxels + inside[0]))
    return int(np.searchsorted(probabilities, expected_dice.max() / 2))


@dataclass(frozen=True, kw_only=True)
class _DoubtfulPart:
    """A place in which a structure is in doubt, and the bytes of the levels (S, z, y, x) of some structures there."""

    place: Block
    outputs: tuple[int, ...]
    length: int


class ExpectedDice:
    """Takes the log-odds of a case, part by part, and then corrects the winners of its voxels.

    ``temperatures`` are of the outputs (classes, or regions if these are ``of_regions``) whose mask is to be that of
    largest expected Dice; log-odds are divided by them. Memory is HELD_BYTES at most: levels of where a structure is in
    doubt are compressed, and beyond that lie in a nameless file in ``scratch``.
    """

    def __init__(
        self,
        temperatures: Mapping[int, float],
        *,
        of_regions: bool,
        scratch: Path | None = None,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self.outputs = tuple(sorted(temperatures))
        self._temperatures = temperatures
        self._of_regions = of_regions
        self._counts = {output: np.zeros(LEVELS, np.int64) for output in self.outputs}
        self._parts: list[_DoubtfulPart] = []
        folder = None if scratch is None else str(scratch)
        self._file = tempfile.SpooledTemporaryFile(max_size=held_bytes, dir=folder)  # noqa: SIM115
        self._end = 0  # of the levels in the file

    def add(self, place: Block, outputs: Sequence[int], log_odds_szyx: Tensor) -> None:
        """Takes the log-odds (S, z, y, x) of some decoded ``outputs`` in a place; those left out are nowhere near."""
        levels_szyx = levels_of(log_odds_szyx)
        near = [row for row in range(len(outputs)) if levels_szyx[row].any()]
        for row in near:
            self._counts[outputs[row]] += np.bincount(levels_szyx[row].reshape(-1), minlength=LEVELS)
        levels_szyx = levels_szyx[near]
        is_doubtful = (levels_szyx > 0) & (levels_szyx < HALF)
        if not is_doubtful.any():
            return
        # Each structure's levels one after the other, which are alike.
        stored = blosc2.compress2(np.ascontiguousarray(levels_szyx), typesize=1)
        self._file.seek(self._end)
        self._file.write(stored)
        self._end += len(stored)
        near_outputs = tuple(outputs[row] for row in near)
        self._parts.append(_DoubtfulPart(place=place, outputs=near_outputs, length=len(stored)))

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """What is added inside is forgotten if it ends in an error, so that it can be added again."""
        counts = {output: counts_l.copy() for output, counts_l in self._counts.items()}
        parts = len(self._parts)
        end = self._end
        try:
            yield
        except BaseException:
            self._counts = counts
            del self._parts[parts:]
            self._end = end
            raise

    def correct(self, winners_zyx: np.ndarray, nothing: int) -> None:
        """Gives each decoded structure its mask, in place; ``winners`` are indices of outputs, ``nothing`` is none.

        Of two structures that claim a voxel the likelier has it, and a decoded one none below its threshold, which is
        background then. Regions may overlap: the later one is painted over the earlier one.
        """
        thresholds = {
            output: threshold_level(counts_l, self._temperatures[output]) for output, counts_l in self._counts.items()
        }
        correct = _with_regions if self._of_regions else _with_classes
        self._file.seek(0)
        for part in self._parts:
            stored = blosc2.decompress2(self._file.read(part.length))
            levels_szyx = np.frombuffer(stored, np.uint8).reshape(len(part.outputs), *shape_of(part.place))
            thresholds_s = np.array([thresholds[output] for output in part.outputs])
            winners_zyx[part.place] = correct(
                winners_zyx[part.place], levels_szyx, np.array(part.outputs), thresholds_s, nothing
            )
        self._file.close()


def _with_classes(
    winners_zyx: np.ndarray, levels_szyx: np.ndarray, outputs_s: np.ndarray, thresholds_s: np.ndarray, nothing: int
) -> np.ndarray:
    """Winning classes after decoding some of them."""
    is_claimed = levels_szyx >= thresholds_s[:, None, None, None]
    # Free is background, and what a decoded class won below its threshold.
    is_free = winners_zyx == 0
    for output, levels, claimed, threshold in zip(outputs_s, levels_szyx, is_claimed, thresholds_s):
        if threshold != NEVER:
            is_free |= (winners_zyx == output) & (levels > 0) & ~claimed
    claims_szyx = np.where(is_claimed, levels_szyx, 0)
    likeliest = outputs_s[claims_szyx.argmax(0)]
    taken = np.where(is_claimed.any(0), likeliest, 0)
    return np.where(is_free, taken, winners_zyx)


def _with_regions(
    winners_zyx: np.ndarray, levels_szyx: np.ndarray, outputs_s: np.ndarray, thresholds_s: np.ndarray, nothing: int
) -> np.ndarray:
    """Last region at each voxel after decoding some of them, each of which only grows."""
    last = np.where(winners_zyx == nothing, -1, winners_zyx.astype(np.int32))
    is_claimed = levels_szyx >= thresholds_s[:, None, None, None]
    found = np.where(is_claimed, outputs_s[:, None, None, None], -1).max(0)
    last = np.maximum(last, found)
    return np.where(last < 0, nothing, last)
