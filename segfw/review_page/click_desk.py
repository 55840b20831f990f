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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segfw.base.errors import UserError
from segfw.clicks.click import AsksFirst
from segfw.dataset.labels import LabelSet
from segfw.grid.boxes import Box, cut
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
    """A case as the page has it now. ``key`` changes when the image or its grid does."""

    key: object
    image_files: tuple[Path, ...]
    mask: Volume  # with what was drawn and is not saved yet
    grid: ServedGrid
    group: int


@dataclass(frozen=True)
class _Kept:
    """The case that is open in the refiner, and the numbers of the clicks that it remembers."""

    key: object
    opened: ClickedCase
    numbers: list[int] = field(default_factory=list)

    def is_taken_back_to(self, number: int) -> bool:
        """Forgets all clicks after that one, or all where it is not among them; False if some cannot be forgotten."""
        while self.numbers and self.numbers[-1] != number:
            if self.opened.undo() is None:
                return False
            self.numbers.pop()
        return True


class ClickDesk:
    """One refiner for all tabs. One click is worked on at a time, and the image of the last case is kept."""

    def __init__(self, refiner: ClickRefiner, labels: LabelSet) -> None:
        self.refiner = refiner
        self._labels = labels
        self._kept: _Kept | None = None
        self._last_number = 0
        self._lock = threading.Lock()

    def click(self, case: CaseToClick, click: PageClick, palette: LabelPalette) -> dict[str, Any]:
        """What the page puts into its bitmap, or a question; others wait meanwhile."""
        place_mm = click.ras_mm(case.grid)
        with self._lock:
            kept = self._opened(case, click.after)
            kept.opened.set_mask(case.mask.array[0])
            try:
                change = kept.opened.click(
                    click.structure, place_mm, click.is_inside, may_overwrite=click.may_overwrite
                )
            except AsksFirst as question:
                return {"asked": str(question)}
            self._last_number += 1
            number = self._last_number
            kept.numbers.append(number)
        seconds = round(change.seconds, 2)
        return {"asked": None, "click": number, "seconds": seconds, **_sent(change, case, palette)}

    def _opened(self, case: CaseToClick, after: int) -> _Kept:
        kept = self._kept
        if kept is not None and kept.key == case.key and kept.is_taken_back_to(after):
            return kept
        self._kept = None
        if kept is not None:
            kept.opened.close()  # before the next one is read
        opened = self.refiner.open(case.image_files, case.mask, labels=self._labels)
        self._kept = _Kept(case.key, opened)
        return self._kept


def _sent(change: ClickChange, case: CaseToClick, palette: LabelPalette) -> dict[str, Any]:
    """The box and what is in it as the page has them. What lies outside of the served part is not sent, but told."""
    nothing = {"box_xyz": None, "values": ""}
    if not change.values.size:
        return {**nothing, "is_cut": False}
    changed = change.values != cut(case.mask.array[0], change.box)
    shown = case.grid.part_of_file_box(changed, change.box)
    is_cut = int(shown.sum()) < int(changed.sum())
    box = case.grid.of_file_box(change.box)
    if box is None:
        return {**nothing, "is_cut": is_cut}
    values = case.grid.part_of_file_box(change.values, change.box)
    packed = gzip.compress(palette.to_indexes(values, case.group).tobytes(), LEVEL)
    return {"box_xyz": box_xyz(box), "values": base64.b64encode(packed).decode("ascii"), "is_cut": is_cut}
