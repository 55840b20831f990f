"""The data check on real images: clean sets give no alarm, and each of many planted defects is found in its case."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from segfw.checkup.check_report import CheckReport
from segfw.verbs.check import check_dataset

pytestmark = pytest.mark.real_data

Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]  # voxels and affine to the same


def copied(source: Path, target: Path, cases: list[str]) -> Path:
    """A copy of some cases of a data set."""
    folders = ("imagesTr", "labelsTr") if (source / "imagesTr").is_dir() else ("images", "labels")
    for folder in folders:
        (target / folder).mkdir(parents=True)
        for path in (source / folder).iterdir():
            if path.name.removesuffix(".nii.gz").removesuffix("_0000") in cases:
                shutil.copy(path, target / folder)
    if (source / "dataset.json").is_file():
        shutil.copy(source / "dataset.json", target)
    return target


def cases_of(source: Path, number: int) -> list[str]:
    folder = source / ("labelsTr" if (source / "labelsTr").is_dir() else "labels")
    return sorted(path.name.removesuffix(".nii.gz") for path in folder.iterdir())[:number]


def rewrite(path: Path, change: Change, to: Path | None = None) -> None:
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(*change(np.asarray(image.dataobj), image.affine)), to or path)


def alarms(report: CheckReport, case: str) -> set[str]:
    return {
        finding.kind
        for finding in report.findings
        if finding.severity != "note" and case in (finding.case, *finding.others)
    }


@pytest.mark.parametrize(
    "name, number, notes",
    [
        ("hippocampus", 60, {"other-units"}),
        ("cardiac_cine", None, {"same-patient"}),
        ("brain_slices_2d_many_labels", None, {"rare-label"}),
    ],
)
def test_clean_sets_give_no_alarm(real_data, tmp_path, name, number, notes):
    source = real_data / name
    raw = source if number is None else copied(source, tmp_path / "raw", cases_of(source, number))
    report = check_dataset(raw, workers=2)
    assert report.exit_code == 0, report.text()
    assert {finding.kind for finding in report.findings} == notes


def test_one_clean_case_is_too_few_and_nothing_else(real_data):
    report = check_dataset(real_data / "spleen_ct_one_case", workers=2)
    assert [(finding.kind, finding.severity) for finding in report.findings] == [("too-few-cases", "error")]


def test_real_defects_of_planning_cts_are_found(real_data):
    report = check_dataset(real_data / "head_neck_ct", workers=2)
    found = {(finding.case, finding.kind) for finding in report.findings if finding.severity != "note"}
    assert found == {("pt_100", "extreme-values"), ("pt_269", "extreme-values"), ("pt_260", "outlier-volume")}


def scaled(array, affine):
    return (array / np.float32(4000)).astype(np.float32), affine


def shifted(array, affine):
    return array.astype(np.float32) + 2000, affine


def garbage(array, affine):
    array = array.astype(np.float32)
    array[60:62, 60, 60] = 32000
    return array, affine


def not_a_number(array, affine):
    array = array.astype(np.float32)
    array[5, 5, 5] = np.nan
    return array, affine


def noisy(array, affine):
    noise = np.random.default_rng(0).normal(0, 0.05 * array.std(), array.shape)
    return (0.7 * array + noise + 30).astype(np.float32), affine


def mirrored(array, affine):
    turned = affine.copy()
    turned[:3, 0], turned[:3, 3] = -affine[:3, 0], affine[:3, 3] + affine[:3, 0] * (array.shape[0] - 1)
    return (array[::-1] * np.float32(1.1)).astype(np.float32), turned


def island(array, affine):
    array = array.copy()
    array[20:23, 64:67, 64:67] = 5
    return array, affine


def parotids_exchanged(array, affine):
    return np.array([0, 1, 2, 4, 3, 5, 6, 7], np.uint8)[array.astype(int)], affine


def off_the_body(array, affine):
    return np.roll(array, 45, 1), affine


def jaw_for_brainstem(array, affine):
    return np.where(ndimage.binary_dilation(array == 1, iterations=3), 1, array).astype(array.dtype), affine


def coarser(array, affine):
    return array, affine @ np.diag([1, 1, 3, 1])


def moved_grid(array, affine):
    moved = affine.copy()
    moved[:3, 3] += (9, 0, 0)
    return array, moved


def moved_by_a_voxel(array, affine):
    moved = affine.copy()
    moved[0, 3] += 0.9
    return array, moved


# Case -> which files change ("images", "labels" or both), how, and the kind of finding.
DEFECTS: dict[str, tuple[tuple[str, ...], Change, str]] = {
    "pt_109": (("images",), scaled, "outlier-intensity"),
    "pt_115": (("images",), shifted, "outlier-intensity"),
    "pt_119": (("images",), garbage, "extreme-values"),
    "pt_13": (("images",), not_a_number, "image-nan"),
    "pt_168": (("labels",), island, "label-island"),
    "pt_172": (("labels",), parotids_exchanged, "swapped-labels"),
    "pt_182": (("labels",), off_the_body, "label-outside-body"),
    "pt_200": (("labels",), jaw_for_brainstem, "outlier-volume"),
    "pt_201": (("images", "labels"), coarser, "outlier-spacing"),
    "pt_247": (("labels",), moved_grid, "mask-grid"),
    "pt_282": (("labels",), lambda array, affine: (array * 0, affine), "empty-mask"),
    "pt_306": (("labels",), lambda array, affine: (array * np.float32(0.7), affine), "mask-not-integer"),
}


def test_planted_defects_are_found_each_in_its_case(real_data, tmp_path):
    source = real_data / "head_neck_ct"
    every = cases_of(source, 24)
    assert set(every) >= DEFECTS.keys()
    raw = copied(source, tmp_path / "raw", [case for case in every if case not in ("pt_100", "pt_260", "pt_269")])
    for case, (folders, change, _) in DEFECTS.items():
        for folder in folders:
            rewrite(raw / folder / f"{case}.nii.gz", change)
    intact = [case for case in every if case not in DEFECTS and (raw / "images" / f"{case}.nii.gz").is_file()]
    for name, case, change in (("z_noisy", intact[0], noisy), ("z_turned", intact[1], mirrored)):
        rewrite(raw / "images" / f"{case}.nii.gz", change, raw / "images" / f"{name}.nii.gz")
        turn = mirrored if change is mirrored else lambda array, affine: (array, affine)
        rewrite(raw / "labels" / f"{case}.nii.gz", turn, raw / "labels" / f"{name}.nii.gz")
    path = raw / "labels" / "z_turned.nii.gz"
    rewrite(path, lambda array, affine: (np.rint(array / 1.1).astype(np.uint8), affine))
    broken = raw / "images" / f"{intact[2]}.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-2000])
    (raw / "labels" / f"{intact[3]}.nii.gz").unlink()
    report = check_dataset(raw, workers=2)
    for case, (_, _, kind) in DEFECTS.items():
        assert kind in alarms(report, case), (case, alarms(report, case))
    assert alarms(report, "z_noisy") == {"near-duplicate"}
    assert "near-duplicate" in alarms(report, "z_turned")
    assert alarms(report, intact[2]) == {"unreadable"}
    assert alarms(report, intact[3]) == {"missing-mask"}
    for case in intact[4:]:
        assert not alarms(report, case), report.text()


def test_the_repaired_copy_of_real_data_is_clean(real_data, tmp_path):
    source = real_data / "hippocampus"
    ids = cases_of(source, 12)
    raw = copied(source, tmp_path / "raw", ids)
    images, masks = raw / "imagesTr", raw / "labelsTr"
    rewrite(images / f"{ids[0]}_0000.nii.gz", not_a_number)
    rewrite(masks / f"{ids[1]}.nii.gz", moved_by_a_voxel)
    rewrite(masks / f"{ids[2]}.nii.gz", lambda array, affine: (array.astype(np.float32), affine))
    shutil.copy(images / f"{ids[3]}_0000.nii.gz", images / "twice_0000.nii.gz")
    shutil.copy(masks / f"{ids[3]}.nii.gz", masks / "twice.nii.gz")
    assert check_dataset(raw, workers=2).exit_code == 1
    report = check_dataset(raw, fix=tmp_path / "fixed", workers=2)
    assert report.exit_code == 0, report.text()
    assert report.case_count == 12


def brighter_half(array, affine):
    return (array > np.median(array)).astype(np.uint8), affine


def test_three_ids_of_one_real_image(real_data, tmp_path):
    paths = sorted((real_data / "refuse_or_repair" / "same_image_three_ids" / "images").iterdir())
    for path in paths:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "labels").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "images")
        rewrite(path, brighter_half, tmp_path / "labels" / path.name)
    report = check_dataset(tmp_path, fix=None, workers=2)
    assert [finding.kind for finding in report.findings if finding.severity == "warning"] == ["same-image"] * 2
