"""Run lengths: how many voxels of one grey level lie in a row (IBSI: GLRLM, 16 features)."""

from __future__ import annotations

import numpy as np

from segfw.radiomics.level_grid import LevelGrid
from segfw.radiomics.level_sizes import LevelSizes, features_of_sizes

RUN_FEATURES = (
    *("short_runs_emphasis", "long_runs_emphasis", "low_grey_level_run_emphasis", "high_grey_level_run_emphasis"),
    *("short_run_low_grey_level_emphasis", "short_run_high_grey_level_emphasis"),
    *("long_run_low_grey_level_emphasis", "long_run_high_grey_level_emphasis"),
    *("grey_level_non_uniformity", "normalised_grey_level_non_uniformity"),
    *("run_length_non_uniformity", "normalised_run_length_non_uniformity", "run_percentage"),
    *("grey_level_variance", "run_length_variance", "run_entropy"),
)


def run_tables(grid: LevelGrid) -> list[LevelSizes]:
    """A table for each direction."""
    return [_runs_along(grid, step) for step in grid.steps]


def _runs_along(grid: LevelGrid, step: int) -> LevelSizes:
    """Runs along one direction, from where they begin and where they end.

    Voxels that are a multiple of ``step`` apart in memory follow each other in a chain, in which lines of the image
    are kept apart by the voxels of 0 around it. Sorted along the chains, the first run begins and ends first.
    """
    places = grid.places
    levels = grid.levels
    begins = places[grid.flat[places - step] != levels]
    ends = places[grid.flat[places + step] != levels]
    first = _sorted_along(begins, step, grid.flat.size)
    last = _sorted_along(ends, step, grid.flat.size)
    lengths = (last - first) // step + 1
    return LevelSizes.counted(grid.flat[first], lengths, len(places))


def _sorted_along(places: np.ndarray, step: int, size: int) -> np.ndarray:
    """Places by the chain in which they lie, and by where in it."""
    chain_length = size // step + 1
    keys = np.sort(places % step * chain_length + places // step)
    return keys % chain_length * step + keys // chain_length


def run_features(table: LevelSizes) -> dict[str, float]:
    """The 16 features of a table."""
    return dict(zip(RUN_FEATURES, features_of_sizes(table)))
