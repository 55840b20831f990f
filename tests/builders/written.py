"""Masks that are ready to be written, and what files of them hold, read by libraries that segfw does not write with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from skimage.draw import polygon2mask

from segfw.dataset.finished_mask import FinishedMask, MaskMaker
from segfw.dataset.labels import LabelSet
from segfw.images.geometry import Geometry

DIGEST = "0123456789abcdef" * 4
LABELS = LabelSet(
    names=("background", "kidney_left", "my thing", "kidney_right", "never there"), values=(0, 1, 2, 7, 9)
)


def finished(values_zyx: np.ndarray, geometry: Geometry, image: Path | None, **changes: object) -> FinishedMask:
    """A mask of a model '3d_fullres' with LABELS, unless ``changes`` say otherwise."""
    given: dict = {"labels": LABELS, "maker": MaskMaker(name="segfw 3d_fullres", digest=DIGEST), "case_id": "case"}
    return FinishedMask(values_zyx=values_zyx, geometry=geometry, image=image, **given | changes)


def masks_in_segmentation(path: Path, positions_mm: np.ndarray) -> dict[str, np.ndarray]:
    """{label: voxels (Z, Y, X)} by pydicom's own decoder, in slices at ``positions_mm``."""
    from pydicom import dcmread

    dataset = dcmread(path)
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in dataset.SegmentSequence}
    shape = (len(positions_mm), dataset.Rows, dataset.Columns)
    found = {name: np.zeros(shape, bool) for number, name in names.items() if number}
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence):
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        z = int(np.abs(positions_mm - place).max(1).argmin())
        assert np.abs(positions_mm[z] - place).max() < 1e-5
        if "SegmentIdentificationSequence" in group:
            number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            found[names[number]][z] |= frame > 0
        else:
            for number in set(np.unique(frame).tolist()) - {0}:
                found[names[number]][z] |= frame == number
    return found


def masks_in_structure_set(path: Path, series: Path) -> dict[str, np.ndarray]:
    """{ROI: voxels (Z, Y, X)}: every outline brought to its slice's voxels and filled by scikit-image."""
    from pydicom import dcmread

    slices = [dcmread(file, stop_before_pixels=True) for file in sorted(series.iterdir())]
    normal = np.cross(*np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3))
    slices.sort(key=lambda part: np.array(part.ImagePositionPatient, float) @ normal)
    number_of = {part.SOPInstanceUID: z for z, part in enumerate(slices)}
    shape = (len(slices), slices[0].Rows, slices[0].Columns)
    dataset = dcmread(path)
    names = {item.ROINumber: item.ROIName for item in dataset.StructureSetROISequence}
    found = {}
    for item in dataset.ROIContourSequence:
        mask = np.zeros(shape, bool)
        for contour in item.get("ContourSequence", ()):
            z = number_of[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            axes = np.array(slices[z].ImageOrientationPatient, float).reshape(2, 3)
            spacing_y, spacing_x = (float(value) for value in slices[z].PixelSpacing)
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints
            offsets = points - np.array(slices[z].ImagePositionPatient, float)
            assert np.abs(offsets @ normal).max() < 1e-4
            corners = np.stack([offsets @ axes[1] / spacing_y, offsets @ axes[0] / spacing_x], 1)
            mask[z] ^= polygon2mask(shape[1:], corners)
        found[names[item.ReferencedROINumber]] = mask
    return found
