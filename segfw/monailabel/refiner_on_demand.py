"""A refiner that answers the points of a plug-in; it is loaded when it is first asked.

The plug-ins know nothing of an open mask: with every request they send all points of one structure so far, as indexes
of the image's file (x, y, z), and get the whole structure back. So the mask of a case is kept here while points are
added to it, and begun anew where points were removed. It begins with the newest version: what was drawn in the plug-in
and not saved is not known.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.clicks.click import AsksFirst
from segfw.dataset.labels import LabelSet
from segfw.images.formats import read_volume, size_and_change
from segfw.images.geometry import Geometry
from segfw.images.header_only import volume_of_header
from segfw.model.labels_of_path import labels_at
from segfw.monailabel.label_desk import LabelDesk, Unknown
from segfw.monailabel.model_on_demand import Predicted, result_ending, result_file, served_name
from segfw.review_page.click_desk import ClickedCase, ClickRefiner

OVERWRITES = "may_overwrite"  # as the plug-in lists it among the options of the model
MOST_POINTS = 500
FARTHEST = 10**9  # voxels, beyond any image
Index = tuple[int, int, int]


@dataclass(frozen=True)
class Pointed:
    """A point on a structure, as an index (x, y, z) of the image's file, and what the option said when it was sent."""

    label: str
    index_xyz: Index
    inside: bool
    may_overwrite: bool = field(default=False, compare=False)


@dataclass
class _Kept:
    """The case that is open, and the points that were answered."""

    key: object
    opened: ClickedCase
    answered: list[Pointed] = field(default_factory=list)


class RefinerOnDemand:
    """One refiner for all cases of a folder. One request is worked on at a time."""

    def __init__(self, path: Path, device: str) -> None:
        labels_at(path)  # which says what is wrong with a path before anybody asks
        self.path = path
        self.name = f"{served_name(path)}_refiner"
        self._device = device
        self._refiner: ClickRefiner | None = None
        self._kept: _Kept | None = None
        self._alone = threading.Lock()

    @property
    def about(self) -> dict[str, Any]:
        """What the plug-ins show of it. 'deepgrow' is what they call a model that takes points of two kinds; with
        labels of its own they would let it predict without any."""
        return {
            "type": "deepgrow",
            "labels": [],
            "dimension": 3,
            "description": f"points mend a mask: segfw refiner of {self.path.name}",
            "config": {OVERWRITES: False},
        }

    def refine(self, desk: LabelDesk, case: str, params: Mapping[str, Any], folder: Path) -> Predicted:
        """One structure of a case after all points on it, in the format that ``params`` ask for.

        UserError where points are none, lie outside of the image, or in another structure that is protected.
        """
        desk.require_case(case)
        result_ending(params)
        label = _label(desk, params)
        points = _points(params, label)
        client = str(params.get("client_id") or "")
        with self._alone:
            kept = self._opened(desk, case, client)
            others = [each for each in kept.answered if each.label != label]
            before = [each for each in kept.answered if each.label == label]
            if _is_begun_by(points, before):
                waiting = _without(points, before)
            else:  # points were moved or removed
                kept = self._anew(desk, case, kept.key)
                waiting = [*others, *points]
            geometry = _geometry_of(desk.image_file(case).path)
            for point in waiting:
                self._answer(kept, point, geometry)
            mask = kept.opened.mask
        labels = desk.store.labels
        value = labels.values[labels.names.index(label)]
        values = np.where(mask.array[0] == value, value, 0).astype(np.int32)
        served = result_file(values, mask.geometry, params, folder, self.name)
        return Predicted(file=served, label_names={label: value})

    def _answer(self, kept: _Kept, point: Pointed, geometry: Geometry) -> None:
        if not all(0 <= index < size for index, size in zip(point.index_xyz, geometry.shape[::-1])):
            raise UserError(f"the point {point.index_xyz} lies outside of the image; set points inside of it")
        x, y, z = (geometry.matrix @ (*point.index_xyz[::-1], 1.0))[:3].tolist()
        try:
            kept.opened.click(point.label, (x, y, z), point.inside, may_overwrite=point.may_overwrite)
        except AsksFirst as question:
            others = listed(question.others, "and")
            raise UserError(
                f"the point {point.index_xyz} on {point.label} lies in {others}, which is protected; remove the point, "
                f"or set {OVERWRITES} in the options of {self.name}"
            ) from None
        kept.answered.append(point)

    def _opened(self, desk: LabelDesk, case: str, client: str) -> _Kept:
        files = desk.store.image_files(case)
        if not files:
            raise Unknown(f"{case}: its image is not found any more; see segfw status {desk.store.folder}")
        changes = [size_and_change(file) for file in files]
        key = (case, client, desk.store.standing(case).version, *changes)
        if self._kept is not None and self._kept.key == key:
            return self._kept
        return self._anew(desk, case, key)

    def _anew(self, desk: LabelDesk, case: str, key: object) -> _Kept:
        """Opens a case with its newest version."""
        mask = desk.store.read(case)
        kept = self._kept
        if kept is not None and kept.key == key:  # the image is the same: only the points are forgotten
            while kept.answered and kept.opened.undo() is not None:
                kept.answered.pop()
            if not kept.answered:
                kept.opened.set_mask(mask.array[0])
                return kept
        self._kept = None
        if kept is not None:
            kept.opened.close()
        opened = self._loaded().open(desk.store.image_files(case), mask, labels=_one_by_one(desk.store.labels))
        self._kept = _Kept(key, opened)
        return self._kept

    def _loaded(self) -> ClickRefiner:
        if self._refiner is None:
            from segfw.interaction.refiner import Refiner

            self._refiner = Refiner(self.path, device=self._device)
        return self._refiner


def _one_by_one(labels: LabelSet) -> LabelSet:
    """The labels without regions: points are on the labels that the plug-ins list, each of which is one value."""
    if not labels.regions:
        return labels
    return LabelSet(names=labels.names, values=labels.values, ignore=labels.ignore)


def _label(desk: LabelDesk, params: Mapping[str, Any]) -> str:
    """The structure that points are on; older plug-ins do not say it."""
    names = desk.store.labels.names[1:]
    given = params.get("label")
    if given is None and len(names) == 1:
        return names[0]
    if given not in names:
        nameless = "no label says which structure the points are on"
        problem = nameless if given is None else f"label {str(given)[:50]!r} is no label here"
        raise UserError(f"{problem}; send one of {listed(names)}")
    return str(given)


def _points(params: Mapping[str, Any], label: str) -> list[Pointed]:
    """All points of a request, those inside first."""
    found = []
    may_overwrite = params.get(OVERWRITES) is True
    for name, inside in (("foreground", True), ("background", False)):
        given = params.get(name) or []
        if not isinstance(given, list) or not all(map(_is_index, given)):
            raise UserError(f"{name} is no list of points; send indexes of the image such as [[12, 30, 5]]")
        found += [Pointed(label, (each[0], each[1], each[2]), inside, may_overwrite) for each in given]
    if not found:
        raise UserError(f"no point on {label} was sent; set one inside or outside of it first")
    if len(found) > MOST_POINTS:
        raise UserError(f"{len(found)} points on {label} were sent; send at most {MOST_POINTS}")
    return found


def _is_index(given: Any) -> bool:
    is_three = isinstance(given, list) and len(given) == 3
    return is_three and all(type(each) is int and abs(each) <= FARTHEST for each in given)


def _is_begun_by(points: Sequence[Pointed], before: Sequence[Pointed]) -> bool:
    """Whether points are those of before and more: of each kind the first ones."""
    for inside in (True, False):
        old = [each for each in before if each.inside == inside]
        new = [each for each in points if each.inside == inside]
        if new[: len(old)] != old:
            return False
    return True


def _without(points: Sequence[Pointed], before: Sequence[Pointed]) -> list[Pointed]:
    """What is new among points that are those of before and more."""
    found = []
    for inside in (True, False):
        done = sum(each.inside == inside for each in before)
        found += [each for each in points if each.inside == inside][done:]
    return found


def _geometry_of(image: Path) -> Geometry:
    """The grid of an image as its file has it."""
    volume = volume_of_header(image) or read_volume(image)
    return volume.geometry
