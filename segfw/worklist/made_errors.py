"""Errors that are made on purpose in one structure of a mask, to see whether people look."""

# Z Y X space of the mask's file

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

ErrorKind = Literal["erased", "exchanged", "shifted", "island"]
ERASED_SHARE = 0.2  # of the structure's voxels
SHIFT_MM = 5.0
ISLAND_SHARE = 0.1
LEAST_VOXELS = 20  # of a structure in which an error can be seen


@dataclass(frozen=True, kw_only=True)
class MaskedStructure:
    """One structure in a mask of label values: those of it (``own``), and of its counterpart on the other side."""

    values_zyx: np.ndarray
    own: tuple[int, ...]
    other_side: tuple[int, ...]
    background: int
    spacing_mm: tuple[float, float, float]

    @property
    def is_own(self) -> np.ndarray:
        """Where the structure is."""
        return np.isin(self.values_zyx, self.own)


def made_error(mask: MaskedStructure, kind: ErrorKind, rng: np.random.Generator) -> np.ndarray | None:
    """The mask with an error; None where this kind cannot be made in this structure."""
    if mask.is_own.sum() < LEAST_VOXELS:
        return None
    return ERRORS[kind](mask, rng)


def _erased(mask: MaskedStructure, rng: np.random.Generator) -> np.ndarray:
    """A connected part is gone: the ERASED_SHARE of the voxels that are nearest to a drawn one."""
    places = np.argwhere(mask.is_own)
    centre = places[rng.integers(len(places))]
    away = ((places - centre) * np.array(mask.spacing_mm)) ** 2
    nearest = np.argsort(away.sum(1), kind="stable")[: max(1, round(ERASED_SHARE * len(places)))]
    changed = mask.values_zyx.copy()
    changed[tuple(places[nearest].T)] = mask.background
    return changed


def _exchanged(mask: MaskedStructure, _: np.random.Generator) -> np.ndarray | None:
    """Left and right are called each other's names."""
    if len(mask.other_side) != len(mask.own) or not np.isin(mask.values_zyx, mask.other_side).any():
        return None
    changed = mask.values_zyx.copy()
    for one, other in zip(mask.own, mask.other_side):
        changed[mask.values_zyx == one] = other
        changed[mask.values_zyx == other] = one
    return changed


def _shifted(mask: MaskedStructure, rng: np.random.Generator) -> np.ndarray | None:
    """Moved by SHIFT_MM along an axis, over what is there; the voxel that is nearest to that, one at least."""
    shape = np.array(mask.values_zyx.shape)
    places = np.argwhere(mask.is_own)
    steps = []
    for axis in range(3):
        for sign in (-1, 1):
            step = np.zeros(3, int)
            step[axis] = sign * max(1, round(SHIFT_MM / mask.spacing_mm[axis]))
            if abs(step[axis]) * mask.spacing_mm[axis] <= 2 * SHIFT_MM:  # thick slices are no 5 mm
                steps.append(step)
    rng.shuffle(steps)
    for step in steps:
        moved = places + step
        if ((moved >= 0) & (moved < shape)).all():
            changed = mask.values_zyx.copy()
            kept = changed[tuple(places.T)]
            changed[tuple(places.T)] = mask.background
            changed[tuple(moved.T)] = kept
            return changed
    return None


def _island(mask: MaskedStructure, rng: np.random.Generator) -> np.ndarray | None:
    """A ball of ISLAND_SHARE of the voxels in the background, near the structure but apart from it."""
    spacing = np.array(mask.spacing_mm)
    places = np.argwhere(mask.is_own)
    wanted = max(8, round(ISLAND_SHARE * len(places)))
    radius_mm = (wanted * spacing.prod() * 3 / (4 * np.pi)) ** (1 / 3)
    reach = np.ceil(3 * radius_mm / spacing).astype(int) + 2
    low = np.maximum(0, places.min(0) - reach)
    high = np.minimum(mask.values_zyx.shape, places.max(0) + 1 + reach)
    block = tuple(slice(int(start), int(stop)) for start, stop in zip(low, high))
    is_free = mask.values_zyx[block] == mask.background
    from scipy.ndimage import distance_transform_edt

    free_mm = distance_transform_edt(np.pad(is_free, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    centres = np.argwhere(free_mm > radius_mm + spacing.max())
    if not len(centres):
        return None
    centre = centres[rng.integers(len(centres))]
    free = np.argwhere(is_free)
    away = (((free - centre) * spacing) ** 2).sum(1)
    nearest = free[np.argsort(away, kind="stable")[:wanted]] + low
    changed = mask.values_zyx.copy()
    changed[tuple(nearest.T)] = mask.own[0]
    return changed


ERRORS: dict[ErrorKind, Callable[[MaskedStructure, np.random.Generator], np.ndarray | None]] = {
    "erased": _erased,
    "exchanged": _exchanged,
    "shifted": _shifted,
    "island": _island,
}
KINDS: Sequence[ErrorKind] = tuple(ERRORS)
WORDS: dict[ErrorKind, str] = {
    "erased": "a fifth of it was erased",
    "exchanged": "left and right were exchanged",
    "shifted": "it was moved by 5 mm",
    "island": "an island was added",
}
