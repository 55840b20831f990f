"""Where the network looks: a window of one patch around a click, and further ones where a change runs out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segfw.base.components import connected_components
from segfw.grid.boxes import Block, relative
from segfw.images.geometry import Shape

MOST_WINDOWS = 5  # for a click: one around it, and four further ones
LAYER_SHARE = 8  # the outer eighth of a window, on each side, is its border
LEAST_AT_BORDER = 100  # changed voxels in the border of a side, beyond which a further window is looked at there,
LEAST_SHARE_AT_BORDER = 0.2  # if they are more than this share of the structure in it, before and after

Start = tuple[int, int, int]  # first voxel of a window; below 0 where the image is smaller than it


def window_around(point_zyx: Sequence[float], shape: Shape, patch_size: Shape) -> Start:
    """The window in the image whose middle is nearest to a point; where the image is smaller, evenly around it."""
    starts = []
    for place, size, edge in zip(point_zyx, shape, patch_size):
        if size <= edge:
            starts.append(-((edge - size) // 2))
        else:
            starts.append(min(max(0, round(place) - edge // 2), size - edge))
    z, y, x = starts
    return z, y, x


def inside(start: Start, shape: Shape, patch_size: Shape) -> Block:
    """The part of a window that lies in the image."""
    z, y, x = (slice(max(0, first), min(size, first + edge)) for first, size, edge in zip(start, shape, patch_size))
    return z, y, x


@dataclass(kw_only=True)
class Look:
    """What was found in one or more windows, on the network's grid, of which ``box`` is looked at.

    ``odds`` are above 0 where the structure is found, ``given`` is what it was before, ``core`` the voxels that are no
    border of some window: what is found there stays when a further window is looked at.
    """

    box: Block
    starts: list[Start]
    odds: np.ndarray
    seen: np.ndarray
    core: np.ndarray
    given: np.ndarray
    point_zyx: tuple[float, float, float]
    patch_size: Shape

    @staticmethod
    def around(point_zyx: tuple[float, float, float], shape: Shape, patch_size: Shape) -> Look:
        """Nothing found yet. Memory is taken where windows are, and not for all of the grid."""
        return Look(
            box=inside(window_around(point_zyx, shape, patch_size), shape, patch_size),
            starts=[],
            odds=np.zeros(shape, np.float32),
            seen=np.zeros(shape, bool),
            core=np.zeros(shape, bool),
            given=np.zeros(shape, bool),
            point_zyx=point_zyx,
            patch_size=patch_size,
        )

    @property
    def shape(self) -> Shape:
        """Voxels of the network's grid."""
        z, y, x = self.seen.shape
        return z, y, x

    def current(self, block: Block, given_zyx: np.ndarray) -> np.ndarray:
        """The structure in a block as it is by now: what was found, and elsewhere what was ``given_zyx``."""
        return np.where(self.seen[block], self.odds[block] > 0, given_zyx)

    def take(self, start: Start, odds_zyx: np.ndarray, given_zyx: np.ndarray) -> None:
        """Keeps what was found in a window, inside the image, where no earlier one decided."""
        block = inside(start, self.shape, self.patch_size)
        is_new = ~self.core[block]
        self.odds[block][is_new] = odds_zyx[is_new]
        self.given[block][~self.seen[block]] = given_zyx[~self.seen[block]]
        self.seen[block] = True
        self.core[self._core_of(block)] = True
        self.starts.append(start)
        z, y, x = (slice(min(old.start, new.start), max(old.stop, new.stop)) for old, new in zip(self.box, block))
        self.box = (z, y, x)

    def _core_of(self, block: Block) -> Block:
        """A window without its borders, but for sides where the image ends."""
        parts = []
        for part, size, edge in zip(block, self.shape, self.patch_size):
            layer = edge // LAYER_SHARE
            start = part.start + layer if part.start > 0 else part.start
            stop = part.stop - layer if part.stop < size else part.stop
            parts.append(slice(start, stop))
        z, y, x = parts
        return z, y, x

    @property
    def changed(self) -> np.ndarray:
        """In ``box``: where what was found differs from what was given."""
        return self.seen[self.box] & ((self.odds[self.box] > 0) != self.given[self.box])

    def changed_box(self) -> Block | None:
        """The smallest block of the grid that holds all of the change; None if nothing changed."""
        found = ndimage.find_objects(self.changed.astype(np.uint8))
        if not found:
            return None
        z, y, x = (slice(part.start + whole.start, part.stop + whole.start) for part, whole in zip(found[0], self.box))
        return z, y, x

    def next_start(self) -> Start | None:
        """A further window for a change that runs out of those before; None if it does not."""
        if len(self.starts) >= MOST_WINDOWS:
            return None
        is_open = ~self.core[self.box]
        changed = self._changed_at_click() & is_open
        structure = ((self.odds[self.box] > 0) | self.given[self.box]) & is_open
        most = LEAST_AT_BORDER
        middle = None
        for border in self._borders():
            place = relative(border, self.box)
            number = int(np.count_nonzero(changed[place]))
            if number > most and number > LEAST_SHARE_AT_BORDER * np.count_nonzero(structure[place]):
                most = number
                middle = np.argwhere(changed[place]).mean(0) + [part.start for part in border]
        if middle is None:
            return None
        start = window_around(middle.tolist(), self.shape, self.patch_size)
        return None if start in self.starts else start

    def _changed_at_click(self) -> np.ndarray:
        """Of the change, the parts that reach the click, by a voxel."""
        components, _ = connected_components(self.changed)
        place = [round(each) - part.start for each, part in zip(self.point_zyx, self.box)]
        near = tuple(slice(max(0, index - 1), max(0, index + 2)) for index in place)
        reached = np.unique(components[near])
        return np.isin(components, reached[reached > 0])

    def _borders(self) -> list[Block]:
        """The borders of all windows, a block for each side that has one."""
        found: list[Block] = []
        for start in self.starts:
            block = inside(start, self.shape, self.patch_size)
            for axis, (part, kept) in enumerate(zip(block, self._core_of(block))):
                for layer in (slice(part.start, kept.start), slice(kept.stop, part.stop)):
                    if layer.start < layer.stop:
                        z, y, x = (layer if along == axis else whole for along, whole in enumerate(block))
                        found.append((z, y, x))
        return found


def within(block: Block, start: Start) -> Block:
    """A block of the grid as counted from the first voxel of a window."""
    z, y, x = start
    return relative(block, (slice(z, z), slice(y, y), slice(x, x)))
