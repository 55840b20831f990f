"""DICOM SEG: segments as frames of bits or labels, each frame with a place of its own (PS3.3, section A.51 and C.8.20).

BINARY frames are read, LABELMAP frames too; of FRACTIONAL ones, for which the standard has no threshold, those that
hold nothing between none and all of a voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from segfw.base.words import count
from segfw.images.dicom_data import (
    Contradiction,
    item_of,
    items_of,
    numbers_of,
    read_elements,
    reading_elements,
    stored_pixels,
    text_of,
    whole_of,
)
from segfw.images.functional_groups import group_of, place_of
from segfw.images.geometry import Geometry
from segfw.images.named_mask import NEARLY, Part, Structure, placed
from segfw.images.stored_bytes import check_room
from segfw.images.voxels import Refusal, SeriesUids, affine_of_lps

if TYPE_CHECKING:
    from pydicom import Dataset

BINARY = "BINARY"
FRACTIONAL = "FRACTIONAL"
LABELMAP = "LABELMAP"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"


class Frames(Protocol):
    """The pixels of a file, a frame at a time."""

    def __getitem__(self, index: int, /) -> np.ndarray:
        """The frame of an index, (rows, columns)."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a frame lies: ``affine`` leads from (slice, row, column) to RAS mm; the segment it is of, 0 for all."""

    index: int
    segment: int
    affine: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """A DICOM SEG; ``most`` is the value of a pixel that lies wholly in its segment, of FRACTIONAL ones."""

    segments: tuple[Structure, ...]
    frames: tuple[Frame, ...]
    pixels: Frames
    size: tuple[int, int]
    kind: str
    most: int
    step_mm: float | None  # between slices, where the file says it
    series: tuple[SeriesUids, ...]
    image_uids: frozenset[str]
    found_notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def structures(self) -> tuple[Structure, ...]:
        """All segments."""
        return self.segments

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing is doubtful in a segmentation that is read at all."""
        return self.found_notes

    @cached_property
    def grid(self) -> Geometry | None:
        """From the first frame to the last one; slices in which nothing is are often left out of a file."""
        return _grid_of(self.frames, self.size, self.step_mm)

    def parts(self, number: int, grid: Geometry) -> list[Part]:
        """The voxels of a grid that a segment has."""
        segment = self.segments[number].number
        found: list[Part] = []
        for frame in self.frames:
            if frame.segment not in (segment, 0):
                continue
            with reading_elements():
                pixels = self.pixels[frame.index]
            found += placed(self._inside(pixels, segment)[None], frame.affine, grid)
        return found

    def _inside(self, pixels: np.ndarray, segment: int) -> np.ndarray:
        if self.kind == LABELMAP:
            return pixels == segment
        if self.kind == BINARY:
            return pixels != 0
        between = int(((pixels != 0) & (pixels != self.most)).sum())
        if between:
            what = (
                f"is a FRACTIONAL segmentation, with {count(between, 'pixel')} of a frame that lie partly in a segment"
            )
            raise Refusal(f"{what}; export it as BINARY or LABELMAP, with the threshold that is right for it")
        return pixels == self.most


def read_segmentation(path: Path) -> Segmentation:
    """Reads a DICOM SEG, the pixels of frames when they are asked for."""
    data = read_elements(path)
    with reading_elements():
        kind = text_of(data, "SegmentationType") or BINARY
        if kind not in (BINARY, FRACTIONAL, LABELMAP):
            raise Refusal(f"is a segmentation of the type {kind[:20]}; export it as BINARY or LABELMAP")
        segments = tuple(
            Structure(text_of(item, "SegmentLabel") or f"segment_{number}", number)
            for item, number in _numbered(items_of(data, "SegmentSequence"))
        )
        if not segments:
            raise Refusal("is a segmentation without any segment; export it again")
        if kind == LABELMAP:  # which may list what is in none of them
            segments = tuple(segment for segment in segments if segment.number != 0)
        size = (whole_of(data, "Rows"), whole_of(data, "Columns"))
        shared = item_of(data, "SharedFunctionalGroupsSequence")
        items = items_of(data, "PerFrameFunctionalGroupsSequence")
        number = whole_of(data, "NumberOfFrames", 1)
        if min(size) < 1 or number < 1 or len(items) != number:
            raise Contradiction(
                f"it announces {number:,} frames of {size[0]:,} x {size[1]:,} and places {len(items):,}"
            )
        frames = tuple(
            _frame(index, item, shared, has_segment=kind != LABELMAP or _is_of_segment(item))
            for index, item in enumerate(items)
        )
        known = {segment.number for segment in segments}
        unknown = next((frame.segment for frame in frames if frame.segment and frame.segment not in known), None)
        if unknown is not None:
            raise Contradiction(f"a frame is of the segment {unknown}, which is not listed")
        step_mm = _step_mm(items, shared)
        pixels = _pixels(path, data, size, number, kind)
        series, image_uids = _references(data)
    return Segmentation(
        segments=segments,
        frames=frames,
        pixels=pixels,
        size=size,
        kind=kind,
        most=whole_of(data, "MaximumFractionalValue", 255),
        step_mm=step_mm,
        series=series,
        image_uids=image_uids,
    )


def _numbered(items: Sequence[Dataset]) -> list[tuple[Dataset, int]]:
    return [(item, whole_of(item, "SegmentNumber", -1)) for item in items]


def _is_of_segment(frame: Dataset) -> bool:
    return bool(items_of(frame, "SegmentIdentificationSequence"))


def _frame(index: int, item: Dataset, shared: Dataset | None, *, has_segment: bool) -> Frame:
    place = place_of(item, shared)
    if place is None:
        raise Refusal(f"says no place of frame {index + 1} in the patient; export it with the series that it is of")
    segment = 0
    if has_segment:
        identified = group_of(item, shared, "SegmentIdentificationSequence")
        segment = 0 if identified is None else whole_of(identified, "ReferencedSegmentNumber")
        if segment == 0:
            raise Contradiction(f"frame {index + 1} says no segment that it is of")
    position, (x_axis, y_axis), spacing = place
    direction = np.column_stack([x_axis, y_axis, np.cross(x_axis, y_axis)])
    affine = affine_of_lps(direction, np.array([spacing[1], spacing[0], 1.0]), position)
    if abs(np.linalg.det(affine[:3, :3])) <= 1e-6 * spacing.prod():
        raise Contradiction(f"the axes of frame {index + 1} have no area")
    return Frame(index=index, segment=segment, affine=affine)


def _step_mm(items: Sequence[Dataset], shared: Dataset | None) -> float | None:
    measures = group_of(items[0], shared, "PixelMeasuresSequence")
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        step = None if measures is None else numbers_of(measures, keyword, 1)
        if step is not None and step[0] > 0:
            return float(step[0])
    return None


def _grid_of(frames: Sequence[Frame], size: tuple[int, int], step_mm: float | None) -> Geometry | None:
    """The even grid on which all frames lie; None if there is none."""
    first = frames[0].affine
    normal = np.cross(first[:3, 2], first[:3, 1])
    normal /= np.linalg.norm(normal)
    same_axes = all(np.abs(frame.affine[:3, :3] - first[:3, :3]).max() < 1e-3 for frame in frames)
    if not same_axes:
        return None
    origins = np.array([frame.affine[:3, 3] for frame in frames])
    places = origins @ normal
    order = np.argsort(places, kind="stable")
    distances = np.diff(places[order])
    steps = distances[distances > 1e-3]
    lowest = origins[order[0]]
    highest = origins[order[-1]]
    extent = float(places[order[-1]] - places[order[0]])
    if not len(steps):
        step = normal * (step_mm or 1.0)
        slices = 1
    else:
        length = float(steps.min())
        if step_mm is not None and abs(length / step_mm - round(length / step_mm)) < NEARLY and length > step_mm:
            length /= round(length / step_mm)
        slices = round(extent / length) + 1
        step = (highest - lowest) / (slices - 1)
        expected = lowest + np.outer((places - places[order[0]]) / (extent / (slices - 1)), step)
        apart = (places - places[order[0]]) / (extent / (slices - 1))
        if np.abs(apart - np.rint(apart)).max() > NEARLY or np.abs(expected - origins).max() > NEARLY * length:
            return None
    affine = first.copy()
    affine[:3, 0] = step
    affine[:3, 3] = lowest
    return Geometry.of((slices, *size), affine)


def _references(data: Dataset) -> tuple[tuple[SeriesUids, ...], frozenset[str]]:
    frame_uid = text_of(data, "FrameOfReferenceUID")
    series: list[SeriesUids] = []
    image_uids: set[str] = set()
    for item in items_of(data, "ReferencedSeriesSequence"):
        series.append(SeriesUids(text_of(item, "SeriesInstanceUID"), frame_uid))
        image_uids |= {
            text_of(each, "ReferencedSOPInstanceUID") for each in items_of(item, "ReferencedInstanceSequence")
        }
    return tuple(dict.fromkeys(series)) or (SeriesUids("", frame_uid),), frozenset(image_uids - {""})


# ---- pixels ----


@dataclass(frozen=True, kw_only=True)
class _StoredBits:
    """Frames of a bit a pixel, one after the other without gaps, the lowest bit of a byte first."""

    content: np.ndarray
    size: tuple[int, int]

    def __getitem__(self, index: int, /) -> np.ndarray:
        pixels = self.size[0] * self.size[1]
        first = index * pixels
        packed = self.content[first // 8 : -(-(first + pixels) // 8)]
        bits = np.unpackbits(packed, bitorder="little")
        skipped = first % 8
        return bits[skipped : skipped + pixels].reshape(self.size)


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """Frames that pydicom decodes, each when it is asked for."""

    path: Path

    def __getitem__(self, index: int, /) -> np.ndarray:
        from pydicom.pixels import pixel_array

        return pixel_array(self.path, index=index, raw=True)


def _pixels(path: Path, data: Dataset, size: tuple[int, int], number: int, kind: str) -> Frames:
    bits = whole_of(data, "BitsAllocated", 8)
    if bits not in (1, 8, 16) or (kind != LABELMAP and bits == 16) or whole_of(data, "SamplesPerPixel", 1) != 1:
        raise Contradiction(f"its pixels have {bits} bits")
    if bits != 1 and whole_of(data, "PixelRepresentation") != 0:
        raise Contradiction("its pixels have a sign")
    syntax = str(data.file_meta.get("TransferSyntaxUID", "")) if hasattr(data, "file_meta") else ""
    if syntax == BIG_ENDIAN:
        raise Refusal("is written with the highest byte first, which DICOM has given up; export it again")
    announced = -(-number * size[0] * size[1] * bits // 8)
    if syntax == DEFLATED:
        check_room(announced)
        content = np.frombuffer(read_elements(path, with_pixels=True).PixelData, dtype=np.uint8)
    else:
        at, stored, storage = stored_pixels(path)
        if storage == "encapsulated":
            return _decoder(path, data)
        content = np.memmap(path, dtype=np.uint8, mode="r", offset=at, shape=(stored,))
    if len(content) < announced:
        raise Contradiction(f"it announces {announced:,} bytes of pixels, but {len(content):,} are stored")
    if bits == 1:
        return _StoredBits(content=content, size=size)
    dtype = np.dtype("<u2") if bits == 16 else np.dtype(np.uint8)
    return content[:announced].view(dtype).reshape((number, *size))


def _decoder(path: Path, data: Dataset) -> Frames:
    from pydicom.pixels import get_decoder

    if not get_decoder(data.file_meta.TransferSyntaxUID).is_available:
        raise Refusal("has compressed pixels for which pydicom has no decoder here; export it uncompressed")
    check_room(whole_of(data, "Rows") * whole_of(data, "Columns"))
    return _Decoded(path=path)
