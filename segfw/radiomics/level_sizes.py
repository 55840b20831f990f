"""Features of a table of grey levels and sizes: run lengths, zone sizes, zone distances and dependences.

All four families count how many groups of voxels have a level and a size; their features are the same sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segfw.radiomics.cooccurrence import entropy


@dataclass(frozen=True, kw_only=True)
class LevelSizes:
    """How many groups have a level and a size, (N,) each; only pairs that occur, because sizes are large.

    ``voxels`` are those that could be groups of their own: of run lengths in 13 directions 13 times the structure's.
    """

    level: np.ndarray
    size: np.ndarray
    count: np.ndarray
    voxels: int

    @staticmethod
    def counted(level: np.ndarray, size: np.ndarray, voxels: int) -> LevelSizes:
        """Of the level and the size of each group."""
        width = int(size.max()) + 1
        keys, counts = np.unique(level.astype(np.int64) * width + size, return_counts=True)
        return LevelSizes(level=keys // width, size=keys % width, count=counts, voxels=voxels)

    @staticmethod
    def merged(tables: Sequence[LevelSizes]) -> LevelSizes:
        """One table of the groups of several."""
        level = np.concatenate([each.level for each in tables])
        size = np.concatenate([each.size for each in tables])
        count = np.concatenate([each.count for each in tables])
        width = int(size.max()) + 1
        keys, place = np.unique(level * width + size, return_inverse=True)
        summed = np.bincount(place, count, minlength=len(keys))
        voxels = sum(each.voxels for each in tables)
        return LevelSizes(level=keys // width, size=keys % width, count=summed, voxels=voxels)


def features_of_sizes(table: LevelSizes) -> tuple[float, ...]:
    """The 16 features in the order in which IBSI lists them for run lengths, and the energy behind them."""
    level = table.level.astype(np.float64)
    size = table.size.astype(np.float64)
    total = float(table.count.sum())
    share = table.count / total
    level_square = level**2
    size_square = size**2
    per_level = np.bincount(table.level, table.count)
    per_size = np.bincount(np.unique(table.size, return_inverse=True)[1], table.count)
    return (
        float((share / size_square).sum()),
        float((share * size_square).sum()),
        float((share / level_square).sum()),
        float((share * level_square).sum()),
        float((share / level_square / size_square).sum()),
        float((share * level_square / size_square).sum()),
        float((share * size_square / level_square).sum()),
        float((share * size_square * level_square).sum()),
        float((per_level**2).sum() / total),
        float((per_level**2).sum() / total**2),
        float((per_size**2).sum() / total),
        float((per_size**2).sum() / total**2),
        total / table.voxels,
        _variance(level, share),
        _variance(size, share),
        entropy(share),
        float((share**2).sum()),
    )


def _variance(values: np.ndarray, share: np.ndarray) -> float:
    return float((share * (values - (share * values).sum()) ** 2).sum())
