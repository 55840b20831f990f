"""What is measured of a case while it is in memory: the fingerprint is made of it, and the check adds to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import SerializerFunctionWrapHandler, model_serializer
from scipy import ndimage

from segfw.base.records import Record
from segfw.dataset.labels import LabelSet
from segfw.dataset.sides import may_be_paired
from segfw.grid.boxes import nonzero_box
from segfw.images.geometry import Shape, Spacing, as_shape, as_spacing
from segfw.images.units import Units, units_of
from segfw.images.values import LARGEST_TABLE, count_values
from segfw.images.volume import Volume, to_canonical

Point = tuple[float, float, float]  # (z, y, x) in millimetres, in canonical orientation from the first voxel on


class CaseMeasure(Record):
    """Figures of one case; shapes and spacing (z, y, x) in canonical orientation.

    ``in_pixels`` says that the image tells no size of its pixels: what is called millimetres is then pixels.
    """

    id: str
    shape: Shape
    spacing_mm: Spacing
    cropped_shape: Shape  # box of the voxels that are not zero
    label_voxels: dict[str, int]  # label value -> voxels
    label_centroids_mm: dict[str, Point] = {}  # empty where sides cannot matter
    in_pixels: bool = False

    @property
    def units(self) -> Units:
        """What lengths and sizes of the case are counted in."""
        return units_of(self.shape, is_placed=not self.in_pixels)

    @model_serializer(mode="wrap")
    def _scans_as_ever(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Work folders of scans hold digests of files that knew no pixels (``planner.request_digest``)."""
        return {key: value for key, value in dump(self).items() if key != "in_pixels" or value}


def measure_case(case_id: str, image: Volume, mask: Volume, labels: LabelSet | None) -> CaseMeasure:
    """Figures of a case, whose ``mask`` holds integer values of labels; ``labels`` None means unknown yet."""
    canonical = to_canonical(image)
    return CaseMeasure(
        id=case_id,
        shape=canonical.geometry.shape,
        spacing_mm=canonical.geometry.spacing_mm,
        cropped_shape=as_shape(stop - start for start, stop in nonzero_box(canonical.array)),
        label_voxels={str(value): voxels for value, voxels in count_values(mask.array).items()},
        label_centroids_mm=label_centroids_mm(mask, labels),
        in_pixels=not image.is_placed,
    )


def label_centroids_mm(mask: Volume, labels: LabelSet | None) -> dict[str, Point]:
    """Centroid of each value of a mask but 0.

    Nothing if no two of ``labels`` can be left and right of one thing; where labels are not known (None) they can.
    """
    if labels is not None and not may_be_paired(labels):
        return {}
    canonical = to_canonical(mask)
    values = canonical.array[0]
    if values.min() < 0 or values.max() >= LARGEST_TABLE:  # names alone must do then
        return {}
    found = {}
    for value, box in enumerate(ndimage.find_objects(values), start=1):
        if box is not None:
            start = np.array([part.start for part in box])
            place = start + centroid(values[box] == value)
            found[str(value)] = as_spacing(place * np.asarray(canonical.geometry.spacing_mm))
    return found


def centroid(inside: np.ndarray) -> np.ndarray:
    """Mean index (z, y, x) of the voxels of a mask; by sums along axes, as a list of voxels may be huge."""
    middle = []
    for axis in range(3):
        counts = inside.sum(tuple({0, 1, 2} - {axis}))
        middle.append(np.average(np.arange(len(counts)), weights=counts))
    return np.array(middle)
