"""A refiner that is planted: it answers each click with a ball, so that a human can count what a click changes.

Run as a program it is ``segfw review`` with such a refiner, in a process of its own: ``python -m
builders.planted_refiner FOLDER --user NAME``. With ``--slow-until FILE`` it answers once that file is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from builders.waiting import wait_until
from segfw.base.errors import UserError
from segfw.clicks.click import AsksFirst
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.grid.boxes import Box
from segfw.images.formats import read_volume
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume

RADIUS_MM = 4.0
DIGEST = "5e" * 32
TOO_DARK = -900.0  # an image with nothing brighter is of no modality that it knows


@dataclass(frozen=True)
class BallChange:
    """What a click changed."""

    box: Box
    values: np.ndarray
    seconds: float = 0.25


NOTHING = BallChange(((0, 0), (0, 0), (0, 0)), np.zeros((0, 0, 0), np.uint8))


def ball(geometry: Geometry, ras_mm: Sequence[float]) -> np.ndarray:
    """Voxels whose centres are at most RADIUS_MM away."""
    index = np.indices(geometry.shape).reshape(3, -1)
    place = geometry.matrix[:3, :3] @ index + geometry.matrix[:3, 3:]
    away = np.linalg.norm(place - np.asarray(ras_mm)[:, None], axis=0)
    return (away <= RADIUS_MM + 1e-6).reshape(geometry.shape)


@dataclass
class BallCase:
    """A mask that clicks put balls on."""

    labels: LabelSet
    mask: Volume
    slow_until: Path | None = None
    told: list[int] = field(default_factory=list)  # how many voxels with each set_mask
    remembered: list[tuple[str, bool]] = field(default_factory=list)
    before_after: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    most_undone: int = 100
    is_closed: bool = False

    def set_mask(self, values_zyx: np.ndarray, box: Box | None = None) -> None:
        whole = self.mask.array[0].copy()
        z, y, x = box or tuple((0, size) for size in whole.shape)
        whole[slice(*z), slice(*y), slice(*x)] = values_zyx
        self.mask = replace(self.mask, array=whole[None])
        self.told.append(values_zyx.size)

    def undo(self) -> BallChange | None:
        if not self.remembered or self.most_undone == 0:
            return None
        self.most_undone -= 1
        self.remembered.pop()
        before, after = self.before_after.pop()
        now = self.mask.array[0]
        return self._changed(np.where((before != after) & (now == after), before, now))

    def forget(self) -> None:
        self.remembered.pop()
        self.before_after.pop()

    def close(self) -> None:
        self.is_closed = True

    def click(
        self, label: str, ras_mm: Sequence[float], inside: bool = True, *, may_overwrite: bool = False
    ) -> BallChange:
        if self.slow_until is not None:
            wait_until(self.slow_until.exists)
        assert not self.is_closed
        values = self.mask.array[0]
        own = self.labels.values[self.labels.foreground[label]]
        is_ball = ball(self.mask.geometry, ras_mm)
        inverse = np.linalg.inv(self.mask.geometry.matrix)
        at = tuple(np.round(inverse[:3, :3] @ np.asarray(ras_mm) + inverse[:3, 3]).astype(int))
        if values[at] not in (0, own) and inside and not may_overwrite:
            other = self.labels.names[self.labels.values.index(values[at])]
            raise AsksFirst(f"the click lies in {other}; say whether it may be overwritten", [other])
        after = values.copy()
        if inside:
            after[is_ball & ((values == 0) | may_overwrite)] = own
        else:
            after[is_ball & (values == own)] = 0
        self.remembered.append((label, inside))
        self.before_after.append((values, after))
        return self._changed(after)

    def _changed(self, after: np.ndarray) -> BallChange:
        """Takes other values, and says in which box they are other ones."""
        places = np.argwhere(after != self.mask.array[0])
        self.mask = replace(self.mask, array=after[None])
        if not len(places):
            return NOTHING
        z, y, x = ((int(low), int(high) + 1) for low, high in zip(places.min(0), places.max(0)))
        return BallChange((z, y, x), after[slice(*z), slice(*y), slice(*x)])


@dataclass
class BallRefiner:
    """Opens cases of one folder."""

    labels: LabelSet
    slow_until: Path | None = None
    digest: str = DIGEST
    opened: list[tuple[str, ...]] = field(default_factory=list)
    cases: list[BallCase] = field(default_factory=list)

    def open(self, image: Sequence[Path], mask: Volume, *, labels: LabelSet) -> BallCase:
        assert labels == self.labels
        images = [read_volume(Path(file)) for file in image]
        if float(images[0].array.max()) <= TOO_DARK:
            raise UserError(f"{image[0]}: is no image for this refiner; give one of the modality it was trained on")
        self.opened.append(tuple(Path(file).name for file in image))
        self.cases.append(BallCase(self.labels, mask, self.slow_until))
        return self.cases[-1]


def main() -> None:
    """Serves a folder with a planted refiner."""
    from segfw.review_page.review_desk import ReviewDesk, Seat
    from segfw.review_page.serve_review import bound_socket, serve_review
    from segfw.reviewing.people import Person
    from segfw.reviewing.review_store import ReviewStore

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--user", default="Anna")
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--slow-until", type=Path)
    parser.add_argument("--largest-whole", type=int, default=30_000_000)
    parser.add_argument("--blind", action="store_true")
    asked = parser.parse_args()
    refiner = BallRefiner(LabelSet.load(asked.folder / LABELS_FILE), asked.slow_until)
    seat = Seat(person=Person.named(asked.user), is_blind=asked.blind)
    store = ReviewStore.open(asked.folder)
    desk = ReviewDesk(store, seat, largest_whole=asked.largest_whole, refiner=refiner)
    serve_review(desk, bound_socket(0), lambda address: print(f"open {address}", flush=True))


if __name__ == "__main__":
    main()
