"""Repaired copies: what is safe is repaired, the rest is copied, and no original changes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from builders.bodies import SHAPE_XYZ, SPACING_XYZ, body_case, files, read, with_nan
from builders.data import blocks_case, write_nifti
from segfw.base.files import partial_path
from segfw.base.records import UserError
from segfw.checkup import repair
from segfw.checkup.repair import Fixes
from segfw.cli import main
from segfw.images.formats import read_volume
from segfw.verbs.check import check_dataset


def digests(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.md5(path.read_bytes()).hexdigest() for path in paths}


def shifted(path: Path, by_mm: tuple, array: np.ndarray | None = None, spacing_xyz: tuple = SPACING_XYZ) -> None:
    affine = np.diag([*spacing_xyz, 1.0])
    affine[:3, 3] = by_mm
    nibabel.save(nibabel.Nifti1Image(read(path) if array is None else array, affine), path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_copy_that_was_interrupted_leaves_nothing_and_is_made_by_the_next_call(raw, tmp_path, monkeypatch, error):
    image, _ = files(raw, "case_03")
    write_nifti(image, with_nan(read(image)), spacing_xyz=SPACING_XYZ)
    fix = tmp_path / "fixed"
    original = repair._unlist

    def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setattr(repair, "_unlist", interrupted)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else (UserError, OSError)):
        check_dataset(raw, fix=fix, workers=2)
    assert not fix.exists()
    assert not list(tmp_path.glob(".partial-*"))
    # What a killed process leaves: its number is given to none.
    dead = tmp_path / partial_path(fix).name.replace(f"-{os.getpid()}-", "-999999999-")
    shutil.copytree(raw, dead / "half")
    monkeypatch.setattr(repair, "_unlist", original)
    check_dataset(raw, fix=fix, workers=2)
    assert (fix / "fixes.json").is_file()
    assert not dead.exists()


def test_what_is_safe_is_repaired_and_all_else_copied(raw, tmp_path):
    write_nifti(files(raw, "case_00")[0], with_nan(read(files(raw, "case_00")[0])), spacing_xyz=SPACING_XYZ)
    shifted(files(raw, "case_01")[1], (1.2, 0, 0))  # one voxel off, the same shape
    coarse = read(files(raw, "case_02")[1])[::2, ::2]
    shifted(files(raw, "case_02")[1], (0, 0, 0), coarse, (2.0, 3.0, 4.0))
    write_nifti(files(raw, "case_03")[1], read(files(raw, "case_03")[1]).astype(np.float32), spacing_xyz=SPACING_XYZ)
    for source, copy in zip(files(raw, "case_04"), files(raw, "copy")):
        shutil.copy(source, copy)
    shifted(files(raw, "case_05")[1], (500, 0, 0))  # nowhere near
    write_nifti(files(raw, "case_06")[1], read(files(raw, "case_06")[1]) * np.float32(1.3), spacing_xyz=SPACING_XYZ)
    before, fix = digests(raw), tmp_path / "fixed"
    table = tmp_path / "groups.csv"
    lines = [f"{path.name.removesuffix('.nii.gz')},p{path.name[5:7]}" for path in (raw / "labelsTr").iterdir()]
    table.write_text("\n".join(["case,group", *lines]))
    report = check_dataset(raw, fix=fix, groups=table, workers=2)
    assert digests(raw) == before
    fixes = Fixes.load(fix / "fixes.json")
    assert set(fixes.done) == {"case_00", "case_01", "case_02", "case_03", "copy"}
    assert fixes.done["case_00"] == ("case_00_0000.nii.gz: 1 voxel that was NaN or infinite set to 0",)
    assert fixes.done["case_01"] == (
        "case_01.nii.gz: placement copied from case_01_0000.nii.gz, as the shape is equal and the place nearly",
    )
    assert fixes.done["copy"] == ("left out: its image is the same as that of case_04",)
    assert set(fixes.left) == {"case_05", "case_06"}
    assert {finding.case for finding in report.findings if finding.severity == "error"} == {"case_05", "case_06"}
    assert report.root == str(fix)

    assert digests(fix)["imagesTr/case_07_0000.nii.gz"] == before["imagesTr/case_07_0000.nii.gz"]
    assert read(files(fix, "case_00")[0])[3, 4, 5] == 0
    np.testing.assert_array_equal(read(files(fix, "case_01")[1]), body_case(1)[1])
    np.testing.assert_allclose(nibabel.load(files(fix, "case_01")[1]).affine, np.diag([*SPACING_XYZ, 1]))
    assert nibabel.load(files(fix, "case_03")[1]).get_data_dtype().kind in "iu"
    resampled, original = read(files(fix, "case_02")[1]), body_case(2)[1]
    assert resampled.shape == SHAPE_XYZ
    assert np.mean(resampled == original) > 0.97
    assert set(np.unique(resampled)) == {0, 1, 2, 5}
    assert not files(fix, "copy")[0].exists()


def test_channels_on_other_grids_are_resampled_to_where_they_say_they_are(tmp_path):
    raw = tmp_path / "two"
    for number in range(2):
        image, mask = body_case(number)
        for channel in range(2):
            write_nifti(raw / "imagesTr" / f"c{number}_{channel:04}.nii.gz", image + channel, spacing_xyz=SPACING_XYZ)
        write_nifti(raw / "labelsTr" / f"c{number}.nii.gz", mask, spacing_xyz=SPACING_XYZ)
    ramp = np.add.outer(np.add.outer(np.arange(15.0) * 2, np.arange(26) * 15), np.arange(12) * 400).astype(np.float32)
    shifted(raw / "imagesTr" / "c1_0001.nii.gz", (0, 0, 0), ramp, (2.0, 1.5, 4.0))
    description = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"a": 1, "b": 2, "c": 5}}
    (raw / "dataset.json").write_text(json.dumps(description))
    report = check_dataset(raw, fix=tmp_path / "fixed", workers=1)
    assert report.exit_code == 0
    fixed = read_volume(tmp_path / "fixed" / "imagesTr" / "c1_0001.nii.gz")
    assert fixed.geometry.shape == (12, 26, 30)
    np.testing.assert_allclose(fixed.array[0, 2, 3, :29], 800 + 45 + np.arange(29), atol=1e-3)


def test_a_decathlon_list_loses_what_was_left_out(tmp_path):
    raw = tmp_path / "msd"
    entries = []
    for number, seed in enumerate((0, 1, 0)):
        for folder, array in zip(("imagesTr", "labelsTr"), body_case(seed)):
            write_nifti(raw / folder / f"c{number}.nii.gz", array, spacing_xyz=SPACING_XYZ)
        entries.append({"image": f"./imagesTr/c{number}.nii.gz", "label": f"./labelsTr/c{number}.nii.gz"})
    labels = {"0": "background", "1": "a", "2": "b", "5": "c"}
    description = {"modality": {"0": "MR"}, "labels": labels, "training": entries, "numTraining": 3}
    (raw / "dataset.json").write_text(json.dumps(description))
    before = digests(raw)
    report = check_dataset(raw, fix=tmp_path / "fixed", workers=1)
    assert (report.exit_code, report.case_count) == (0, 2)
    assert json.loads((tmp_path / "fixed" / "dataset.json").read_text())["numTraining"] == 2
    assert digests(raw) == before


def test_a_folder_that_is_in_use_or_inside_the_data_is_refused(raw, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(UserError, match="exists and is not empty"):
        check_dataset(raw, fix=tmp_path / "used")
    with pytest.raises(UserError, match="lies inside the data set"):
        check_dataset(raw, fix=raw / "fixed")
    assert not (raw / "fixed").exists()


def test_where_nothing_needs_repair_nothing_is_copied_and_that_is_said(raw, tmp_path, capsys):
    assert main(["check", str(raw), "--fix", str(tmp_path / "fixed"), "--workers", "2"]) == 0
    assert not (tmp_path / "fixed").exists()
    said = capsys.readouterr().out
    assert f"nothing was found that --fix can repair, so {tmp_path / 'fixed'} was not made" in said


def test_the_report_on_a_copy_has_the_name_of_the_data_set(raw, tmp_path):
    image, _ = files(raw, "case_03")
    write_nifti(image, with_nan(read(image)), spacing_xyz=SPACING_XYZ)
    name = check_dataset(raw, workers=2).name
    report = check_dataset(raw, fix=tmp_path / "fixed", workers=2)
    assert (report.name, report.root) == (name, str(tmp_path / "fixed"))


def test_a_copy_follows_links_once_and_leaves_out_what_leads_nowhere(raw, tmp_path):
    """Two links to the folder itself, one to nothing, a pipe; and the field 'dataset' loses the case left out."""
    for source, copy in zip(files(raw, "case_04"), files(raw, "copy")):
        shutil.copy(source, copy)
    for name in ("a", "b"):
        (raw / name).symlink_to(raw)
    (raw / "imagesTr" / "lost_0000.nii.gz").symlink_to("annex")
    os.mkfifo(raw / "pipe")
    description = json.loads((raw / "dataset.json").read_text())
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    description["dataset"] = {
        case: {"images": [f"imagesTr/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"} for case in cases
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    fix = tmp_path / "fixed"
    check_dataset(raw, fix=fix, workers=2)
    names = {path.name for path in fix.iterdir()}
    assert {"a", "b", "pipe"}.isdisjoint(names)
    assert {"imagesTr", "labelsTr", "dataset.json"} < names
    assert not os.path.lexists(fix / "imagesTr" / "lost_0000.nii.gz")
    kept = set(json.loads((fix / "dataset.json").read_text())["dataset"])
    assert kept == {case for case in cases if case != "copy"}
    assert {path.name.removesuffix(".nii.gz") for path in (fix / "labelsTr").iterdir()} == kept


def test_a_copy_of_patients_folders_is_repaired_in_the_same_layout(tmp_path):
    image, mask = blocks_case(0)
    for patient in ("A", "B"):
        write_nifti(tmp_path / "raw" / patient / "image.nii.gz", image)
        write_nifti(tmp_path / "raw" / patient / "mask.nii.gz", mask)
    image, mask = blocks_case(1)
    write_nifti(tmp_path / "raw" / "C" / "image.nii.gz", image)
    write_nifti(tmp_path / "raw" / "C" / "mask.nii.gz", mask.astype(np.float32))
    report = check_dataset(tmp_path / "raw", fix=tmp_path / "fixed", workers=1)
    assert (report.layout, [case.id for case in report.cases]) == ("patient folders", ["A", "C"])
    assert report.alarms == 0
    assert {path.name for path in (tmp_path / "fixed").iterdir()} == {"A", "C", "fixes.json"}
    assert nibabel.load(tmp_path / "fixed" / "C" / "mask.nii.gz").get_data_dtype().kind in "iu"
