"""The grey levels of a structure on their grid, and the directions in which its neighbours lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

STEPS_3D = tuple(step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0))  # of each two opposite ones, one
STEPS_IN_SLICE = tuple(step for step in STEPS_3D if step[0] == 0)


@dataclass(frozen=True, kw_only=True)
class LevelGrid:
    """Levels from 1 on, 0 outside of the structure, with one voxel of 0 on every side of the array (Z, Y, X).

    ``is_by_slice``: neighbours are those in the same slice across the first axis, and what is counted in all slices
    goes into one matrix (IBSI: 2.5-D, merged). ``shape_zyx`` is the structure before voxels out of range were left out;
    the distances of zones are those to its border.
    """

    padded: np.ndarray
    shape_zyx: np.ndarray
    is_by_slice: bool

    @staticmethod
    def of(levels_zyx: np.ndarray, shape_zyx: np.ndarray | None = None, *, is_by_slice: bool = False) -> LevelGrid:
        """Of levels in the box around a structure; without ``shape_zyx`` the structure is where they are not 0."""
        padded = np.pad(levels_zyx.astype(np.int32), 1)
        shape = padded > 0 if shape_zyx is None else np.pad(shape_zyx, 1)
        return LevelGrid(padded=padded, shape_zyx=shape, is_by_slice=is_by_slice)

    @cached_property
    def flat(self) -> np.ndarray:
        """All levels in the order of memory, so that a step in space is a step of one length."""
        return self.padded.ravel()

    @cached_property
    def places(self) -> np.ndarray:
        """Where the voxels of the structure lie in ``flat``."""
        return np.flatnonzero(self.flat)

    @cached_property
    def levels(self) -> np.ndarray:
        """The level of each voxel of the structure."""
        return self.flat[self.places]

    @cached_property
    def highest(self) -> int:
        """The highest level."""
        return int(self.levels.max())

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps in ``flat`` to half of the neighbours; the others lie opposite."""
        strides = (self.padded.shape[1] * self.padded.shape[2], self.padded.shape[2], 1)
        steps = STEPS_IN_SLICE if self.is_by_slice else STEPS_3D
        return tuple(sum(part * stride for part, stride in zip(step, strides)) for step in steps)
