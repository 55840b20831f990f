"""A refiner, and masks that are open to be corrected by clicks.

The network of ``3d_refine`` sees a window of the image around a click, one structure of the mask as it is, all others,
and the clicks on that structure. What it answers comes back to the grid of the mask's file, and the rules of
``click_rules.py`` decide what of it is done. The image is brought to the network's grid once, when a case is opened, so
that a click costs one window.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from segfw.base.device import keep_freed_pages, pick_device, pick_precision, tune_convolutions
from segfw.base.options import named_by_keyword
from segfw.base.records import UserError
from segfw.base.words import count
from segfw.clicks.click import Click, Point, click_of, point_of
from segfw.clicks.click_files import label_called
from segfw.clicks.click_maps import refiner_channels
from segfw.dataset.labels import LabelSet
from segfw.dataset.verify import volume_mismatch
from segfw.evaluation.masks import read_stored_mask
from segfw.grid.boxes import Box, cut
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import Preprocessing, PreprocessRecord, preprocess_image
from segfw.images.geometry import Geometry, Shape
from segfw.images.values import as_integers, count_values
from segfw.images.volume import Volume, stored_like
from segfw.inference.image_types import mask_volume, open_image
from segfw.inference.mask_settings import weights_digest
from segfw.inference.ready_networks import ready_networks
from segfw.interaction.click_rules import Index, PlacedClick, require_asked, ruled, thin_axes
from segfw.interaction.click_windows import Look, Start, inside, window_around, within
from segfw.interaction.mask_names import labels_of_mask, with_values
from segfw.interaction.other_modality import other_modality
from segfw.interaction.refine_options import RefineOptions
from segfw.interaction.two_grids import TwoGrids, VoxelPoint
from segfw.interaction.undo_stack import Step, UndoStack
from segfw.interaction.value_effects import ValueEffects, effects_of, foreground_values, structures_by_value
from segfw.interaction.window_networks import WindowNetworks
from segfw.model.load import Model, load_refiner
from segfw.networks import BuildNetwork, build_network

NOTHING: Box = ((0, 0), (0, 0), (0, 0))
HALF = 0.5  # of a voxel of the network's grid, from which it counts as the structure


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a click, or its undoing, did to a mask.

    ``box`` is in the order of the mask's own file (z, y, x): first voxel and the one behind the last. ``values`` are
    the mask's in it, after the change. ``gained`` and ``lost`` count voxels by label or region; ``windows`` is how
    often the network looked.
    """

    box: Box
    values: np.ndarray
    gained: Mapping[str, int]
    lost: Mapping[str, int]
    seconds: float
    windows: int = 0

    @property
    def changed(self) -> dict[str, int]:
        """Voxels that came to or went from each label or region, of those that changed."""
        names = dict.fromkeys((*self.gained, *self.lost))
        return {name: self.gained.get(name, 0) + self.lost.get(name, 0) for name in names}


class Refiner:
    """A refining model in memory, for any number of masks; threads may share it."""

    def __init__(
        self,
        model: str | Path | Model,
        *,
        folds: Sequence[str | int] | None = None,
        device: str = "auto",
        precision: str = "auto",
        build: BuildNetwork | None = None,
    ) -> None:
        """Loads the networks.

        Parameters
        ----------
        model
            A work folder or model file with a trained ``3d_refine``, or what ``load_refiner`` gave.
        folds
            Of a folder or file, those that are averaged; by default all that are trained. Each takes its time.
        device, precision
            As for ``Predictor.of``.
        build
            Makes a network of a plan's ``NetworkSpec``; for architectures of one's own.

        Raises
        ------
        UserError
            If there is no trained refiner, or the device does not exist.
        """
        if not isinstance(model, Model):
            model = load_refiner(model, folds)
        picked = pick_device(device)
        arithmetic = pick_precision(precision, picked, as_nnunet=model.plan.is_imported)
        keep_freed_pages()
        tune_convolutions(picked)
        self.model = model
        self._networks = WindowNetworks(
            networks=ready_networks(model, picked, arithmetic, build or build_network, use_compiler=False),
            patch_size=model.configuration.patch_size,
            device=picked,
            precision=arithmetic,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights of all folds."""
        return weights_digest([replace(self.model, previous=None)])

    @property
    def labels(self) -> LabelSet:
        """Those of the data set that the model was trained on."""
        return self.model.plan.labels

    def open(
        self,
        image: Any,
        mask: Any = None,
        *,
        labels: LabelSet | None = None,
        label_names: Path | None = None,
    ) -> OpenCase:
        """Opens an image and its mask.

        Parameters
        ----------
        image
            A path, a list of paths (one per channel), a ``Volume``, or what else ``Predictor`` takes.
        mask
            A file, a ``Volume``, an image of SimpleITK or nibabel, or None for an empty one. None of them is ever
            changed.
        labels
            What its values are. By default as ``label_names`` says, a table; or the names in the mask itself;
            labels.json, dataset.json or a table beside it; or the model's.
        label_names
            A table of names.

        Returns
        -------
        OpenCase
            To be closed when it is no longer needed.

        Raises
        ------
        UserError
            If the image has not the refiner's channels, a file cannot be read, mask and image are on two grids, or the
            mask is of no such kind.
        """
        volume, _ = open_image(image)
        self._require_channels(volume, image)
        stored, known = self._mask(mask, volume, labels, label_names)
        difference = volume_mismatch(volume, stored)
        if difference:
            called = mask if isinstance(mask, str | Path) else "the mask"
            raise UserError(f"{called}: lies on another grid than the image ({difference}); resample it to the image")
        prepared, record = preprocess_image(volume, self._preprocessing_of(volume), in_half=True)
        return OpenCase(self, prepared, record, volume, stored, known)

    def _preprocessing_of(self, volume: Volume) -> Preprocessing:
        preprocessing = self.model.configuration.preprocessing
        # There is nothing to measure inside the mask of an image that is 0 everywhere.
        if any(rule.inside_mask for rule in preprocessing.normalization) and not volume.array.any():
            unchanged = (Normalization(kind="none"),) * len(preprocessing.normalization)
            return preprocessing.model_copy(update={"normalization": unchanged})
        return preprocessing

    def _require_channels(self, volume: Volume, image: Any) -> None:
        """UserError if an image has other channels, or is plainly of another modality."""
        channels = self.model.plan.channels
        found = volume.array.shape[0]
        if found != len(channels):
            names = ", ".join(channel.name for channel in channels)
            raise UserError(
                f"{_called(image)} has {count(found, 'channel')}, but the refiner was trained on {len(channels)} "
                f"({names}); give these, in this order"
            )
        problem = other_modality(volume.array, channels, self.model.configuration.preprocessing.normalization)
        if problem:
            raise UserError(f"{_called(image)} {problem}")

    def _mask(
        self, mask: Any, image: Volume, labels: LabelSet | None, label_names: Path | None
    ) -> tuple[Volume, LabelSet]:
        """The mask as stored, and its labels, one for each of its values."""
        if mask is None:
            empty = np.zeros((1, *image.geometry.shape), np.uint8)
            return replace(image, array=empty, notes=()), labels or self.labels
        if not isinstance(mask, str | Path):
            stored = mask_volume(mask)
            known = labels or self.labels
            called = "the mask"
            if stored.array.shape[0] != 1:
                raise UserError(f"{called}: has {count(stored.array.shape[0], 'channel')}; give one, of whole numbers")
        else:
            path = Path(mask)
            called = str(path)
            known = labels or labels_of_mask(path, self.labels, label_names)[0]
            stored = read_stored_mask(path, known, image)
        try:
            values = as_integers(stored.array[0])
        except ValueError as error:
            raise UserError(f"{called}: {error}; give a mask, with a whole number for each structure") from None
        return stored, with_values(known, count_values(values))


class OpenCase:
    """A mask that is being corrected. Threads may share it: one click is done after the other.

    It holds the image on the network's grid and the mask in memory until ``close``, and the steps that can be undone.
    """

    def __init__(
        self,
        refiner: Refiner,
        prepared: Tensor,
        record: PreprocessRecord,
        image: Volume,
        stored: Volume,
        labels: LabelSet,
    ) -> None:
        self.labels = labels
        self._refiner = refiner
        self._image: Tensor | None = prepared
        self._geometry = image.geometry
        self._stored = stored
        self._values = _whole_numbers(stored.array[0], labels)
        # The mask in the order of the image's file, and where each of its voxels is in the order of its own.
        in_order = replace(stored, array=self._values[None])
        self._in_order = stored_like(in_order, image).array[0]
        if not np.shares_memory(self._in_order, self._values):
            raise ValueError("turning a mask copied it, so that changes would be lost")
        self._places = tuple(_places(stored, image, axis) for axis in range(3))
        self._grids = TwoGrids.of(record, self._in_order)
        self._axes = thin_axes(self._geometry.spacing_mm)
        self._clicks: list[PlacedClick] = []
        self._undo = UndoStack()
        self._lock = threading.RLock()
        self._effects: dict[str, ValueEffects] = {}
        self._names: dict[str, str] = {}
        self._holding = structures_by_value(labels)

    # ---- what can be asked ----

    @property
    def mask(self) -> Volume:
        """The mask as it is now, (1, Z, Y, X) in the order, on the grid and in the number type of its own file."""
        with self._lock:
            self._require_open()
            stored = self._stored.array[0]
            if stored.dtype.kind != "f":
                return replace(self._stored, array=self._values[None].copy(), notes=())
            is_changed = self._values != as_integers(stored)
            mixed = np.where(is_changed, self._values, stored).astype(stored.dtype)
            return replace(self._stored, array=mixed[None], notes=())

    @property
    def image_geometry(self) -> Geometry:
        """The grid of the image as its file stores it."""
        return self._geometry

    @property
    def clicks(self) -> tuple[Click, ...]:
        """Those that are done and not undone."""
        with self._lock:
            return tuple(self._as_click(click) for click in self._clicks)

    @property
    def held_bytes(self) -> int:
        """Memory that the case takes until it is closed."""
        image = 0 if self._image is None else self._image.nbytes
        return image + self._values.nbytes + self._stored.array.nbytes + self._undo.held_bytes

    def value_at(self, ras_mm: Point) -> int:
        """The mask's value at a point."""
        with self._lock:
            self._require_open()
            return int(self._in_order[self._voxel(point_of(ras_mm), "the point")])

    # ---- what can be done ----

    @named_by_keyword((RefineOptions,))
    def click(self, label: str, ras_mm: Sequence[float], inside: bool = True, *, may_overwrite: bool = False) -> Change:
        """Corrects the mask by a click.

        Parameters
        ----------
        label
            A label or region of the mask by name, as ``--only`` takes it.
        ras_mm
            The point.
        inside
            Whether it lies inside the structure.
        may_overwrite
            Whether other labels may lose voxels to this one, the clicked one among them.

        Returns
        -------
        Change
            What it did.

        Raises
        ------
        AsksFirst
            If the point lies in another label, which would lose it, without ``may_overwrite``.
        UserError
            If the point is no three finite numbers or lies outside the image, or the name means no label, or several.
        """
        started_s = time.perf_counter()
        with self._lock:
            self._require_open()
            click = click_of(label, ras_mm, inside)
            placed = self._placed(click)
            if not may_overwrite:
                require_asked(int(self._in_order[placed.voxel]), placed, f"the click at {_shown(click.ras_mm)}")
            box, wanted, may_change, windows = self._proposal(placed)
            old = cut(self._in_order, box).copy()
            new = ruled(
                old,
                wanted,
                may_change,
                _counted_from(placed, box),
                [_counted_from(click, box) for click in self._clicks],
                self._axes,
                may_overwrite=may_overwrite,
            )
            self._clicks.append(placed)
            step = self._done(box, old, new)
            return self._told(step, started_s, windows)

    def undo(self) -> Change | None:
        """Takes the last click back, every voxel that it changed; None if there is none that can be.

        Voxels that were drawn on since, by ``set_mask``, stay as they were drawn.
        """
        started_s = time.perf_counter()
        with self._lock:
            self._require_open()
            step = self._undo.pop()
            if step is None:
                return None
            flat = np.unravel_index(step.voxels, self._in_order.shape)
            is_same = self._in_order[flat] == step.after
            voxels = step.voxels[is_same]
            self._in_order[np.unravel_index(voxels, self._in_order.shape)] = step.before[is_same]
            self._clicks.pop()
            undone = Step(voxels=voxels, before=step.after[is_same], after=step.before[is_same])
            return self._told(undone, started_s)

    def forget(self) -> None:
        """Takes the last click out of those that the next ones obey, and leaves the mask as it is.

        So whoever keeps masks himself takes a click back that ``undo`` remembers too little of.
        """
        with self._lock:
            self._require_open()
            if self._clicks:
                self._clicks.pop()
                self._undo.pop()

    def set_mask(self, values_zyx: np.ndarray, box: Box | None = None) -> None:
        """Takes over what was drawn elsewhere; it is no step that ``undo`` takes back.

        Parameters
        ----------
        values_zyx
            Values in the order of the mask's own file.
        box
            Where; by default everywhere.

        Raises
        ------
        ValueError
            If they have another shape than the box, or a value that is no label.
        """
        with self._lock:
            self._require_open()
            place = self._values if box is None else cut(self._values, box)
            if place.shape != values_zyx.shape:
                raise ValueError(f"values of shape {values_zyx.shape} do not fit {place.shape}")
            unknown = set(count_values(as_integers(values_zyx))) - set(self.labels.stored_values)
            if unknown:
                raise ValueError(f"{sorted(unknown)[0]} is no label ({', '.join(map(str, self.labels.stored_values))})")
            place[...] = values_zyx

    def close(self) -> None:
        """Frees the image; the case can no longer be used."""
        with self._lock:
            self._image = None
            self._undo = UndoStack()

    def __enter__(self) -> OpenCase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- clicks ----

    def _require_open(self) -> None:
        if self._image is None:
            raise UserError("this case was closed; open it again")

    def _placed(self, click: Click) -> PlacedClick:
        if click.label not in self._names:
            self._names[click.label] = label_called(click.label, self.labels, "the labels of the mask")
        name = self._names[click.label]
        if name not in self._effects:
            self._effects[name] = effects_of(self.labels, name)
        voxel = self._voxel(click.ras_mm, f"the click at {_shown(click.ras_mm)}")
        return PlacedClick(
            effects=self._effects[name],
            voxel=voxel,
            point_zyx=self._grids.to_network(voxel),
            inside=click.inside,
        )

    def _voxel(self, ras_mm: Point, called: str) -> Index:
        """The voxel of the image's file that a point lies in; UserError if it lies in none."""
        place = np.linalg.inv(self._geometry.matrix) @ [*ras_mm, 1.0]
        nearest = np.floor(place[:3] + 0.5 + 1e-6)
        shape = self._geometry.shape
        if not all(0 <= index < size for index, size in zip(nearest, shape)):
            voxel = ", ".join(f"{each:.6g}" for each in nearest)
            sizes = " x ".join(map(str, shape))
            raise UserError(
                f"{called} lies outside the image (voxel {voxel} of {sizes}, z first); coordinates are RAS "
                "millimetres, check the file that they come from"
            )
        z, y, x = (int(each) for each in nearest)
        return z, y, x

    def _as_click(self, placed: PlacedClick) -> Click:
        x, y, z = (float(each) for each in (self._geometry.matrix @ [*placed.voxel, 1.0])[:3])
        return Click(label=placed.effects.name, ras_mm=(x, y, z), inside=placed.inside)

    # ---- the network ----

    def _proposal(self, click: PlacedClick) -> tuple[Box, np.ndarray, np.ndarray, int]:
        """A box of the image's file, where the structure is in it, where that is news, and how many windows it took."""
        around = self._neighbourhood(click.voxel)
        nothing = np.zeros(tuple(stop - start for start, stop in around), bool)
        is_on_grid = all(-0.5 <= place < size for place, size in zip(click.point_zyx, self._grids.shape))
        if not is_on_grid:  # outside the crop, where the image holds nothing to be seen
            return around, nothing, nothing, 0
        look = self._look(click)
        block = look.changed_box()
        if block is None:
            return around, nothing, nothing, len(look.starts)
        source = self._grids.source_of(block)
        given = self._grids.share_on_network(sorted(click.effects.members), source) > HALF
        # What was not looked at is as it was; where nothing is news nothing changes, whatever resampling would do.
        odds = np.where(look.seen[source], look.odds[source], np.where(given, 1.0, -1.0))
        news = look.seen[source] & ((look.odds[source] > 0) != given)
        box, (odds_there, news_there) = self._grids.to_file([odds, news], source, block)
        whole = _around_both(box, around)
        shape = tuple(stop - start for start, stop in whole)
        wanted = np.zeros(shape, bool)
        may_change = np.zeros(shape, bool)
        part = tuple(slice(start - first, stop - first) for (start, stop), (first, _) in zip(box, whole))
        wanted[part] = odds_there > 0
        may_change[part] = news_there > 0
        return whole, wanted, may_change, len(look.starts)

    def _look(self, click: PlacedClick) -> Look:
        """The window around a click, and further ones where the change runs out of it."""
        patch_size = self._refiner.model.configuration.patch_size
        look = Look.around(click.point_zyx, self._grids.shape, patch_size)
        start: Start | None = window_around(click.point_zyx, look.shape, patch_size)
        while start is not None:
            given = self._given(click.effects, look, start, patch_size)
            odds = self._odds(click, look, start, given)
            look.take(start, odds, given[0])
            start = look.next_start()
        return look

    def _given(self, effects: ValueEffects, look: Look, start: Start, patch_size: Shape) -> list[np.ndarray]:
        """In a window, inside the image: the structure as it was before the click, and all others."""
        block = inside(start, look.shape, patch_size)
        others = [value for value in foreground_values(self.labels) if value not in effects.members]
        return [self._grids.share_on_network(values, block) > HALF for values in (sorted(effects.members), others)]

    def _odds(self, click: PlacedClick, look: Look, start: Start, given: Sequence[np.ndarray]) -> np.ndarray:
        networks = self._refiner._networks
        patch_size = networks.patch_size
        block = inside(start, look.shape, patch_size)
        place = within(block, start)
        structure = np.zeros(patch_size, bool)
        others = np.zeros(patch_size, bool)
        structure[place] = look.current(block, given[0])
        others[place] = given[1] & ~structure[place]
        spacing_mm = self._refiner.model.configuration.spacing_of_clicks_mm
        points: dict[bool, list[VoxelPoint]] = {True: [], False: []}
        for each in (*self._clicks, click):
            in_window = [where - first for where, first in zip(each.point_zyx, start)]
            is_near = all(-0.5 <= where <= size - 0.5 for where, size in zip(in_window, patch_size))
            if each.effects.name == click.effects.name and is_near:
                z, y, x = in_window
                points[each.inside].append((z, y, x))
        channels = refiner_channels(structure, others, points[True], points[False], spacing_mm)
        assert self._image is not None
        return networks.odds(self._image, start, channels)

    def _neighbourhood(self, voxel: Index) -> Box:
        """The clicked voxel and all around it, as far as the image goes."""
        z, y, x = ((max(0, index - 1), min(size, index + 2)) for index, size in zip(voxel, self._in_order.shape))
        return z, y, x

    # ---- steps ----

    def _done(self, box: Box, old: np.ndarray, new: np.ndarray) -> Step:
        """Changes the mask in a box, and keeps how to take it back."""
        moved = np.argwhere(new != old)
        at = tuple(moved.T)
        origin = np.array([start for start, _ in box])
        voxels = np.ravel_multi_index(tuple((moved + origin).T), self._in_order.shape)
        step = Step(voxels=voxels, before=old[at], after=new[at])
        cut(self._in_order, box)[...] = new
        self._undo.push(step)
        return step

    def _told(self, step: Step, started_s: float, windows: int = 0) -> Change:
        gained: dict[str, int] = {}
        lost: dict[str, int] = {}
        pairs, numbers = np.unique(np.stack([step.before, step.after]), axis=1, return_counts=True)
        for (before, after), number in zip(pairs.T.tolist(), numbers.tolist()):
            for name in self._holding[after] - self._holding[before]:
                gained[name] = gained.get(name, 0) + number
            for name in self._holding[before] - self._holding[after]:
                lost[name] = lost.get(name, 0) + number
        box = self._box_in_mask(step.voxels)
        return Change(
            box=box,
            values=cut(self._values, box).copy(),
            gained=gained,
            lost=lost,
            seconds=time.perf_counter() - started_s,
            windows=windows,
        )

    def _box_in_mask(self, voxels: np.ndarray) -> Box:
        """The box that holds voxels of the image's order, in the order of the mask's own file."""
        if not len(voxels):
            return NOTHING
        at = np.unravel_index(voxels, self._in_order.shape)
        z, y, x = ((int(place[at].min()), int(place[at].max()) + 1) for place in self._places)
        return z, y, x


def _whole_numbers(stored_zyx: np.ndarray, labels: LabelSet) -> np.ndarray:
    """A copy of a mask in its own integer type, or in a larger one where that cannot hold all labels."""
    values = as_integers(stored_zyx)
    limits = np.iinfo(values.dtype)
    fits = all(limits.min <= value <= limits.max for value in labels.stored_values)
    return np.array(values, dtype=values.dtype if fits else np.int32)


def _places(stored: Volume, image: Volume, axis: int) -> np.ndarray:
    """For every voxel in the image's order its index along an axis of the mask's own file; takes no memory."""
    sizes = [1, 1, 1]
    sizes[axis] = stored.geometry.shape[axis]
    line = np.arange(stored.geometry.shape[axis]).reshape(sizes)
    whole = np.broadcast_to(line, stored.geometry.shape)
    return stored_like(replace(stored, array=whole[None]), image).array[0]


def _counted_from(click: PlacedClick, box: Box) -> PlacedClick:
    z, y, x = (index - start for index, (start, _) in zip(click.voxel, box))
    return replace(click, voxel=(z, y, x))


def _around_both(first: Box, second: Box) -> Box:
    z, y, x = ((min(one[0], other[0]), max(one[1], other[1])) for one, other in zip(first, second))
    return z, y, x


def _called(image: Any) -> str:
    """The file of an image, where it is one, to begin a sentence with."""
    first = image[0] if isinstance(image, list | tuple) and image else image
    return f"{first}:" if isinstance(first, str | Path) else "the image"


def _shown(ras_mm: Point) -> str:
    return f"({', '.join(f'{each:.6g}' for each in ras_mm)}) mm"
