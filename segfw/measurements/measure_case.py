"""Reads a mask and its image, and measures it: the work of one case, on any thread or machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segfw.base.case_files import work_once
from segfw.base.records import UserError
from segfw.base.shared_work import CaseResult, Note, WorkWords
from segfw.dataset.labels import LabelSet
from segfw.evaluation.masks import classes_of, read_stored_mask, require_same_grid
from segfw.images.formats import files_read, read_volume
from segfw.images.header_only import volume_of_header
from segfw.images.volume import Volume, stored_like, to_canonical
from segfw.measurements.masks_to_measure import MaskCase
from segfw.measurements.measure_masks import MaskToMeasure, field_of_view_of, measure_mask
from segfw.measurements.measures_folder import MeasuresFolder
from segfw.measurements.structure_measures import CaseMeasures

BYTES_PER_VOXEL = 16  # of a case: the mask as stored and as classes, its structures' boxes, an image
BYTES_READ_AT_ONCE = 1 << 22
MEASURING = WorkWords(doing="measuring", done="measured", of="case")


@dataclass(frozen=True, kw_only=True)
class MeasuringJob:
    """All that a process needs to measure cases, so that it can be sent to another machine."""

    folder: MeasuresFolder
    labels: LabelSet
    channels: tuple[str, ...]
    only: tuple[str, ...] | None
    per_component: bool

    def __call__(self, case: MaskCase) -> CaseResult:
        """Measures a case and keeps what was found, unless it is there or another process is at it."""
        return work_once(self.folder, case, self._work)

    def _work(self, case: MaskCase) -> tuple[Note, ...]:
        measures = self.folder.find(case, self.measured)
        return tuple(("warning", note) for note in measures.notes)

    def measured(self, case: MaskCase) -> CaseMeasures:
        """All structures of a case; UserError if a file cannot be read, or the grids differ."""
        mask, notes = case_in_memory(case, self.labels, self.channels)
        found = measure_mask(case.id, mask, only=self.only, per_component=self.per_component, annotated=case.annotated)
        return CaseMeasures(
            id=case.id,
            sources=case.sources,
            digests=tuple(_digest(path) for path in case.files),
            unit=mask.units.size,
            notes=notes,
            structures=found,
        )


def case_in_memory(
    case: MaskCase, labels: LabelSet, channel_names: Sequence[str]
) -> tuple[MaskToMeasure, tuple[str, ...]]:
    """The mask of a case with its images, and what is odd about the files.

    Raises UserError if a file cannot be read or is lacking, or the grids differ.
    """
    if channel_names and len(case.images) != len(channel_names):
        raise UserError(_lacking_images(case, channel_names))
    stored, images = read_case(case, labels)
    classes_zyx = classes_of(to_canonical(stored), labels, case.mask, case.label_map)
    canonical = [to_canonical(image) for image in images]
    geometry = to_canonical(replace(stored, array=np.broadcast_to(np.uint8(0), stored.array.shape))).geometry
    channels: dict[str, np.ndarray] = {}
    for name, image in zip(channel_names, canonical):
        many = len(image.array) > 1
        channels |= {f"{name}_{index}" if many else name: each for index, each in enumerate(image.array)}
    mask = MaskToMeasure(
        classes_zyx=classes_zyx,
        geometry=geometry,
        units=stored.units,
        labels=labels,
        channels=channels,
        outside=field_of_view_of(channels, geometry, stored.units),
    )
    return mask, tuple(dict.fromkeys(note for volume in (stored, *images) for note in volume.notes))


def read_case(case: MaskCase, labels: LabelSet | None = None) -> tuple[Volume, list[Volume]]:
    """The mask and its images as stored, in one order of axes; UserError unless they lie on one grid.

    A mask that says nothing of its place, such as a picture, lies where its image does, and one of a photograph has no
    millimetres in any format.
    """
    images = [read_volume(path) for path in case.images]
    stored = read_stored_mask(case.mask, labels, images[0] if images else None)
    if not images:
        return stored, []
    first = images[0]
    if not stored.is_placed or (first.is_picture and not first.is_placed):
        stored = stored_like(stored, first)
    placed = []
    for path, image in zip(case.images, images):
        alike = stored_like(image, stored)
        require_same_grid(case.mask, stored.geometry, path, alike.geometry, "its image")
        placed.append(replace(alike, geometry=stored.geometry))  # oriented by the same rounding
    return replace(stored, is_picture=stored.is_picture or first.is_picture), placed


def _lacking_images(case: MaskCase, channels: Sequence[str]) -> str:
    if not case.images:
        return f"{case.mask}: has no image of its name; add it, or leave out --images"
    has = ", ".join(path.name for path in case.images)
    what = f"its image has {len(case.images)} files ({has}), others have {len(channels)}"
    return f"{case.mask}: {what}; add what is missing"


def _digest(path: Path) -> str:
    """SHA-256 of all files that an image is read from."""
    digest = hashlib.sha256()
    for each in files_read(path):
        with open(each, "rb") as file:
            while part := file.read(BYTES_READ_AT_ONCE):
                digest.update(part)
    return digest.hexdigest()


def cost_bytes(case: MaskCase) -> int:
    """Rough bytes that measuring a case takes, by its header alone; 0 where that does not say."""
    try:
        header = volume_of_header(case.mask)
    except UserError:  # reading it says better what is wrong
        return 0
    return 0 if header is None else BYTES_PER_VOXEL * header.array.size * max(1, len(case.images))
