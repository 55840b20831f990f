"""Enhanced DICOM: an image as frames of one file, each with a place of its own (PS3.3, section C.7.6.16)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

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
from segfw.images.even_slices import check_distances
from segfw.images.functional_groups import group_of, place_of
from segfw.images.stored_bytes import check_room
from segfw.images.voxels import Refusal, SeriesUids, Voxels, affine_of_lps

if TYPE_CHECKING:
    from pydicom import Dataset

ROUNDING_OF_DIRECTIONS = 1e-3
UNPLACED = "its frames say no place in the patient, so that they make no volume; convert it to NIfTI"


class _Frame(NamedTuple):
    position: np.ndarray  # LPS
    axes: np.ndarray  # (2, 3)
    spacing: np.ndarray  # of rows, of columns
    slope: float
    intercept: float


def read_multi_frame(path: Path) -> Voxels:
    """Reads the image of one file of several frames, in the order of their places; slope and intercept are applied."""
    data = read_elements(path)
    with reading_elements():
        number = whole_of(data, "NumberOfFrames", 1)
        shared = item_of(data, "SharedFunctionalGroupsSequence")
        items = items_of(data, "PerFrameFunctionalGroupsSequence")
        if not items:
            raise Refusal(f"{path.name}: {UNPLACED}")
        if len(items) != number:
            raise Contradiction(f"it announces {number:,} frames and places {len(items):,}")
        if whole_of(data, "SamplesPerPixel", 1) != 1:
            raise Refusal(f"{path.name}: has frames in colours; convert it to one number per voxel")
        frames = [_frame(path, item, shared) for item in items]
        uids = SeriesUids(text_of(data, "SeriesInstanceUID"), text_of(data, "FrameOfReferenceUID"))
        first = frames[0]
        if any(np.abs(frame.axes - first.axes).max() > ROUNDING_OF_DIRECTIONS for frame in frames):
            raise Refusal(f"{path.name}: its frames lie in different orientations; keep those of one orientation")
        if not np.allclose([frame.spacing for frame in frames], first.spacing, rtol=1e-3):
            raise Refusal(f"{path.name}: its frames differ in pixel spacing; keep those of one spacing")
        normal = np.cross(*first.axes)
        places = np.array([float(frame.position @ normal) for frame in frames])
        order = np.argsort(places, kind="stable")
        if number > 1:
            check_distances(places[order], path.name)
        pixels = _pixels(path, data, number)
    array = _scaled(pixels, frames, order)
    lowest = frames[order[0]].position
    step = normal * (_thickness(items[0], shared) or 1.0)
    if number > 1:
        step = (frames[order[-1]].position - lowest) / (number - 1)
    length = float(np.linalg.norm(step))
    direction = np.column_stack([*first.axes, step / length])
    affine = affine_of_lps(direction, np.array([first.spacing[1], first.spacing[0], length]), lowest)
    return Voxels(array[None], affine, series=uids)


def _frame(path: Path, item: Dataset, shared: Dataset | None) -> _Frame:
    place = place_of(item, shared)
    if place is None:
        raise Refusal(f"{path.name}: {UNPLACED}")
    scale = group_of(item, shared, "PixelValueTransformationSequence")
    slope = None if scale is None else numbers_of(scale, "RescaleSlope", 1)
    intercept = None if scale is None else numbers_of(scale, "RescaleIntercept", 1)
    return _Frame(
        position=place.position,
        axes=place.axes,
        spacing=place.spacing,
        slope=1.0 if slope is None else float(slope[0]),
        intercept=0.0 if intercept is None else float(intercept[0]),
    )


def _thickness(item: Dataset, shared: Dataset | None) -> float:
    measures = group_of(item, shared, "PixelMeasuresSequence")
    thickness = None if measures is None else numbers_of(measures, "SliceThickness", 1)
    return 0.0 if thickness is None else float(thickness[0])


def _pixels(path: Path, data: Dataset, number: int) -> np.ndarray:
    """The stored values (N, rows, columns)."""
    rows = whole_of(data, "Rows")
    columns = whole_of(data, "Columns")
    bits = whole_of(data, "BitsAllocated", 16)
    if min(rows, columns) < 1 or bits not in (8, 16, 32):
        raise Contradiction(f"it has {rows} x {columns} pixels of {bits} bits")
    announced = number * rows * columns * bits // 8
    check_room(announced)
    _, stored, storage = stored_pixels(path)
    if storage == "native" and stored < announced:
        raise Contradiction(f"it announces {announced:,} bytes of pixels, but {stored:,} are stored")
    whole = read_elements(path, with_pixels=True)
    if storage == "encapsulated":
        from pydicom.pixels import get_decoder

        if not get_decoder(whole.file_meta.TransferSyntaxUID).is_available:
            what = f"{path.name}: has compressed pixels for which pydicom has no decoder here"
            raise Refusal(f"{what}; install pylibjpeg with its plug-ins, or decompress it")
    array: np.ndarray = whole.pixel_array
    return array.reshape(number, rows, columns)


def _scaled(pixels: np.ndarray, frames: Sequence[_Frame], order: np.ndarray) -> np.ndarray:
    """The frames in their order, with slope and intercept; whole numbers stay whole where these are."""
    scales = {(frame.slope, frame.intercept) for frame in frames}
    if scales == {(1.0, 0.0)}:
        return pixels[order]
    is_whole = all(float(value).is_integer() for scale in scales for value in scale)
    scaled = np.empty(pixels.shape, dtype=np.int32 if is_whole and pixels.dtype.itemsize < 4 else np.float32)
    for place, index in enumerate(order):
        frame = frames[index]
        scaled[place] = pixels[index] * frame.slope + frame.intercept
    return scaled
