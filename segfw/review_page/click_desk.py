"""Clicks on a mask that is open on the page: a refiner is asked, and what it would change goes back. Nothing is stored.

The page alone knows what is drawn and not saved yet, so it sends the whole bitmap with every click, and undoes a click
by its own history. It says which click is the last one that stands, so that the refiner forgets those that were undone.
The refiner itself is made elsewhere, because it needs PyTorch and the page does not.
"""

# z y x space, but for what the page calls xyz

from __future__ import annotations

import base64
import gzip
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segfw.base.errors import UserError
from segfw.clicks.click import AsksFirst
from segfw.dataset.labels import LabelSet
from segfw.grid.boxes import Box, cut, nonzero_box
from segfw.images.volume import Volume
from segfw.review_page.case_payload import box_xyz
from segfw.review_page.label_palette import LabelPalette
from segfw.review_page.served_grid import ServedGrid

LEVEL = 1  # of gzip: the computer is the same


class ClickChange(Protocol):
    """What a click changed."""

    @property
    def box(self) -> Box:
        """Of the file's grid: first voxel and the one behind the last; nothing lies in it where nothing changed."""

    @property
    def values(self) -> np.ndarray:
        """The mask there now, (Z, Y, X)."""

    @property
    def seconds(self) -> float:
        """How long it took."""


class ClickedCase(Protocol):
    """An image that the refiner has read, with a mask that clicks change."""

    @property
    def mask(self) -> Volume:
        """As it is now, in the order of its file."""

    def set_mask(self, values_zyx: np.ndarray, box: Box | None = None) -> None:
        """Takes what was drawn elsewhere."""

    def click(
        self, label: str, ras_mm: tuple[float, float, float], inside: bool = True, *, may_overwrite: bool = False
    ) -> ClickChange:
        """What a click makes of the mask; AsksFirst where it lies in another structure."""

    def undo(self) -> ClickChange | None:
        """Forgets the last click; None if there is none that it remembers enough of."""

    def forget(self) -> None:
        """Forgets the last click and leaves the mask as it is."""

    def close(self) -> None:
        """Frees its memory."""


class ClickRefiner(Protocol):
    """A network that mends masks by clicks."""

    @property
    def digest(self) -> str:
        """Of its weights."""

    def open(self, image: Sequence[Path], mask: Volume, *, labels: LabelSet) -> ClickedCase:
        """Reads an image, one file a channel; ``labels`` are those of the mask's values."""


@dataclass(frozen=True, kw_only=True)
class PageClick:
    """A click on a structure, at a voxel of the served grid, and what may be done for it.

    ``after`` is the number of the last click on this case that was not undone, 0 where there is none.
    """

    structure: str
    at_xyz: tuple[int, int, int]
    is_inside: bool
    may_overwrite: bool
    after: int = 0

    def ras_mm(self, grid: ServedGrid) -> tuple[float, float, float]:
        """Where it lies in the patient; UserError if that is outside of what is served."""
        place = self.at_xyz[::-1]
        if not all(0 <= index < size for index, size in zip(place, grid.shape)):
            raise UserError(f"the click at voxel {self.at_xyz} lies outside of the image; click inside of it")
        x, y, z = (grid.geometry.matrix @ (*place, 1.0))[:3].tolist()
        return x, y, z


@dataclass(frozen=True, kw_only=True)
class CaseToClick:
    """A case as the page has it now: ``indexes_zyx`` on ``grid`` in a ``group``, drawn on the version ``base``.

    ``key`` changes when the image or its grid does.
    """

    key: object
    image_files: tuple[Path, ...]
    version: int
    base: Volume
    indexes_zyx: np.ndarray
    grid: ServedGrid
    group: int


class ClickDesk:
    """One refiner for all tabs. One click is worked on at a time, and the image of the last case is kept."""

    def __init__(self, refiner: ClickRefiner, labels: LabelSet, palette: LabelPalette) -> None:
        self.refiner = refiner
        self._labels = labels
        self._palette = palette
        self._kept: _Kept | None = None
        self._last_number = 0
        self._lock = threading.Lock()

    def click(self, case: CaseToClick, click: PageClick) -> dict[str, Any]:
        """What the page puts into its bitmap, or a question; others wait meanwhile."""
        place_mm = click.ras_mm(case.grid)
        with self._lock:
            kept = self._opened(case, click.after)
            kept.take(case)
            try:
                change = kept.opened.click(
                    click.structure, place_mm, click.is_inside, may_overwrite=click.may_overwrite
                )
            except AsksFirst as question:
                return {"asked": str(question)}
            self._last_number += 1
            number = self._last_number
            kept.numbers.append(number)
            sent = kept.changed(change, case)
        return {"asked": None, "click": number, "seconds": round(change.seconds, 2), **sent}

    def _opened(self, case: CaseToClick, after: int) -> _Kept:
        kept = self._kept
        if kept is not None and kept.key == case.key:
            kept.take_back_to(after)
            return kept
        self._kept = None
        if kept is not None:
            kept.opened.close()  # before the next one is read
        opened = self.refiner.open(case.image_files, case.base, labels=self._labels)
        self._kept = _Kept(case.key, opened, self._palette)
        self._kept.begin(case)
        return self._kept


class _Kept:
    """The case that is open in the refiner, the numbers of the clicks that it remembers, and what it was told is drawn.

    Of a large mask very little changes from click to click: only the box in which the bitmap differs from what the
    refiner has is handed on.
    """

    def __init__(self, key: object, opened: ClickedCase, palette: LabelPalette) -> None:
        self.key = key
        self.opened = opened
        self.numbers: list[int] = []
        self._palette = palette
        self._drawn_on: object = None
        self._grid: ServedGrid | None = None
        self._group = 0
        self._indexes_zyx = np.zeros((0, 0, 0), np.uint8)

    def take_back_to(self, number: int) -> None:
        """Forgets all clicks after that one, or all where it is not among them."""
        while self.numbers and self.numbers[-1] != number:
            self.numbers.pop()
            change = self.opened.undo()
            if change is not None:
                self._note(change)
            else:  # a long history: what that click changed is not known any more, so all that is drawn is told anew
                self.opened.forget()
                self._drawn_on = None

    def begin(self, case: CaseToClick) -> None:
        """The refiner has the version that is drawn on."""
        self._indexes_zyx = self._palette.to_indexes(case.grid.cut_out(case.base.array[0]), case.group)
        self._drawn_on = self._ground(case)
        self._grid = case.grid
        self._group = case.group

    def take(self, case: CaseToClick) -> None:
        """Tells the refiner what is drawn."""
        if self._drawn_on != self._ground(case):
            self.opened.set_mask(case.base.array[0])
            self.begin(case)
        differs = case.indexes_zyx != self._indexes_zyx
        if differs.any():
            box = nonzero_box(differs[None])
            self.opened.set_mask(self._values(case, box), case.grid.file_box(box))
        self._indexes_zyx = case.indexes_zyx.copy()

    def _values(self, case: CaseToClick, box: Box) -> np.ndarray:
        """What is drawn in a box of the served grid, in the order of the file."""
        starts = [first for first, _ in case.grid.box]
        z, y, x = ((low + start, high + start) for (low, high), start in zip(box, starts))
        before = ServedGrid(case.grid.file, (z, y, x)).cut_out(case.base.array[0])
        drawn = self._palette.to_values(cut(case.indexes_zyx, box), before, case.group)
        return case.grid.in_file_order(drawn)

    def _ground(self, case: CaseToClick) -> object:
        """What a bitmap leaves open: where it lies, and the version where that has more than the bitmap shows."""
        is_all = case.grid.is_whole and self._palette.groups == 1
        return (case.grid.box, case.group, None if is_all else case.version)

    def changed(self, change: ClickChange, case: CaseToClick) -> dict[str, Any]:
        """The box and what is in it as the page has them. What lies outside of the served part is told alone."""
        is_cut = self._note(change)
        box = case.grid.of_file_box(change.box) if change.values.size else None
        if box is None:
            return {"box_xyz": None, "values": "", "is_cut": is_cut}
        packed = gzip.compress(cut(self._indexes_zyx, box).tobytes(), LEVEL, mtime=0)
        return {"box_xyz": box_xyz(box), "values": base64.b64encode(packed).decode("ascii"), "is_cut": is_cut}

    def _note(self, change: ClickChange) -> bool:
        """Keeps what the refiner has changed; whether some of it lies outside of what is served."""
        if self._grid is None or not change.values.size:
            return False
        shown = self._grid.part_of_file_box(change.values, change.box)
        is_cut = shown.size < change.values.size
        if is_cut:
            self._drawn_on = None  # the refiner has more than the page: next time it is told all
        box = self._grid.of_file_box(change.box)
        if box is not None:
            cut(self._indexes_zyx, box)[...] = self._palette.to_indexes(shown, self._group)
        return is_cut
