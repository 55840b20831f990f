"""DICOM RTSTRUCT: contours in millimetres, which a grid makes voxels of (PS3.3, sections A.19.3 and C.8.8.6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segfw.base.words import count
from segfw.images.dicom_data import (
    Contradiction,
    decimals_of,
    items_of,
    read_elements,
    reading_elements,
    text_of,
    whole_of,
)
from segfw.images.geometry import Geometry
from segfw.images.named_mask import NEARLY, Part, Structure
from segfw.images.polygons import fill
from segfw.images.voxels import LPS_TO_RAS, Refusal, SeriesUids

if TYPE_CHECKING:
    from pydicom import Dataset

CLOSED = "CLOSED_PLANAR"
CLOSED_XOR = "CLOSEDPLANAR_XOR"
MOST_CONTOURS = 5_000  # of a ROI on a slice
FEWEST_FOR_A_STEP = 3  # slices with contours, by which it is told that they were drawn on every second slice alone


@dataclass(frozen=True, kw_only=True)
class Roi:
    """A structure and the items of its contours, of which nothing is read before it is drawn."""

    structure: Structure
    contours: tuple[Dataset, ...]
    frame_uid: str  # of the coordinates that it was drawn in; '' where the file does not say
    is_automatic: bool  # made by a program, which leaves no slice to be interpolated


@dataclass(frozen=True, kw_only=True)
class StructureSet:
    """An RTSTRUCT; ``image_uids`` are the slices that it says it was drawn on."""

    rois: tuple[Roi, ...]
    series: tuple[SeriesUids, ...]
    image_uids: frozenset[str]
    found_notes: list[str] = field(default_factory=list)

    @property
    def grid(self) -> None:
        """There is none: contours are in millimetres."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """Doubts about the structures that were drawn."""
        return tuple(dict.fromkeys(self.found_notes))

    @cached_property
    def structures(self) -> tuple[Structure, ...]:
        """All ROIs, also those without a contour."""
        return tuple(roi.structure for roi in self.rois)

    def parts(self, number: int, grid: Geometry) -> list[Part]:
        """The voxels of a grid whose centres lie within a ROI."""
        roi = self.rois[number]
        try:
            with reading_elements():
                outlines = [_outline(contour, roi.structure.name) for contour in roi.contours]
            filled, notes = _filled([each for each in outlines if each is not None], grid, roi)
        except ValueError as error:
            if isinstance(error, Refusal):
                raise
            raise ValueError(f"ROI {roi.structure.name}: {error}") from None
        if not roi.contours:
            notes.append(
                f"ROI {roi.structure.name} has no contour; if it should have one, draw it, else leave it as absent"
            )
        self.found_notes.extend(notes)
        return filled


def read_structure_set(path: Path) -> StructureSet:
    """Reads an RTSTRUCT; Refusal if it has no ROI."""
    data = read_elements(path)
    with reading_elements():
        contours = _contours_of(data)
        rois = [_roi(item, contours) for item in items_of(data, "StructureSetROISequence")]
        series, image_uids = _references(data)
    if not rois:
        raise Refusal("is a structure set without any ROI; export it again, with its structures")
    if not any(roi.contours for roi in rois):
        raise Refusal("is a structure set in which no ROI has a contour; export it again, with its contours")
    frames = {roi.frame_uid for roi in rois if roi.contours} - {""}
    if len(frames) > 1:
        what = f"has ROIs in {len(frames)} frames of reference, in which a place is not the same"
        raise Refusal(f"{what}; export a structure set for each of the series that they were drawn on")
    return StructureSet(rois=tuple(rois), series=series, image_uids=image_uids)


def _contours_of(data: Dataset) -> dict[int, tuple[Dataset, ...]]:
    """Contours by the number of their ROI, of all items that refer to it."""
    found: dict[int, tuple[Dataset, ...]] = {}
    for item in items_of(data, "ROIContourSequence"):
        number = whole_of(item, "ReferencedROINumber", -1)
        found[number] = (*found.get(number, ()), *items_of(item, "ContourSequence"))
    return found


def _roi(item: Dataset, contours: Mapping[int, tuple[Dataset, ...]]) -> Roi:
    """A ROI; one whose name is empty, as the standard allows, is called by its number."""
    number = whole_of(item, "ROINumber", -1)
    return Roi(
        structure=Structure(text_of(item, "ROIName") or f"roi_{number}", number),
        contours=contours.get(number, ()),
        frame_uid=text_of(item, "ReferencedFrameOfReferenceUID"),
        is_automatic=text_of(item, "ROIGenerationAlgorithm") == "AUTOMATIC",
    )


def _references(data: Dataset) -> tuple[tuple[SeriesUids, ...], frozenset[str]]:
    """The series that the contours were drawn on, and the slices of these."""
    series: list[SeriesUids] = []
    image_uids: set[str] = set()
    for frame in items_of(data, "ReferencedFrameOfReferenceSequence"):
        frame_uid = text_of(frame, "FrameOfReferenceUID")
        for study in items_of(frame, "RTReferencedStudySequence"):
            for item in items_of(study, "RTReferencedSeriesSequence"):
                series.append(SeriesUids(text_of(item, "SeriesInstanceUID"), frame_uid))
                image_uids |= _image_uids(item)
        if not any(each.frame == frame_uid for each in series):
            series.append(SeriesUids("", frame_uid))
    for roi in items_of(data, "ROIContourSequence"):
        for contour in items_of(roi, "ContourSequence"):
            image_uids |= _image_uids(contour)
    return tuple(dict.fromkeys(series)), frozenset(image_uids - {""})


def _image_uids(item: Dataset) -> set[str]:
    return {text_of(image, "ReferencedSOPInstanceUID") for image in items_of(item, "ContourImageSequence")}


@dataclass(frozen=True, kw_only=True)
class _Outline:
    """A closed contour: its corners (N, 3) in RAS millimetres, and whether it is one of several that are exclusive."""

    corners_mm: np.ndarray
    is_exclusive: bool


def _outline(contour: Dataset, name: str) -> _Outline | None:
    """A contour that encloses an area; None for one of less than three points, which does not."""
    kind = text_of(contour, "ContourGeometricType")
    if kind not in (CLOSED, CLOSED_XOR):
        what = f"ROI {name} has contours of the type {kind or 'unknown'}, which enclose no area"
        raise Refusal(f"{what}; close them in the planning system, or leave the ROI out by the mapping file")
    values = decimals_of(contour, "ContourData")
    if len(values) % 3 or not np.isfinite(values).all():
        raise Contradiction(f"a contour has {len(values)} numbers, of which three make a point")
    points = values.reshape(-1, 3)
    said = whole_of(contour, "NumberOfContourPoints", len(points))
    if said != len(points):
        raise Contradiction(f"a contour announces {said:,} points and has {len(points):,}")
    if len(points) < 3:
        return None
    return _Outline(corners_mm=points @ LPS_TO_RAS[:3, :3].T, is_exclusive=kind == CLOSED_XOR)


def _filled(outlines: Sequence[_Outline], grid: Geometry, roi: Roi) -> tuple[list[Part], list[str]]:
    """The parts of a grid that contours of a ROI enclose, slice by slice, and doubts."""
    name = roi.structure.name
    if not outlines:
        return [], []
    corners = [_in_voxels(outline.corners_mm, grid) for outline in outlines]
    axis = _axis_of_slices(corners, name)
    across = [other for other in range(3) if other != axis]
    by_slice: dict[int, list[tuple[np.ndarray, bool]]] = {}
    for outline, points in zip(outlines, corners):
        place = float(points[:, axis].mean())
        index = round(place)
        if abs(place - index) > NEARLY:
            what = (
                f"ROI {name} has a contour between two slices of the image ({abs(place - index):.2f} of their distance"
            )
            raise Refusal(f"{what} off the next one); give the series that it was drawn on, or draw it on this one")
        if not 0 <= index < grid.shape[axis]:
            what = f"ROI {name} has a contour {count(max(-index, index - grid.shape[axis] + 1), 'slice')} outside"
            raise Refusal(f"{what} of the image; complete the series, or give the one that it was drawn on")
        by_slice.setdefault(index, []).append((points[:, across], outline.is_exclusive))
    notes = _notes_on_slices(sorted(by_slice), roi)
    rows, columns = (grid.shape[other] for other in across)
    if any(
        points.min() < -1 or points[:, 0].max() > rows or points[:, 1].max() > columns
        for contours in by_slice.values()
        for points, _ in contours
    ):
        notes.append(f"ROI {name} reaches out of the image and is cut there; see that it belongs to this series")
    parts = []
    for index, contours in by_slice.items():
        part = _slice_part(contours, (rows, columns), name, index)
        if part is not None:
            parts.append(_in_volume(part, axis, index))
    return parts, notes


def _in_voxels(points_mm: np.ndarray, grid: Geometry) -> np.ndarray:
    inverse = np.linalg.inv(grid.matrix)
    return points_mm @ inverse[:3, :3].T + inverse[:3, 3]


def _axis_of_slices(corners: Iterable[np.ndarray], name: str) -> int:
    """The axis of the grid along which no contour extends."""
    extents = np.max([np.ptp(points, axis=0) for points in corners], axis=0)
    axis = int(extents.argmin())
    if extents[axis] > NEARLY:
        what = f"ROI {name} has a contour that leaves its slice, by {extents[axis]:.2f} of the distance to the next one"
        raise Refusal(f"{what}; give the series that it was drawn on")
    return axis


def _notes_on_slices(indices: Sequence[int], roi: Roi) -> list[str]:
    """A doubt on slices without a contour; Refusal for contours on every second or third slice alone.

    What a program found may be a few specks that happen to lie so.
    """
    name = roi.structure.name
    steps = np.diff(indices)
    is_even = len(indices) >= FEWEST_FOR_A_STEP and steps.min() > 1 and steps.min() == steps.max()
    if is_even and not roi.is_automatic:
        what = f"ROI {name} has contours on every {_ordinal(int(steps[0]))} slice alone"
        raise Refusal(f"{what}; interpolate it in the planning system, or give the series that it was drawn on")
    missing = int((steps - 1).sum())
    if not missing:
        return []
    what = f"ROI {name} has no contour on {count(missing, 'slice')} between its first and its last"
    return [f"{what}; if it is not in several pieces, draw what is missing"]


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _slice_part(
    contours: Sequence[tuple[np.ndarray, bool]], shape: tuple[int, int], name: str, index: int
) -> tuple[tuple[slice, slice], np.ndarray] | None:
    """Which voxels of a slice are inside, in the box of its contours; None if none is."""
    distinct = _distinct([points for points, _ in contours])
    if len(distinct) > MOST_CONTOURS:
        what = f"ROI {name} has {len(distinct):,} contours on slice {index + 1}, more than {MOST_CONTOURS:,}"
        raise Refusal(f"{what}; smooth it in the planning system, or leave it out by the mapping file")
    low, high = _box(np.concatenate(distinct), shape)
    if (high <= low).any():
        return None
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    moved = [points - low for points in distinct]
    if not any(is_exclusive for _, is_exclusive in contours):
        _require_nested(moved, size, name, index)
    inside = fill(moved, size)
    if not inside.any():
        return None
    return (slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))), inside


def _box(points: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """First row and column that points reach within a slice, and those behind the last."""
    low = np.clip(np.floor(points.min(0)), 0, shape)
    high = np.clip(np.ceil(points.max(0)) + 1, 0, shape)
    return low.astype(int), high.astype(int)


def _distinct(contours: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Without contours that are there twice, which would make a hole of each other."""
    found: dict[bytes, np.ndarray] = {}
    for points in contours:
        found.setdefault(np.round(points, 4).tobytes(), points)
    return list(found.values())


def _require_nested(contours: Sequence[np.ndarray], shape: tuple[int, int], name: str, index: int) -> None:
    """Refuses contours of one ROI that cross: whether what they share is inside, no rule says.

    From the largest to the smallest, each has to lie in one area that the ones before it left.
    """
    if len(contours) < 2:
        return
    areas = []
    for points in contours:
        low, high = _box(points, shape)
        if (high > low).all():
            size = (int(high[0] - low[0]), int(high[1] - low[1]))
            areas.append((slice(low[0], high[0]), slice(low[1], high[1]), fill([points - low], size)))
    areas.sort(key=lambda area: -int(area[2].sum()))
    innermost = np.zeros(shape, np.int32)
    for number, (rows, columns, inside) in enumerate(areas, 1):
        there = innermost[rows, columns]
        outer, voxels = np.unique(there[inside], return_counts=True)
        if len(outer) > 1:
            shared = int(voxels[outer == outer.max()][0])
            what = f"ROI {name} has two contours that cross on slice {index + 1} and share {count(shared, 'voxel')}"
            raise Refusal(f"{what}; join them in the planning system")
        there[inside] = number


def _in_volume(part: tuple[tuple[slice, slice], np.ndarray], axis: int, index: int) -> Part:
    (rows, columns), inside = part
    box = [rows, columns]
    box.insert(axis, slice(index, index + 1))
    return Part((box[0], box[1], box[2]), np.expand_dims(inside, axis))
