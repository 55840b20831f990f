"""Clicks that are simulated: drawn where a given mask differs from the wanted one, for training and for measurements.

No person made them. A click of a person knows less than these do: it is not drawn by the size of an error, and nobody
sees every error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segfw.base.components import connected_components
from segfw.grid.boxes import block_of
from segfw.images.geometry import Spacing
from segfw.images.named_mask import Box

Point = tuple[int, int, int]  # voxel (z, y, x)
SimulatedClick = tuple[Point, bool]  # where, and whether it says that the structure is there

MISSED_SHARE = 0.05  # people miss: so many clicks lie beside the error that they mean
MISSED_BY = 2  # voxels off the error, at most
JITTER = 1  # voxel along each axis
SHALLOWEST = 0.1  # a click lies at least so deep, as a share of the error's greatest depth


@dataclass(frozen=True)
class ErrorComponent:
    """A connected part of the structure that the given mask lacks, or that it has too much of."""

    box: Box
    mask_zyx: np.ndarray  # boolean, in the box
    is_missing: bool
    spacing_mm: Spacing | None  # None: depths are counted in voxels, eight times as fast

    @cached_property
    def voxels(self) -> int:
        """Its size."""
        return int(np.count_nonzero(self.mask_zyx))

    @cached_property
    def depth_zyx(self) -> np.ndarray:
        """Distance of each of its voxels to the nearest voxel outside it, 0 outside; beyond the image is outside."""
        from scipy.ndimage import distance_transform_cdt, distance_transform_edt

        padded = np.pad(self.mask_zyx, 1)
        if self.spacing_mm is None:
            depth = distance_transform_cdt(padded, metric="chessboard")
        else:
            depth = distance_transform_edt(padded, sampling=self.spacing_mm)
        return np.asarray(depth)[1:-1, 1:-1, 1:-1]

    def holds(self, point: Point) -> bool:
        """Whether a voxel of the image is one of its own."""
        if any(not side.start <= at < side.stop for at, side in zip(point, self.box, strict=True)):
            return False
        return bool(self.mask_zyx[self.in_box(point)])

    def in_box(self, point: Point) -> Point:
        """A voxel of the image, counted from the box's first voxel."""
        z, y, x = (at - side.start for at, side in zip(point, self.box, strict=True))
        return z, y, x

    def in_image(self, index: int, shape_zyx: tuple[int, ...]) -> Point:
        """A place in a flattened box of this shape, as a voxel of the image; inverse of ``in_box``."""
        place = np.unravel_index(index, shape_zyx)
        z, y, x = (int(at) + side.start for at, side in zip(place, self.box, strict=True))
        return z, y, x


def error_components(
    given_zyx: np.ndarray, wanted_zyx: np.ndarray, spacing_mm: Spacing | None = None
) -> list[ErrorComponent]:
    """Every connected error of a given mask, the largest first; of equals, what is missing first.

    Parameters
    ----------
    given_zyx, wanted_zyx
        Boolean masks of one structure.
    spacing_mm
        Unit of the components' depths; without it they are counted in voxels, along the longest axis.
    """
    box = block_of(given_zyx != wanted_zyx)
    if box is None:
        return []
    given_zyx = given_zyx[box].astype(bool)
    wanted_zyx = wanted_zyx[box].astype(bool)
    found = [
        *_components(wanted_zyx & ~given_zyx, box, is_missing=True, spacing_mm=spacing_mm),
        *_components(given_zyx & ~wanted_zyx, box, is_missing=False, spacing_mm=spacing_mm),
    ]
    return sorted(found, key=lambda component: -component.voxels)  # stable


def _components(
    mask_zyx: np.ndarray, box: Box, *, is_missing: bool, spacing_mm: Spacing | None
) -> list[ErrorComponent]:
    from scipy.ndimage import find_objects

    numbers_zyx, _ = connected_components(mask_zyx)
    found = []
    for number, inner in enumerate(find_objects(numbers_zyx), 1):
        z, y, x = (_moved(part, whole.start) for part, whole in zip(inner, box, strict=True))
        found.append(ErrorComponent((z, y, x), numbers_zyx[inner] == number, is_missing, spacing_mm))
    return found


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def draw_training_clicks(
    rng: np.random.Generator, given_zyx: np.ndarray, wanted_zyx: np.ndarray, k: int
) -> list[SimulatedClick]:
    """Simulated clicks for one training sample: ``k`` of them, or none where the given mask is right already.

    Each lies in an error that is drawn by size, as ``peoplelike_click`` does it, with depths in voxels.
    """
    components = error_components(given_zyx, wanted_zyx)
    if not components:
        return []
    return [_drawn_click(rng, components, given_zyx.shape) for _ in range(k)]


def deepest_click(given_zyx: np.ndarray, wanted_zyx: np.ndarray, spacing_mm: Spacing) -> SimulatedClick | None:
    """The simulated click at the deepest point of the largest error; None where the given mask is right already."""
    components = error_components(given_zyx, wanted_zyx, spacing_mm)
    if not components:
        return None
    largest = components[0]
    depth_zyx = largest.depth_zyx
    deepest = np.argwhere(depth_zyx == depth_zyx.max())
    # Where several are as deep, the one in their middle: the first would lie at one end of a long error.
    off_mm = np.linalg.norm((deepest - deepest.mean(0)) * spacing_mm, axis=1)
    place = np.ravel_multi_index(tuple(deepest[off_mm.argmin()]), depth_zyx.shape)
    return largest.in_image(int(place), depth_zyx.shape), largest.is_missing


def peoplelike_click(
    rng: np.random.Generator, given_zyx: np.ndarray, wanted_zyx: np.ndarray, spacing_mm: Spacing
) -> SimulatedClick | None:
    """A simulated click somewhere in an error that is drawn by size; None where the given mask is right already.

    It lies at least a drawn share, 0.1 to 1, of the error's greatest depth inside, moved by up to one voxel along each
    axis where that stays in the error. Five of a hundred miss the error by up to two voxels.
    """
    components = error_components(given_zyx, wanted_zyx, spacing_mm)
    if not components:
        return None
    return _drawn_click(rng, components, given_zyx.shape)


def _drawn_click(
    rng: np.random.Generator, components: Sequence[ErrorComponent], shape_zyx: tuple[int, ...]
) -> SimulatedClick:
    sizes = np.array([component.voxels for component in components], float)
    component = components[int(rng.choice(len(components), p=sizes / sizes.sum()))]
    depth_zyx = component.depth_zyx
    lowest = rng.uniform(SHALLOWEST, 1) * depth_zyx.max()
    # Above 0 as well, because the rest of the box is at depth 0.
    deep_enough = np.flatnonzero((depth_zyx >= lowest) & component.mask_zyx)
    aimed = component.in_image(int(rng.choice(deep_enough)), depth_zyx.shape)
    if rng.random() < MISSED_SHARE:
        return _missed(rng, component, aimed, shape_zyx), component.is_missing
    z, y, x = (at + int(by) for at, by in zip(aimed, rng.integers(-JITTER, JITTER + 1, 3), strict=True))
    return ((z, y, x) if component.holds((z, y, x)) else aimed), component.is_missing


def _missed(rng: np.random.Generator, component: ErrorComponent, aimed: Point, shape_zyx: tuple[int, ...]) -> Point:
    """A voxel of the image beside the component, up to two voxels off; where there is none, what was aimed at."""
    from scipy.ndimage import distance_transform_cdt

    padded = np.pad(component.mask_zyx, MISSED_BY)
    off_zyx = distance_transform_cdt(~padded, metric="chessboard")
    beside = np.argwhere((off_zyx > 0) & (off_zyx <= MISSED_BY))
    first = [side.start - MISSED_BY for side in component.box]
    beside = beside + first
    beside = beside[((beside >= 0) & (beside < shape_zyx)).all(1)]
    if not len(beside):
        return aimed
    z, y, x = (int(at) for at in beside[rng.integers(len(beside))])
    return z, y, x
