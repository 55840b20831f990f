"""Masks as lengths of runs, as ``quality/CASE_regions.json`` keeps candidates. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def run_lengths(mask_zyx: np.ndarray) -> tuple[int, ...]:
    """Lengths of runs of voxels outside and inside by turns, beginning outside, along the last axis first."""
    flat = np.ascontiguousarray(mask_zyx).ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate(([0], changes, [len(flat)]))
    runs = np.diff(ends).tolist()
    return (0, *runs) if len(flat) and flat[0] else tuple(runs)


def mask_of_runs(runs: Sequence[int], shape: tuple[int, int, int]) -> np.ndarray:
    """The mask (Z, Y, X), bool, that ``run_lengths`` was given."""
    is_inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(is_inside, runs).reshape(shape)
