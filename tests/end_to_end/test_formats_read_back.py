"""What predict writes in each format, read and scored by segfw's own readers: the mask that it was made of."""

from __future__ import annotations

import numpy as np
import pytest

from builders import dicom_masks
from builders.data import blocks_case
from builders.series import OBLIQUE, write_series
from builders.written import LABELS, finished
from segfw.dataset.named_structures import drawn_as_of
from segfw.images.formats import read_mask, read_volume
from segfw.interop.segmentation_format import SegmentationFormat
from segfw.interop.write_rtstruct import StructureSetFormat
from segfw.interop.write_seg_nrrd import SegNrrdFormat
from segfw.verbs.evaluate import evaluate
from segfw.verbs.predict import predict


@pytest.mark.parametrize("axes", [None, OBLIQUE])
def test_every_format_is_read_and_scored_as_the_mask_that_it_was_made_of(model, axes, tmp_path):
    scans = tmp_path / "scans"
    for number, case in enumerate("ab", 1):
        image, _ = blocks_case(number)
        place = {} if axes is None else {"axes": axes}
        write_series(scans / case, image.T * 100, shuffled=number, spacing_mm=(2.0, 1.0, 1.0), number=number, **place)
    out = tmp_path / "masks"
    predict(model, scans, out, device="cpu", formats=("nifti", "seg.nrrd", "dicom-seg", "rtstruct"))
    for folder, ending in (("seg-nrrd", ".seg.nrrd"), ("dicom-seg", ".dcm"), ("rtstruct", ".dcm")):
        for case in "ab":
            mask = read_mask(out / f"{case}.nii.gz")
            assert set(np.unique(mask.array).tolist()) == {0, 3, 7}
            again = read_mask(out / folder / f"{case}{ending}", read_volume(scans / case))
            # Numbers of structures in a file are its own: 1 and 2 for the values 3 and 7
            meaning = {"seg-nrrd": {3: 3, 7: 7}}.get(folder, {3: 1, 7: 2})
            for value, number in meaning.items():
                np.testing.assert_array_equal(again.array == number, mask.array == value)
        scores = evaluate(out / folder, out, surface=False)
        assert len(scores.cases) == 2
        assert {score.dice for case in scores.cases.values() for score in case.values()} == {1.0}


FORMATS = (
    StructureSetFormat(holes="keyhole"),
    StructureSetFormat(holes="xor"),
    SegmentationFormat(),
    SegmentationFormat(is_labelmap=True),
    SegNrrdFormat(),
)


GRIDS = {"straight": dicom_masks.Grid(), "oblique": dicom_masks.OBLIQUE, "tilted": dicom_masks.TILTED}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("format", FORMATS, ids=["keyhole", "xor", "binary", "labelmap", "seg.nrrd"])
def test_noise_holes_and_single_voxels_come_back(format, grid, tmp_path):
    """Half of all voxels drawn at random: outlines with islands in holes, corners that touch, structures of a voxel."""
    rng = np.random.default_rng(11)
    series = dicom_masks.write_series(tmp_path / "ct", rng.normal(0, 100, grid.shape), grid, StudyID="1")
    volume = read_volume(series)
    shape = volume.geometry.shape
    ring = np.zeros(shape, np.uint8)
    ring[:, 1:11, 1:9] = 1
    ring[:, 4:8, 3:7] = 0
    ring[:, 5:7, 4:6] = 2
    voxel = np.zeros(shape, np.uint8)
    voxel[-1, -1, -1] = 7
    noise = rng.choice([0, 1, 2], shape, p=[0.5, 0.3, 0.2]).astype(np.uint8)
    for name, values in {"noise": noise, "ring": ring, "voxel": voxel}.items():
        mask = finished(values, volume.geometry, series, case_id=name)
        format.write(tmp_path / "out", mask)
        path = tmp_path / "out" / format.files(name)[-1]
        again = read_mask(path, volume, drawn_as_of(path, LABELS))
        np.testing.assert_array_equal(again.array[0], values)
