"""Each voxel against its neighbours: grey tone differences (IBSI: NGTDM) and dependences (NGLDM)."""

from __future__ import annotations

import numpy as np

from segfw.radiomics.level_grid import LevelGrid
from segfw.radiomics.level_sizes import LevelSizes, features_of_sizes

TONE_FEATURES = ("coarseness", "contrast", "busyness", "complexity", "strength")
DEPENDENCE_FEATURES = (
    *("low_dependence_emphasis", "high_dependence_emphasis"),
    *("low_grey_level_count_emphasis", "high_grey_level_count_emphasis"),
    *("low_dependence_low_grey_level_emphasis", "low_dependence_high_grey_level_emphasis"),
    *("high_dependence_low_grey_level_emphasis", "high_dependence_high_grey_level_emphasis"),
    *("grey_level_non_uniformity", "normalised_grey_level_non_uniformity"),
    *("dependence_count_non_uniformity", "normalised_dependence_count_non_uniformity"),
    *("dependence_count_percentage", "grey_level_variance", "dependence_count_variance"),
    *("dependence_count_entropy", "dependence_count_energy"),
)


def tone_features(grid: LevelGrid) -> dict[str, float | None]:
    """The 5 features of grey tone differences; None where a voxel has no neighbour, or all are equal to theirs."""
    numbers, sums, valid = _tone_table(grid)
    if not valid:
        return dict.fromkeys(TONE_FEATURES)
    is_there = numbers > 0
    level = np.flatnonzero(is_there).astype(np.float64)
    share = numbers[is_there] / valid
    difference = sums[is_there]
    weighted = float(share @ difference)
    distance = np.abs(level[:, None] - level)
    together = share[:, None] + share
    product = share * difference
    level_share = level * share
    spread = float(np.abs(level_share[:, None] - level_share).sum())
    total = float(difference.sum())
    pairs = len(level) * (len(level) - 1)
    return {
        "coarseness": 1 / weighted if weighted else None,
        "contrast": float(share @ distance**2 @ share) / pairs * total / valid if pairs else None,
        "busyness": weighted / spread if spread else None,
        "complexity": float((distance * (product[:, None] + product) / together).sum()) / valid,
        "strength": float((together * distance**2).sum()) / total if total else None,
    }


def _tone_table(grid: LevelGrid) -> tuple[np.ndarray, np.ndarray, int]:
    """By level how many voxels have a neighbour, and the sum of their differences to the mean of those; and all."""
    sums = np.zeros(len(grid.places), np.int64)
    numbers = np.zeros(len(grid.places), np.int64)
    for step in grid.steps:
        for way in (step, -step):
            neighbour = grid.flat[grid.places + way]
            sums += neighbour
            numbers += neighbour > 0
    has_any = numbers > 0
    levels = grid.levels[has_any]
    difference = np.abs(levels - sums[has_any] / numbers[has_any])
    return np.bincount(levels), np.bincount(levels, difference), int(has_any.sum())


def dependence_table(grid: LevelGrid) -> LevelSizes:
    """How many voxels of a level have so many neighbours of the same level; they themselves count, too."""
    alike = np.ones(len(grid.places), np.int64)
    for step in grid.steps:
        for way in (step, -step):
            alike += grid.flat[grid.places + way] == grid.levels
    return LevelSizes.counted(grid.levels, alike, len(grid.places))


def dependence_features(table: LevelSizes) -> dict[str, float]:
    """The 17 features of dependences."""
    return dict(zip(DEPENDENCE_FEATURES, features_of_sizes(table)))
