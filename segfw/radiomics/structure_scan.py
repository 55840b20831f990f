"""The features of a structure of a scan: as it is, changed, and as other masks have it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from segfw.measurements.diameters import slice_axis
from segfw.measurements.measure_masks import MaskToMeasure, class_boxes, inside_of, joined_box
from segfw.radiomics.all_features import Features, features_on
from segfw.radiomics.changed_versions import Change, changes_of, grown, own_noise, turned, with_noise
from segfw.radiomics.features_records import Row
from segfw.radiomics.radiomics_settings import RadiomicsSettings
from segfw.radiomics.to_levels import REACH, Box, NewGrid, edges_of, grid_around, mask_on

ROOM = 3  # voxels around a mask into which it may grow
Structure = tuple[np.ndarray, Box]  # the mask of it, and the box of the image in which that lies


def slices_first(mask: MaskToMeasure, settings: RadiomicsSettings) -> tuple[int, int, int]:
    """The order of the axes in which slices lie across the first one, where texture is told by slice."""
    first = slice_axis(mask.axes_mm, mask.classes_zyx.shape) if settings.is_by_slice else 0
    second, third = (axis for axis in range(3) if axis != first)
    return first, second, third


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A mask as classes, and images on the same grid; ``class_sets`` are the classes of each structure.

    Where texture is told by slice, slices lie across the first axis. ``axes_mm`` are the steps along the axes.
    """

    classes_zyx: np.ndarray
    channels: Mapping[str, np.ndarray]
    axes_mm: np.ndarray
    class_sets: Mapping[str, tuple[int, ...]]
    classes: int

    @staticmethod
    def of(mask: MaskToMeasure, settings: RadiomicsSettings) -> Scan:
        """Of what the files of a case hold: views, no copies."""
        order = slices_first(mask, settings)
        return Scan(
            classes_zyx=mask.classes_zyx.transpose(order),
            channels={name: mask.channels[name].transpose(order) for name in settings.channels},
            axes_mm=mask.axes_mm[:, order],
            class_sets={name: tuple(classes) for name, classes in mask.labels.structures.items()},
            classes=mask.labels.classes,
        )

    @cached_property
    def spacing_mm(self) -> np.ndarray:
        """Edges of a voxel."""
        return np.asarray(np.linalg.norm(self.axes_mm, axis=0))

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """The smallest box around each class."""
        return class_boxes(self.classes_zyx)

    def structure(self, name: str) -> Structure | None:
        """A structure; None if there is no voxel of it."""
        classes = self.class_sets[name]
        box = joined_box([self.boxes[index] for index in classes if index in self.boxes])
        return None if box is None else (inside_of(self.classes_zyx[box], classes, self.classes), box)

    def grid(self, box: Box, settings: RadiomicsSettings) -> NewGrid:
        """The new voxels that a mask in a box can reach."""
        edges = edges_of(self.axes_mm, settings.voxel_mm, is_by_slice=settings.is_by_slice)
        return grid_around(box, self.classes_zyx.shape, self.axes_mm, edges)

    def part(self, box: Box) -> Scan:
        """Only what is in a box."""
        channels = {name: image[box] for name, image in self.channels.items()}
        return replace(self, classes_zyx=self.classes_zyx[box], channels=channels)


def told(scan: Scan, structure: Structure, settings: RadiomicsSettings) -> tuple[Row, str]:
    """The features of a structure, and why some are lacking."""
    inside, box = structure
    grid = scan.grid(box, settings)
    found = features_on(mask_on(inside, start_of(box), grid), grid, scan.channels, settings)
    return row_of(found.values), found.reason


def told_of_versions(
    scan: Scan, structure: Structure, settings: RadiomicsSettings, number: int, name: tuple[str, str]
) -> tuple[Row, ...]:
    """The features of so many changed versions; ``name`` of case and structure is what they are drawn by."""
    inside, box = structure
    normal = np.cross(scan.axes_mm[:, 1], scan.axes_mm[:, 2]) if settings.is_by_slice else None
    changes = changes_of(*name, number, normal)
    if not changes:
        return ()
    noise = {channel: own_noise(image, box) for channel, image in scan.channels.items()}
    # What is changed is no more of the image than the features can reach
    half_mm = float(np.linalg.norm(np.asarray(inside.shape) * scan.spacing_mm)) / 2
    reach_mm = half_mm + REACH * max(settings.log_mm, default=0.0)
    around = _grown_box(box, np.ceil(reach_mm / scan.spacing_mm).astype(int) + ROOM, scan.classes_zyx.shape)
    roomy = _grown_box(box, np.full(3, ROOM), scan.classes_zyx.shape)
    room = np.zeros([each.stop - each.start for each in roomy], bool)
    room[_within(box, roomy)] = inside
    grid = scan.grid(roomy, settings)
    moved = replace(grid, start=grid.start - start_of(around))
    part = scan.part(around)
    origin = start_of(roomy) - start_of(around)
    rows = []
    for change in changes:
        rows.append(_of_version(part, (grown(room, scan.spacing_mm, change), origin), moved, change, noise, settings))
    return tuple(rows)


def _of_version(
    part: Scan,
    mask: tuple[np.ndarray, np.ndarray],
    grid: NewGrid,
    change: Change,
    noise: Mapping[str, float],
    settings: RadiomicsSettings,
) -> Row:
    inside, origin = mask
    on = turned(grid, part.axes_mm, change)
    channels = {
        name: with_noise(image, noise[name], change, number)
        for number, (name, image) in enumerate(part.channels.items())
    }
    return row_of(features_on(mask_on(inside, origin, on), on, channels, settings).values)


def start_of(box: Box) -> np.ndarray:
    """The first voxel of a box."""
    return np.array([each.start for each in box])


def _grown_box(box: Box, more: np.ndarray, shape: tuple[int, ...]) -> Box:
    z, y, x = (
        slice(max(part.start - int(each), 0), min(part.stop + int(each), size))
        for part, each, size in zip(box, more, shape)
    )
    return z, y, x


def _within(box: Box, outer: Box) -> Box:
    z, y, x = (slice(part.start - of.start, part.stop - of.start) for part, of in zip(box, outer))
    return z, y, x


def row_of(values: Features) -> Row:
    """The values alone; what is no number is None."""
    return tuple(None if value is None or not math.isfinite(value) else float(value) for value in values.values())
