"""The data check on made-up bodies: every planted defect is found and its case named; clean data gives no alarm."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from builders.bodies import SHAPE_XYZ, SPACING_XYZ, body_case, files, kinds_of, read, with_nan
from builders.data import touch_files, write_nifti
from segfw.base.records import UserError
from segfw.base.robust import find_outliers
from segfw.checkup.case_details import label_boxes, orientation
from segfw.checkup.check_report import CheckReport
from segfw.checkup.signature import signature
from segfw.images.geometry import Geometry
from segfw.verbs.check import check_dataset


def rewrite(path: Path, change, spacing_xyz: tuple = SPACING_XYZ) -> None:
    write_nifti(path, change(read(path)), spacing_xyz=spacing_xyz)


def alarmed(report: CheckReport) -> set[str]:
    return {finding.case for finding in report.findings if finding.severity != "note"}


def test_clean_data_gives_no_alarm_and_a_summary(raw):
    report = check_dataset(raw, workers=2)
    assert report.findings == ()
    assert report.exit_code == 0
    assert [label.cases for label in report.labels] == [12, 12, 12]
    text = report.text()
    assert text.startswith(f"{raw}: 12 cases, 0 errors, 0 warnings, 0 notes\n")
    assert "shape (z, y, x): 12 x 26 x 30" in text
    assert "spacing in mm (z, y, x): 4 x 1.5 x 1" in text
    figures = report.cases[3]
    assert figures.labels[5].size == pytest.approx(np.sum(body_case(3)[1] == 5) * 6 / 1000)


def erase_half(mask: np.ndarray) -> np.ndarray:
    mask = mask.copy()
    mask[..., 5:][mask[..., 5:] == 1] = 0
    return mask


def add_island(mask: np.ndarray) -> np.ndarray:
    mask[14:16, 4:6, 9] = 5
    return mask


def exchange(mask: np.ndarray) -> np.ndarray:
    return np.array([0, 2, 1, 0, 0, 5], np.uint8)[mask]


def with_garbage(image: np.ndarray) -> np.ndarray:
    image[15, 12, 6] = 30000
    return image


DEFECTS = {
    "scaled": (0, lambda image: image / 150, "outlier-intensity"),
    "shifted": (0, lambda image: image + 1024, "outlier-intensity"),
    "garbage": (0, with_garbage, "extreme-values"),
    "nan": (0, with_nan, "image-nan"),
    "constant": (0, lambda image: image * 0 + 5, "constant-image"),
    "half": (1, erase_half, "outlier-volume"),
    "island": (1, add_island, "label-island"),
    "exchanged": (1, exchange, "left-right-swap"),
    "off": (1, lambda mask: np.roll(mask, 12, 0), "label-outside-body"),
    "without": (1, lambda mask: mask * (mask != 2), "missing-label"),
    "empty": (1, lambda mask: mask * 0, "empty-mask"),
    "interpolated": (1, lambda mask: mask * np.float32(1.3), "mask-not-integer"),
    "unknown": (1, lambda mask: mask + (mask == 5), "unknown-label"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found_in_its_case_alone(raw, name):
    which, change, kind = DEFECTS[name]
    rewrite(files(raw, "case_07")[which], change)
    report = check_dataset(raw, workers=2)
    assert kind in kinds_of(report, "case_07")
    assert alarmed(report) == {"case_07"}
    assert report.exit_code == 1


def test_spacing_and_size_unlike_the_others(raw):
    for path in files(raw, "case_02"):
        rewrite(path, lambda array: array, spacing_xyz=(1, 1.5, 12))
    for path in files(raw, "case_09"):
        rewrite(path, lambda array: array[:, :10])
    report = check_dataset(raw, workers=2)
    assert {"outlier-spacing", "outlier-size"} <= kinds_of(report, "case_02")
    assert "outlier-size" in kinds_of(report, "case_09")
    (spacing,) = (finding for finding in report.findings if finding.kind == "outlier-spacing")
    assert "along z is 12 mm; in the others it is 4 mm" in spacing.what


def as_stored_from_the_right(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    affine = np.diag([-SPACING_XYZ[0], *SPACING_XYZ[1:], 1])
    affine[0, 3] = (SHAPE_XYZ[0] - 1) * SPACING_XYZ[0]
    return array[::-1], affine


@pytest.mark.parametrize(
    "change",
    [
        lambda image: 0.3 * image + 40,
        lambda image: image + np.random.default_rng(0).normal(0, 3, image.shape),
        lambda image: np.rint(image).astype(np.uint8),
        lambda image: image[::-1] + 1,
    ],
    ids=["rescaled", "noise", "cast", "mirrored"],
)
def test_one_image_in_other_numbers_under_two_ids(raw, change):
    image, mask = (read(path) for path in files(raw, "case_04"))
    for path, array in zip(files(raw, "other"), (change(image), mask)):
        write_nifti(path, array, spacing_xyz=SPACING_XYZ)
    duplicates = [found for found in check_dataset(raw, workers=2).findings if found.kind == "near-duplicate"]
    assert [(found.case, found.others) for found in duplicates] == [("other", ("case_04",))]


def test_one_image_stored_in_another_direction_is_a_duplicate_and_a_note(raw):
    for source, path in zip(files(raw, "case_04"), files(raw, "other")):
        nibabel.save(nibabel.Nifti1Image(*as_stored_from_the_right(read(source))), path)
    report = check_dataset(raw, workers=2)
    assert {finding.kind: finding.others for finding in report.findings} == {
        "near-duplicate": ("case_04",),
        "mixed-orientation": ("other",),
    }
    assert next(found for found in report.findings if found.kind == "mixed-orientation").severity == "note"


def test_two_phases_of_one_patient_are_a_note_and_no_duplicates(raw):
    for number in range(12):
        for path in files(raw, f"case_{number:02}"):
            path.rename(path.with_name(path.name.replace(f"case_{number:02}", f"patient{number:03}_frame01")))
    image, mask = (read(path) for path in files(raw, "patient003_frame01"))
    second = np.where(mask == 5, image * 1.3, image)
    for path, array in zip(files(raw, "patient003_frame07"), (second, mask)):
        write_nifti(path, array, spacing_xyz=SPACING_XYZ)
    report = check_dataset(raw, workers=2)
    (note,) = report.findings
    assert (note.kind, note.severity) == ("same-patient", "note")
    assert note.others == ("patient003_frame01", "patient003_frame07")
    assert report.exit_code == 0
    with pytest.raises(UserError, match="matches no case id"):
        check_dataset(raw, groups="(nothing)")


def test_a_label_in_fewer_cases_than_folds(raw):
    for number in range(12):
        if number not in (2, 5, 6):
            rewrite(files(raw, f"case_{number:02}")[1], lambda mask: np.where(mask == 5, 0, mask).astype(np.uint8))
    (finding,) = check_dataset(raw, workers=2).findings
    assert (finding.kind, finding.severity) == ("rare-label", "warning")
    assert finding.others == ("case_02", "case_05", "case_06")
    assert "liver (value 5) is in 3 cases only" in finding.what


def test_names_that_say_left_on_the_right_everywhere_are_a_note(raw):
    for number in range(12):
        rewrite(files(raw, f"case_{number:02}")[1], exchange)
    (finding,) = check_dataset(raw, workers=2).findings
    assert (finding.kind, finding.severity) == ("sides-by-name", "note")


def test_few_cases_give_no_statistics(raw):
    for number in range(7, 12):
        for path in files(raw, f"case_{number:02}"):
            path.unlink()
    for which, change, _ in (DEFECTS["shifted"], DEFECTS["exchanged"]):
        rewrite(files(raw, "case_03")[which], change)
    assert check_dataset(raw, workers=2).exit_code == 0


def test_broken_files_are_errors_and_the_others_are_still_measured(raw):
    image, mask = files(raw, "case_01")
    image.write_bytes(image.read_bytes()[:500])
    files(raw, "case_02")[1].unlink()
    shutil.copy(files(raw, "case_03")[0], files(raw, "case_05")[0])
    report = check_dataset(raw, workers=2)
    assert kinds_of(report, "case_01") == {"unreadable"}
    assert kinds_of(report, "case_02") == {"missing-mask"}
    assert kinds_of(report, "case_05") >= {"same-image"}
    assert (report.case_count, len(report.cases)) == (12, 10)
    assert report.findings[0].severity == "error"
    assert "measured: 10 cases; the others have errors" in report.text()


def test_a_broken_layout_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="expected images/ and labels/"):
        check_dataset(touch_files(tmp_path, {"scans": ["a"]}))


def test_the_result_does_not_depend_on_the_number_of_threads(raw):
    rewrite(files(raw, "case_03")[1], add_island)
    assert check_dataset(raw, workers=1) == check_dataset(raw, workers=3)


def test_json_and_page_hold_all_and_escape_every_text(raw, tmp_path):
    rewrite(files(raw, "case_03")[1], add_island)
    for path in files(raw, "case_08"):
        path.rename(path.with_name(path.name.replace("case_08", "a&b<c>")))
    rewrite(files(raw, "a&b<c>")[1], exchange)
    report = check_dataset(raw, output=tmp_path / "out", workers=2)
    assert CheckReport.load(tmp_path / "out" / "check.json") == report
    page = (tmp_path / "out" / "check.html").read_text(encoding="utf-8")
    assert "a&amp;b&lt;c&gt;" in page
    assert "a&b<c>" not in page
    assert page.count("data:image/png;base64,") == 12 + 2  # every case, and the place of each finding
    assert "http" not in page


def test_a_mask_on_another_grid_is_an_error_that_can_be_repaired(raw):
    rewrite(files(raw, "case_03")[1], lambda mask: mask[:, :20])
    report = check_dataset(raw, workers=2)
    (finding,) = (each for each in report.findings if each.kind == "mask-grid")
    assert (finding.case, finding.severity, finding.file) == ("case_03", "error", "labelsTr/case_03.nii.gz")
    assert finding.what.startswith("the mask's grid differs from the image's: shape")
    assert finding.fixable


def test_outliers_of_hand_made_numbers():
    values = [10, 11, 9, 10, 10.5, 9.5, 10, 10.2, 30]
    (outlier,) = find_outliers(np.array(values), least=1)
    assert outlier.index == 8
    assert outlier.z > 6
    assert outlier.usual == (9, 11)
    assert find_outliers(np.array(values), least=25) == []
    assert find_outliers(np.array(values[-7:]), least=1) == []  # too few cases
    assert find_outliers(np.array(values + [30, 31]), least=1) == []  # three of eleven are no slips
    assert find_outliers(np.array([0] * 8 + [5.5, 6.5]), least=6) == []  # a tail has no gap


def test_signature_is_of_the_image_and_not_of_its_numbers():
    image, other = (np.random.default_rng(seed).normal(size=(1, 20, 30, 40)) for seed in (0, 1))
    assert np.vdot(signature(image), signature(image * 7 - 3)) == pytest.approx(1, abs=1e-5)
    assert abs(np.vdot(signature(image), signature(other))) < 0.1
    assert not signature(np.ones((1, 5, 6, 7))).any()
    assert signature(image[:, :1]).shape[0] == 1


def test_boxes_of_any_values_and_orientation():
    values = np.zeros((3, 4, 5), np.int32)
    values[1, 2, 3:5] = -70000
    values[0, 0, 0] = 4
    assert label_boxes(values) == {-70000: np.s_[1:2, 2:3, 3:5], 4: np.s_[0:1, 0:1, 0:1]}
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0], affine[3, 3] = -1, 1.5, 4, 1  # x to the left, y to the front, z up
    assert orientation(Geometry.of((3, 4, 5), affine)) == "LAS"


def test_images_without_masks_are_checked_for_what_can_be_told(tmp_path):
    folder = tmp_path / "raw" / "images"
    rng = np.random.default_rng(0)
    for name, array in (("a", first := rng.normal(size=(4, 6, 5))), ("b", rng.normal(size=(4, 6, 5))), ("c", first)):
        write_nifti(folder / f"{name}.nii.gz", array.astype(np.float32))
    report = check_dataset(tmp_path / "raw")
    assert [(finding.kind, finding.case, finding.others) for finding in report.findings] == [
        ("same-image", "c", ("a",))
    ]
    assert "there are no masks (labels/): only the images were checked" in report.text()
    with pytest.raises(UserError, match="has no masks .labels/., without which nothing is repaired"):
        check_dataset(tmp_path / "raw", fix=tmp_path / "fixed")


def test_pictures_without_a_spacing_are_no_alarm(tmp_path):
    SimpleITK = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(0)
    for number in range(3):
        for folder, array in (("images", rng.integers(0, 255, (20, 30))), ("labels", rng.integers(0, 2, (20, 30)))):
            path = tmp_path / folder / f"case_{number}.png"
            path.parent.mkdir(exist_ok=True)
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.astype(np.uint8)), str(path))
    report = check_dataset(tmp_path)
    assert report.exit_code == 0, report.text()
    assert [finding.kind for finding in report.findings] in ([], ["no-spacing"])
