"""``--dry-run`` of predict and run: what would be done; nothing is written; exit code 2 where it would not start."""

import json
import shutil

import nibabel
import numpy as np
import pytest

from builders.data import blocks_case, make_images, write_nifti
from builders.models import make_model
from segfw.base.records import UserError
from segfw.cli import main
from segfw.images.formats import read_volume, write_labels
from segfw.images.header_only import volume_of_header
from segfw.verbs.predict import predict


def tree(folder):
    """Every file and folder with content and time."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*")}


def predicted(tmp_path, *more):
    given = [str(tmp_path / name) for name in ("model", "images", "masks")]
    return ["predict", *given, "--device", "cpu", *more]


@pytest.fixture
def place(tmp_path):
    make_model(tmp_path / "model")
    make_images(tmp_path / "images", 2)
    return tmp_path


def test_predict_says_cases_tiles_and_disk_and_writes_nothing(place, capsys):
    before = tree(place)
    assert main(predicted(place, "--dry-run", "--no-mirroring")) == 0
    said = capsys.readouterr().out
    assert tree(place) == before
    assert "a: a.nii.gz; " in said
    assert "2 cases: 0 done already, 2 to do\n" in said
    assert "disk: about " in said
    assert "nothing was written" in said
    assert " s, by the " not in said  # nothing was measured yet


def test_tiles_are_counted_through_copies_and_folds(place, capsys):
    # The patch is 8 x 16 x 16 voxels: 20 slices take 4 starts, half a patch apart or less.
    write_nifti(place / "images" / "c.nii.gz", np.zeros((16, 16, 20), np.float32))
    assert main(predicted(place, "--dry-run", "--no-mirroring")) == 0
    assert "c: c.nii.gz; 5,120 voxels, 4 tiles\n" in capsys.readouterr().out
    assert main(predicted(place, "--dry-run")) == 0  # mirrored along one axis
    assert "c: c.nii.gz; 5,120 voxels, 8 tiles\n" in capsys.readouterr().out


def test_predict_names_what_is_done_what_would_fail_and_how_long_it_took(place, capsys):
    assert main(predicted(place)) == 0
    two_channels = nibabel.Nifti1Image(np.zeros((16, 16, 8, 2), np.float32), np.diag([1.0, 1.5, 4.0, 1.0]))
    nibabel.save(two_channels, place / "images" / "c.nii.gz")
    (place / "images" / "d.nii.gz").write_text("no image")
    write_nifti(place / "images" / "e.nii.gz", blocks_case(4)[0])
    before = tree(place)
    capsys.readouterr()
    assert main(predicted(place, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert tree(place) == before
    assert "a: a.nii.gz; done already\n" in said
    assert "c: c.nii.gz; would fail: " in said
    assert "d: d.nii.gz; would fail: " in said
    assert "its header cannot be read" in said
    assert "5 cases: 2 done already, 3 to do, of which 2 would fail\n" in said
    assert " s that each mask took" in said
    # Masks of other options are refused as they would be.
    assert main(predicted(place, "--dry-run", "--step", "0.9")) == 2
    assert "holds masks of another model or other options (step)" in capsys.readouterr().err
    assert tree(place) == before


def test_predict_ends_with_2_where_it_would_not_start(place, capsys):
    shutil.copyfile(place / "images" / "a.nii.gz", place / "images" / "a_0000.nii.gz")
    shutil.copyfile(place / "images" / "a.nii.gz", place / "images" / "a.nii")
    before = tree(place)
    assert main(predicted(place, "--dry-run")) == 2
    assert "would both be the case a" in capsys.readouterr().err
    assert tree(place) == before


def test_run_says_data_plan_folds_length_and_disk_and_writes_nothing(make_raw, tmp_path, capsys):
    raw = make_raw()
    before = tree(tmp_path)
    asked = ["run", str(raw), str(tmp_path / "work"), "--device", "cpu", "--configurations", "3d_fullres"]
    assert main([*asked, "--epochs", "2", "--steps-per-epoch", "3", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert tree(tmp_path) == before
    assert "data: raw, 6 cases (nnunet layout), channels MR\n" in said
    assert "labels: bright = 3, dark = 7\n" in said
    assert "folds: 0, 1, 2, 3, 4; " in said
    assert "3d_fullres: resampled to 4 x 1.5 x 1 mm, patches of " in said
    assert "to train: 3d_fullres: 5 folds, 6 steps each (2 epochs of 3), " in said
    assert "disk: at most " in said
    (raw / "labelsTr" / "case_01.nii.gz").unlink()
    before = tree(tmp_path)
    assert main([*asked, "--dry-run"]) == 2
    assert "case_01_0000.nii.gz: has no mask" in capsys.readouterr().err
    assert tree(tmp_path) == before


def document(capsys, *arguments, code=0):
    """What a command prints with --json: one document, and nothing else on stdout."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_what_predict_would_do_is_had_as_json(place, capsys):
    (place / "images" / "d.nii.gz").write_text("no image")
    before = tree(place)
    found = document(capsys, *predicted(place, "--dry-run", "--no-mirroring"))
    assert tree(place) == before
    assert (found["kind"], found["done"], found["to_do"], found["would_fail"]) == ("foretold prediction", 0, 3, 1)
    assert [case["id"] for case in found["cases"]] == ["a", "b", "d"]
    assert found["tiles"] == sum(case["tiles"] for case in found["cases"][:2])
    assert "its header cannot be read" in found["cases"][2]["refusal"]
    assert found["seconds"] is None
    assert main(predicted(place, "--json")) == 2
    assert capsys.readouterr().err == "segfw: --json is of --dry-run; give both, or leave it out\n"
    assert tree(place) == before


def test_what_run_would_do_is_had_as_json(make_raw, tmp_path, capsys):
    raw = make_raw()
    asked = ["run", str(raw), str(tmp_path / "work"), "--device", "cpu", "--configurations", "3d_fullres"]
    found = document(capsys, *asked, "--folds", "0", "3", "--epochs", "2", "--steps-per-epoch", "3", "--dry-run")
    assert (found["kind"], found["dataset"], found["cases"]) == ("foretold run", "raw", 6)
    assert (found["labels"], found["folds"]) == ({"bright": 3, "dark": 7}, ["0", "3"])
    planned = found["configurations"][0]
    assert (planned["name"], planned["spacing_mm"]) == ("3d_fullres", [4.0, 1.5, 1.0])
    assert found["disk_needed_gb"] == planned["disk_gb"]
    training = {"configuration": "3d_fullres", "folds": 2, "steps_per_fold": 6}
    assert found["trainings"] == [training | {"seconds_per_fold": None, "seconds": None}]
    assert not (tmp_path / "work").exists()


def test_in_python_what_would_be_done_is_printed(place, capsys):
    assert predict(place / "model", place / "images", place / "masks", device="cpu", dry_run=True) is None
    assert "2 cases: 0 done already, 2 to do\n" in capsys.readouterr().out


def test_run_names_labels_by_the_table_that_is_given(tmp_path, capsys):
    for index in range(3):
        image, mask = blocks_case(index)
        write_nifti(tmp_path / "raw" / f"P{index}" / "image.nii.gz", image)
        write_nifti(tmp_path / "raw" / f"P{index}" / "mask.nii.gz", mask)
    (tmp_path / "names.csv").write_text("value,name\n3,liver\n7,spleen\n")
    asked = ["run", str(tmp_path / "raw"), str(tmp_path / "work"), "--device", "cpu", "--configurations", "3d_fullres"]
    assert main([*asked, "--label-names", str(tmp_path / "names.csv"), "--dry-run"]) == 0
    assert "labels: liver = 3, spleen = 7\n" in capsys.readouterr().out


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_header_alone_says_what_the_whole_file_does(ending, tmp_path):
    write_nifti(tmp_path / "first.nii.gz", blocks_case(1)[0], (1.0, 1.5, 4.0))
    whole = read_volume(tmp_path / "first.nii.gz")
    path = tmp_path / f"second{ending}"
    write_labels(path, np.zeros(whole.geometry.shape, np.uint8), whole.geometry)
    told = volume_of_header(path)
    read = read_volume(path)
    assert told.array.shape == read.array.shape == (1, 10, 18, 20)
    assert np.allclose(told.geometry.matrix, read.geometry.matrix)


def test_what_no_header_tells_is_unknown(tmp_path):
    (tmp_path / "series").mkdir()
    assert volume_of_header(tmp_path / "series") is None
    assert volume_of_header(tmp_path / "photo.png") is None
    with pytest.raises(UserError, match="no such file"):
        volume_of_header(tmp_path / "nowhere.nii.gz")
