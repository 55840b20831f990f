"""One read of every case: figures that can be counted by hand, and all problems of all cases in one error."""

import dataclasses
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from builders.data import blocks_case, write_nifti
from segfw.base.records import UserError
from segfw.dataset.layouts import find_dataset
from segfw.planning.fingerprint import DataProblems, scan_dataset
from segfw.verbs.plan_and_preprocess import plan_and_preprocess


def scan(raw: Path):
    return scan_dataset(find_dataset(raw), workers=2)


def hand_made(raw: Path, voxels: dict[str, list[float]]) -> Path:
    """Two folders; the mask of each case holds 7 where the image has the given intensities, in one row along x.

    Images are 6 x 5 x 4 (x, y, z) of zeros with a -1 at x, y, z = 1, 1, 1 and the row at y, z = 3, 2.
    """
    for case, intensities in voxels.items():
        image, mask = np.zeros((6, 5, 4), np.float32), np.zeros((6, 5, 4), np.uint8)
        image[1, 1, 1] = -1
        image[1 : 1 + len(intensities), 3, 2] = intensities
        mask[1 : 1 + len(intensities), 3, 2] = 7
        write_nifti(raw / "images" / f"{case}.nii.gz", image, spacing_xyz=(0.5, 2, 5))
        write_nifti(raw / "labels" / f"{case}.nii.gz", mask, spacing_xyz=(0.5, 2, 5))
    return raw


def test_figures_of_cases(tmp_path):
    manifest, fingerprint = scan(hand_made(tmp_path, {"a": [10, 10], "b": [20, 40, 20, 40]}))
    first, second = fingerprint.cases
    assert (first.id, second.id) == ("a", "b")
    assert first.shape == (4, 5, 6)
    assert first.spacing_mm == (5, 2, 0.5)
    assert first.cropped_shape == (2, 3, 2)  # z 1..2, y 1..3, x 1..2
    assert second.cropped_shape == (2, 3, 4)
    assert first.label_voxels == {"0": 118, "7": 2}
    assert fingerprint.median_crop_ratio == pytest.approx((12 / 120 + 24 / 120) / 2)
    assert manifest.labels.values == (0, 7)
    assert [channel.name for channel in manifest.channels] == ["image"]
    assert "labels found in the masks: 7" in manifest.notes


def test_intensities_of_the_foreground_with_each_case_counted_alike(tmp_path):
    _, fingerprint = scan(hand_made(tmp_path, {"a": [10, 10], "b": [20, 40, 20, 40]}))
    (stats,) = fingerprint.intensities
    assert stats.mean == pytest.approx(20)  # of 10 and 30, the means of the cases
    assert stats.std == pytest.approx(np.sqrt((100 + (400 + 1600) / 2) / 2 - 20**2))
    assert (stats.minimum, stats.maximum) == (10, 40)
    assert (stats.percentile_00_5, stats.percentile_99_5) == (10, 40)
    assert 10 <= stats.median <= 20  # half of the samples are 10, a quarter 20


def test_percentiles_come_near_those_of_all_voxels(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    image = rng.gamma(2, 50, (40, 40, 20)).astype(np.float32)
    write_nifti(tmp_path / "images" / "a.nii.gz", image)
    write_nifti(tmp_path / "labels" / "a.nii.gz", np.ones(image.shape, np.uint8))
    (stats,) = scan(tmp_path)[1].intensities
    low, high = np.percentile(image, (0.5, 99.5))
    # 250 of the 50 000 draws lie below the lower percentile: its standard error is about 3 %.
    assert (stats.percentile_00_5, stats.percentile_99_5) == pytest.approx((low, high), rel=0.1)
    assert (stats.mean, stats.std) == pytest.approx((image.mean(dtype=float), image.std(dtype=float)), rel=1e-6)


def test_storage_order_does_not_matter(tmp_path):
    image, mask = blocks_case(0)
    for case, axes in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        affine = np.zeros((4, 4))
        affine[axes, range(3)] = np.array([1.0, 1.5, 4])[list(axes)] * (1, -1, -1)
        affine[3, 3] = 1
        for folder, array in (("images", image), ("labels", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            stored = nibabel.Nifti1Image(array.transpose(axes)[:, ::-1, ::-1], affine)
            nibabel.save(stored, tmp_path / folder / f"{case}.nii.gz")
    first, second = scan(tmp_path)[1].cases
    assert second.model_copy(update={"id": "a"}) == first
    assert first.shape == (10, 18, 20)


def test_a_mask_stored_in_another_order_than_its_image_gives_the_same_figures(make_raw):
    raw = make_raw(cases=2)
    expected = scan(raw)[1]
    for path in (raw / "labelsTr").iterdir():
        nibabel.save(nibabel.load(path).as_reoriented([[1, -1], [2, 1], [0, -1]]), path)
    assert scan(raw)[1] == expected


def test_photographs_with_masks_of_another_format_and_one_note_for_all(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (4, 5, 3)).astype(np.uint8)).save(tmp_path / f"images/{number}_photo.tif")
        Image.fromarray(255 * np.eye(4, 5, dtype=np.uint8)).save(tmp_path / f"labels/{number}_vessels.gif")
    manifest, fingerprint = scan(tmp_path)
    assert manifest.labels.values == (0, 255)
    assert len(manifest.channels) == 3
    assert fingerprint.cases[0].shape == (1, 4, 5)
    assert fingerprint.cases[0].label_voxels == {"0": 16, "255": 4}
    assert fingerprint.length_unit == "px"
    (note,) = (note for note in manifest.notes if "no size of its pixels" in note)
    assert note.startswith(
        "note: 0 and 2 other cases: says no size of its pixels, so lengths and areas are in pixels; write"
    )


def test_labels_of_any_value_are_found(tmp_path):
    for case, values in (("a", (-3, 900)), ("b", (900, 41))):
        array = np.zeros((5, 6, 7), np.float32)
        array[1, 2, 3:5] = values
        write_nifti(tmp_path / "images" / f"{case}.nii.gz", array + (case == "b"))
        write_nifti(tmp_path / "labels" / f"{case}.nii.gz", array)
    manifest, fingerprint = scan(tmp_path)
    assert manifest.labels.values == (0, -3, 41, 900)
    assert manifest.labels.names == ("background", "label_-3", "label_41", "label_900")
    assert fingerprint.cases[0].label_voxels == {"-3": 1, "0": 208, "900": 1}


@pytest.mark.parametrize("scale", [0.99999997, 1.0000001])
def test_masks_stored_with_a_scale_factor(tmp_path, scale):
    image, mask = blocks_case(0)
    write_nifti(tmp_path / "images" / "a.nii.gz", image)
    (tmp_path / "labels").mkdir()
    stored = nibabel.Nifti1Image(mask, np.diag([1.0, 1.5, 4, 1]))
    stored.header.set_slope_inter(scale, 0)
    nibabel.save(stored, tmp_path / "labels" / "a.nii.gz")
    assert scan(tmp_path)[0].labels.values == (0, 3, 7)


@pytest.mark.parametrize("air, name", [(-1000, "CT"), (-10, "image")])
def test_hounsfield_units_are_recognised_by_their_air(tmp_path, air, name):
    image, mask = blocks_case(0)
    image[0] = air
    write_nifti(tmp_path / "images" / "a.nii.gz", image)
    write_nifti(tmp_path / "labels" / "a.nii.gz", mask)
    assert [channel.name for channel in scan(tmp_path)[0].channels] == [name]


def test_the_result_does_not_depend_on_the_number_of_threads(make_raw):
    found = find_dataset(make_raw(cases=4))
    assert scan_dataset(found, workers=1) == scan_dataset(found, workers=3)


# What is wrong with the data


def replace(path: Path, array_xyz: np.ndarray, **changes) -> None:
    write_nifti(path, array_xyz, **changes)


def broken_raw(raw: Path) -> dict[str, str]:
    """Breaks the cases of a raw folder in eleven ways; returns what the message must say of each."""

    def image(case: int) -> Path:
        return raw / "imagesTr" / f"case_{case:02}_0000.nii.gz"

    def mask(case: int) -> Path:
        return raw / "labelsTr" / f"case_{case:02}.nii.gz"

    shutil.copy(image(0), image(50))
    mask(1).unlink()
    image(2).write_text("not an image")
    content = image(3).read_bytes()
    image(3).write_bytes(content[: len(content) // 2])
    replace(mask(4), blocks_case(4)[1][:-1])
    replace(mask(5), blocks_case(5)[1], spacing_xyz=(1, 1.6, 4))
    replace(image(6), blocks_case(6)[0] * 0 + 5)
    with_nan = blocks_case(7)[0].astype(np.float32)
    with_nan[2, 3, 4] = np.nan
    replace(image(7), with_nan)
    replace(mask(8), blocks_case(8)[1] * np.float32(1.1))
    replace(mask(9), blocks_case(9)[1] + 1)
    replace(image(10), np.stack([blocks_case(10)[0]] * 2, -1), spacing_xyz=(1, 1.5, 4))
    return {
        "case_50": "imagesTr/case_50_0000.nii.gz: has no mask",
        "case_01": "imagesTr/case_01_0000.nii.gz: has no mask",
        "case_02": "case_02_0000.nii.gz: cannot be read (its compressed content is damaged",
        "case_03": "case_03_0000.nii.gz: cannot be read (its compressed content is cut short",
        "case_04": "labelsTr/case_04.nii.gz: the mask's grid differs from the image's: shape (z, y, x) (10, 18, 19)",
        "case_05": "labelsTr/case_05.nii.gz: the mask's grid differs from the image's: spacing (z, y, x) (4.0, 1.6",
        "case_06": "case_06_0000.nii.gz: every voxel has the value 5",
        "case_07": "case_07_0000.nii.gz: 1 voxel is NaN or infinite",
        "case_08": "case_08.nii.gz: holds 240 values that are not integers, such as 3.3",
        "case_09": "case_09.nii.gz: holds the label value 1, 4, 8, which dataset.json does not list",
        "case_10": "has 2 channels (fourth axis), expected 1",
    }


def test_all_problems_of_all_cases_come_in_one_error_and_nothing_is_written(make_raw, tmp_path):
    raw, work = make_raw(cases=12), tmp_path / "work"
    expected = broken_raw(raw)
    with pytest.raises(DataProblems) as caught:
        plan_and_preprocess(raw, work)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{raw}: {len(expected)} problems in 11 cases; nothing was started"
    assert len(lines) == len(expected)
    for case, words in expected.items():
        (line,) = (line for line in lines if line.strip().startswith(f"{case}: "))
        assert words in line
        assert "; " in line.partition(words)[2]  # and a remedy
    assert not work.exists()


def test_a_truncated_plain_nifti_is_named(make_raw):
    raw = make_raw(cases=2)
    for folder, name in (("imagesTr", "case_00_0000"), ("labelsTr", "case_00")):
        path = raw / folder / f"{name}.nii"
        nibabel.save(nibabel.load(path.with_suffix(".nii.gz")), path)
        path.with_suffix(".nii.gz").unlink()
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataProblems) as caught:
        scan(raw)
    image, mask = caught.value.findings
    assert (image.case, image.file, mask.file) == ("case_00", "imagesTr/case_00_0000.nii", "labelsTr/case_00.nii")
    assert "its header announces 7,552 bytes with the voxels, but 1,000 are stored" in image.what
    assert image.remedy == "copy or export the file again"


def test_channels_of_one_case_on_different_grids_are_named(make_raw):
    raw = make_raw(cases=2)
    (raw / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "T2", "1": "ADC"}, "labels": {"a": 3, "b": 7}})
    )
    for case in range(2):
        spacing = (1.0, 1.5, 4.0) if case else (2.0, 3.0, 4.0)
        write_nifti(raw / "imagesTr" / f"case_{case:02}_0001.nii.gz", blocks_case(case + 9)[0], spacing_xyz=spacing)
    with pytest.raises(DataProblems) as caught:
        scan(raw)
    (problem,) = caught.value.findings
    assert problem.full_sentence == (
        "case_00: imagesTr/case_00_0001.nii.gz: its grid differs from imagesTr/case_00_0000.nii.gz: "
        "spacing (z, y, x) (4.0, 3.0, 2.0) against (4.0, 1.5, 1.0) mm; resample all channels of a case onto one grid"
    )


def test_cases_with_different_numbers_of_channels_are_named_where_nothing_says_how_many(tmp_path):
    for case in ("a", "b", "c"):
        image, mask = blocks_case(ord(case))
        four = np.stack([image, image + 1, image + 2], -1) if case == "b" else image
        write_nifti(tmp_path / "images" / f"{case}.nii.gz", four)
        write_nifti(tmp_path / "labels" / f"{case}.nii.gz", mask)
    with pytest.raises(DataProblems, match="b: has 3 channels, but a has 1; give every case the same channels"):
        scan(tmp_path)


def test_an_empty_mask_is_a_warning_kept_in_the_notes(make_raw):
    raw = make_raw(cases=3)
    write_nifti(raw / "labelsTr" / "case_01.nii.gz", np.zeros((20, 18, 10), np.uint8))
    manifest, fingerprint = scan(raw)
    (note,) = manifest.notes
    assert note.startswith("warning: case_01: labelsTr/case_01.nii.gz: the mask is empty; ")
    assert fingerprint.cases[1].label_voxels == {"0": 3600}
    assert fingerprint.intensities[0] is not None  # of the other two


@pytest.mark.parametrize("with_json", [True, False])
def test_nothing_but_empty_masks_is_an_error(make_raw, with_json):
    raw = make_raw(cases=3)
    for case in range(3):
        write_nifti(raw / "labelsTr" / f"case_{case:02}.nii.gz", np.zeros((20, 18, 10), np.uint8))
    if not with_json:
        (raw / "dataset.json").unlink()
        (raw / "imagesTr").rename(raw / "images")
        (raw / "labelsTr").rename(raw / "labels")
    with pytest.raises(UserError, match="every mask is empty; draw at least one structure"):
        scan(raw)


def test_copies_of_an_image_under_several_names_are_named(make_raw):
    raw = make_raw(cases=4)
    for copy in (2, 3):
        nibabel.save(  # the same voxels in another file
            nibabel.load(raw / "imagesTr" / "case_00_0000.nii.gz"), raw / "imagesTr" / f"case_{copy:02}_0000.nii"
        )
        (raw / "imagesTr" / f"case_{copy:02}_0000.nii.gz").unlink()
    notes = scan(raw)[0].notes
    assert notes == tuple(
        f"warning: case_{copy:02}: imagesTr/case_{copy:02}_0000.nii: the image is the same as that of case_00; "
        "keep one of them"
        for copy in (2, 3)
    )


def test_a_folder_without_cases_is_named(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [], "modality": {"0": "CT"}, "labels": {"1": "a"}}))
    with pytest.raises(UserError, match="no training cases found; is it the right folder"):
        scan(tmp_path)


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name, classes, shape",
    [
        ("hippocampus", 3, (35, 52, 34)),
        ("cardiac_cine", 4, (10, 256, 232)),
        ("head_neck_ct", 8, (128, 128, 128)),
        ("brain_tumour_2channel", 5, (155, 240, 240)),
        ("brain_slices_2d_many_labels", 50, (1, 291, 216)),
        ("spleen_ct_one_case", 2, (26, 166, 164)),
    ],
)
def test_real_data_sets_have_no_problems(real_data, name, classes, shape):
    found = find_dataset(real_data / name)
    few = found.cases[: 1 if name == "brain_tumour_2channel" else 2]
    manifest, fingerprint = scan_dataset(dataclasses.replace(found, cases=few), workers=1)
    assert manifest.labels.classes == classes
    assert fingerprint.cases[0].shape == shape
    assert not [note for note in manifest.notes if note.startswith("warning")]
    assert all(stats.std > 0 for stats in fingerprint.intensities)


@pytest.mark.real_data
def test_real_interpolated_masks_are_refused(real_data):
    folder = real_data / "refuse_or_repair" / "interpolated_masks"
    with pytest.raises(DataProblems) as caught:
        scan(folder)
    assert caught.value.findings[0].full_sentence == (
        "id001-128x128x64: labels/id001-128x128x64-msk.nii.gz: holds 125412 values that are not integers, such as "
        "0.002707; the mask was interpolated; export it again with nearest neighbour, or if it is an image, see "
        f"whether {folder / 'labels'} holds the images instead of the masks"
    )


@pytest.mark.real_data
def test_real_channels_on_different_grids_are_refused(real_data, tmp_path):
    source = real_data / "refuse_or_repair" / "channels_on_different_grids"
    images = sorted((source / "images").glob("ProstateX*"))
    for folder, stem, paths in (("images", "p_{:04}", images), ("labels", "p", [next((source / "labels").iterdir())])):
        (tmp_path / folder).mkdir()
        for number, path in enumerate(paths):
            shutil.copy(path, tmp_path / folder / f"{stem.format(number)}.nii.gz")
    with pytest.raises(DataProblems) as caught:
        scan(tmp_path)
    files = [
        problem.file
        for problem in caught.value.findings
        if "its grid differs from images/p_0000.nii.gz" in problem.what
    ]
    assert files == ["images/p_0001.nii.gz", "images/p_0002.nii.gz"]


@pytest.mark.real_data
def test_the_same_real_image_under_three_names_is_named(real_data, tmp_path):
    paths = sorted((real_data / "refuse_or_repair" / "same_image_three_ids" / "images").iterdir())
    assert len(paths) == 3
    (tmp_path / "images").symlink_to(paths[0].parent)
    (tmp_path / "labels").mkdir()
    for path in paths:
        image = nibabel.load(path)
        mask = np.zeros(image.shape[:3], np.uint8)
        mask[1, 1, 1] = 1
        nibabel.save(nibabel.Nifti1Image(mask, image.affine), tmp_path / "labels" / path.name)
    notes = scan(tmp_path)[0].notes
    assert sum("the image is the same as that of" in note for note in notes) == 2
