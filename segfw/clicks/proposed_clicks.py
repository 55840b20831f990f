"""Where a click on a structure probably pays: places at which the folds of a model disagree. Proposals, never clicks.

A seam of one voxel around a structure is where folds always disagree, and no click mends it: places that are thicker
come first, and seams only where there is nothing else.
"""

# z y x space

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segfw.base.components import connected_components
from segfw.grid.boxes import block_of
from segfw.images.geometry import Spacing

LEAST_SHARE = 0.25  # of the folds that contradict the mask; below it a place is not doubtful
THICK = 2.0  # finest spacings from the border of a doubtful place: what lies so deep is no seam
NEAR_MM = 5.0  # of a structure: farther away, a map of doubt is about other structures
MOST = 10

Bounds = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ProposedClick:
    """The deepest voxel of a doubtful place, the box around it, and whether the structure is probably there.

    ``wrong_mm3`` is how much of the place is wrong if the folds are right as often as they agree.
    """

    point: tuple[int, int, int]
    box: tuple[Bounds, Bounds, Bounds]
    inside: bool
    wrong_mm3: float


def contradiction(fold_masks: Sequence[np.ndarray], present_zyx: np.ndarray) -> np.ndarray:
    """Share of the folds, voxel by voxel, that say the opposite of a mask (booleans of one structure)."""
    share = np.zeros(present_zyx.shape, np.float32)
    for mask in fold_masks:
        share += mask != present_zyx
    return share / max(1, len(fold_masks))


def doubt_near(doubt_zyx: np.ndarray, present_zyx: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """A map of doubt from 0 to 1 as such a share, half of it, in a structure and at most ``NEAR_MM`` around it."""
    from scipy.ndimage import distance_transform_edt

    share = np.zeros(present_zyx.shape, np.float32)
    held = block_of(present_zyx)
    if held is None:
        return share
    reach = [math.ceil(NEAR_MM / edge_mm) for edge_mm in spacing_mm]
    around = tuple(slice(max(0, side.start - voxels), side.stop + voxels) for side, voxels in zip(held, reach))
    is_near = distance_transform_edt(~present_zyx[around], sampling=spacing_mm) <= NEAR_MM
    share[around] = np.where(is_near, doubt_zyx[around] / 2, 0)
    return share


def proposed_clicks(
    share_zyx: np.ndarray, present_zyx: np.ndarray, spacing_mm: Spacing, most: int = MOST
) -> list[ProposedClick]:
    """Places to click at, the largest expected error first.

    Parameters
    ----------
    share_zyx
        How probably each voxel of the mask is wrong, of ``contradiction`` or ``doubt_near``.
    present_zyx
        The mask of the structure, boolean.
    spacing_mm
        Voxel size.
    most
        How many places.
    """
    from scipy.ndimage import distance_transform_edt, find_objects

    is_doubtful = share_zyx >= LEAST_SHARE
    around = block_of(is_doubtful)
    if around is None:
        return []
    is_doubtful = is_doubtful[around]
    share_zyx = share_zyx[around]
    depth_mm = np.asarray(distance_transform_edt(np.pad(is_doubtful, 1), sampling=spacing_mm))[1:-1, 1:-1, 1:-1]
    is_thick = depth_mm >= THICK * min(spacing_mm)
    numbered, _ = connected_components(is_thick if is_thick.any() else is_doubtful)
    found = []
    for number, block in enumerate(find_objects(numbered), start=1):
        is_place = numbered[block] == number
        share = np.where(is_place, share_zyx[block], 0)
        deepest = _deepest(np.where(is_place, depth_mm[block], 0), spacing_mm)
        starts = [side.start + whole.start for side, whole in zip(block, around)]
        z, y, x = (index + start for index, start in zip(deepest, starts))
        first, second, third = ((start, start + size) for start, size in zip(starts, share.shape))
        found.append(
            ProposedClick(
                point=(z, y, x),
                box=(first, second, third),
                inside=not present_zyx[z, y, x],
                wrong_mm3=float(share.sum()) * math.prod(spacing_mm),
            )
        )
    return sorted(found, key=lambda place: -place.wrong_mm3)[:most]


def _deepest(depth_mm: np.ndarray, spacing_mm: Spacing) -> list[int]:
    """The voxel that is farthest from the border; of several such the one nearest to their middle."""
    places = np.argwhere(depth_mm >= depth_mm.max() - 1e-6 * min(spacing_mm))
    from_middle = (places - places.mean(0)) * spacing_mm
    nearest: list[int] = places[int(np.argmin((from_middle**2).sum(1)))].tolist()
    return nearest
