"""What a DICOM file of several frames says of each: by itself, or of all frames together (PS3.3, section C.7.6.16)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segfw.images.dicom_data import item_of, numbers_of

if TYPE_CHECKING:
    from pydicom import Dataset


class FramePlace(NamedTuple):
    """Where a frame lies in the patient, in LPS mm."""

    position: np.ndarray  # (3,), of the first voxel
    axes: np.ndarray  # (2, 3), along a row and along a column
    spacing: np.ndarray  # (2,), of rows and of columns


def group_of(frame: Dataset, shared: Dataset | None, keyword: str) -> Dataset | None:
    """What is said of a frame, or else of all frames."""
    own = item_of(frame, keyword)
    return own if own is not None or shared is None else item_of(shared, keyword)


def place_of(frame: Dataset, shared: Dataset | None) -> FramePlace | None:
    """Where a frame lies; None if that is not said."""
    place = group_of(frame, shared, "PlanePositionSequence")
    orientation = group_of(frame, shared, "PlaneOrientationSequence")
    measures = group_of(frame, shared, "PixelMeasuresSequence")
    position = None if place is None else numbers_of(place, "ImagePositionPatient", 3)
    axes = None if orientation is None else numbers_of(orientation, "ImageOrientationPatient", 6)
    spacing = None if measures is None else numbers_of(measures, "PixelSpacing", 2)
    if position is None or axes is None or spacing is None:
        return None
    return FramePlace(position=position, axes=axes.reshape(2, 3), spacing=spacing)
