"""What predict writes in each format, read and scored by segfw's own readers: the mask that it was made of."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from builders import dicom_masks
from builders.data import blocks_case, make_images, write_nifti
from builders.series import OBLIQUE, write_series
from builders.written import LABELS, finished
from segfw.base.records import UserError
from segfw.dataset.named_structures import drawn_as_of
from segfw.images.formats import read_mask, read_volume
from segfw.interop.segmentation_format import SegmentationFormat
from segfw.interop.write_rtstruct import StructureSetFormat
from segfw.interop.write_seg_nrrd import SegNrrdFormat
from segfw.measurements.cohort_measures import Measures
from segfw.verbs.evaluate import evaluate
from segfw.verbs.measure import measure
from segfw.verbs.predict import predict


@pytest.mark.parametrize("axes", [None, OBLIQUE])
def test_every_format_is_read_and_scored_as_the_mask_that_it_was_made_of(model, axes, tmp_path):
    scans = tmp_path / "scans"
    for number, case in enumerate("ab", 1):
        image, _ = blocks_case(number)
        place = {} if axes is None else {"axes": axes}
        write_series(scans / case, image.T * 100, shuffled=number, spacing_mm=(2.0, 1.0, 1.0), number=number, **place)
    out = tmp_path / "masks"
    predict(model, scans, out, device="cpu", formats=("nifti", "seg.nrrd", "dicom-seg", "rtstruct", "bids"))
    for folder, ending in (("seg-nrrd", ".seg.nrrd"), ("dicom-seg", ".dcm"), ("rtstruct", ".dcm")):
        for case in "ab":
            mask = read_mask(out / f"{case}.nii.gz")
            assert set(np.unique(mask.array).tolist()) == {0, 3, 7}
            again = read_mask(out / folder / f"{case}{ending}", read_volume(scans / case))
            # Numbers of structures in a file are its own: 1 and 2 for the values 3 and 7
            meaning = {"seg-nrrd": {3: 3, 7: 7}}.get(folder, {3: 1, 7: 2})
            for value, number in meaning.items():
                np.testing.assert_array_equal(again.array == number, mask.array == value)
    measured = numbers_of(measure(out, tmp_path / "plain.csv", images=scans))
    assert {name for _, name in measured} == {"bright", "dark"}
    for folder in ("seg-nrrd", "dicom-seg", "rtstruct", "bids"):
        for predictions, reference in ((out / folder, out), (out, out / folder)):
            scores = evaluate(predictions, reference, surface=False)
            assert len(scores.cases) == 2
            assert scores.labels.keys() == {"bright", "dark"}
            assert {score.dice for case in scores.cases.values() for score in case.values()} == {1.0}
        assert numbers_of(measure(out / folder, tmp_path / f"{folder}.csv", images=scans)) == measured


def numbers_of(measures: Measures) -> dict[tuple[str, str], tuple]:
    """Status, voxels, millilitres and a place by case, without what BIDS puts before it, and structure.

    Rounded, because NIfTI has its affine in single precision.
    """
    found = {}
    for row in measures.rows:
        place_mm = [round(part, 3) for part in row.centroid_ras_mm]
        numbers = (row.status, row.voxels, round(row.volume_ml, 5), *place_mm)
        found[row.case.removeprefix("sub-"), row.structure] = numbers
    return found


def test_structures_that_were_not_looked_for_are_not_missed_in_any_format(model, tmp_path):
    image, _ = blocks_case(1)
    write_series(tmp_path / "scans" / "a", image.T * 100, spacing_mm=(2.0, 1.0, 1.0))
    predict(model, tmp_path / "scans", tmp_path / "all", device="cpu")
    out = tmp_path / "masks"
    predict(
        model, tmp_path / "scans", out, device="cpu", only=("dark",), formats=("nifti", "seg.nrrd", "rtstruct", "bids")
    )
    for folder in ("", "seg-nrrd", "rtstruct", "bids"):
        scores = evaluate(out / folder, tmp_path / "all", surface=False)
        assert {name: mean.dice for name, mean in scores.labels.items()} == {"dark": 1.0}


def test_a_tree_of_bids_masks_that_was_copied_says_its_names_itself(model, tmp_path):
    images = make_images(tmp_path / "images", 2)
    predict(model, images, tmp_path / "masks", device="cpu", formats=("nifti", "bids"))
    copied = (tmp_path / "masks" / "bids").rename(tmp_path / "derivatives")
    measures = measure(copied, tmp_path / "m.csv", images=images)
    assert {(row.case, row.structure) for row in measures.rows} == set(product(["sub-a", "sub-b"], ["bright", "dark"]))
    one = measure(copied / "sub-a" / "anat", tmp_path / "one.csv", images=images)
    assert {row.case for row in one.rows} == {"sub-a_desc-draft_dseg"}
    with pytest.raises(UserError, match=r"anat: has no prediction for 1 of 2 references \(b\)"):
        evaluate(copied / "sub-a" / "anat", tmp_path / "masks")


def test_a_mask_and_a_folder_of_series_with_other_names(tmp_path):
    image, mask = blocks_case(1)
    write_series(tmp_path / "scans" / "a", image.T)
    write_nifti(tmp_path / "masks" / "other.nii.gz", mask)
    with pytest.raises(UserError, match=r"scans: no image is named like a mask \(here a; the masks are other\)"):
        measure(tmp_path / "masks", tmp_path / "m.csv", images=tmp_path / "scans")


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
