"""The comparison with nnU-Net measures and compares what it says, proved on made runs and arrays."""

import json
import os
import sys

import nibabel
import numpy as np
import pytest

from bench.against_nnunet.arrays import image_difference, mask_difference, reoriented
from bench.against_nnunet.preprocessing import build_parser, take_turns
from bench.in_nnunet.predict_float32 import checkpoints
from bench.measure import Measured, measure
from bench.phantom import ORGANS, SPACINGS_MM, make_phantom
from bench.runs import subset
from segfw.grid.preprocess import Preprocessing, preprocess_image
from segfw.images.formats import read_volume
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume

MB = 1024**2


def test_time_and_memory_are_of_the_whole_tree_of_processes(tmp_path):
    hold = "import time; block = bytearray(b'x') * (60 * 2**20); time.sleep(1.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}], check=True)"
    measured = measure([sys.executable, "-c", parent], env=os.environ, log=tmp_path / "log")
    assert measured.most_processes == 2
    assert 1.5 < measured.wall_s < 30
    assert 60 < measured.peak_pss_gb * 1024 < 300
    assert measured.peak_rss_gb >= measured.peak_pss_gb
    assert measured.samples >= 2


def test_a_run_that_fails_tells_its_last_words(tmp_path):
    with pytest.raises(RuntimeError, match="no such data set"):
        measure([sys.executable, "-c", "raise SystemExit('no such data set')"], env=os.environ, log=tmp_path / "log")


def test_programs_take_turns_and_change_who_is_first(capsys):
    order = []
    run = Measured(wall_s=1, peak_pss_gb=1, peak_rss_gb=1, most_processes=1, samples=1)
    programs = {name: lambda name=name: order.append(name) or run for name in "ab"}
    assert take_turns(programs, 2) == {"a": [run, run], "b": [run, run]}
    assert order == ["a", "b", "b", "a"]


def test_the_best_weights_are_taken_only_where_no_fold_has_final_ones(tmp_path):
    for fold, file in (("0", "best"), ("0", "final"), ("1", "best"), ("all", "best")):
        path = tmp_path / "model" / f"fold_{fold}" / f"checkpoint_{file}.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert checkpoints(tmp_path / "model") == ("checkpoint_final.pth", ["0"])
    (tmp_path / "model" / "fold_0" / "checkpoint_final.pth").unlink()
    assert checkpoints(tmp_path / "model") == ("checkpoint_best.pth", ["0", "1", "all"])


@pytest.mark.parametrize("transpose", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_arrays_in_nnunets_order_are_brought_to_ours(transpose, flips):
    array = np.arange(1, 61, dtype=np.float32).reshape(1, 3, 4, 5)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], [0, 1, 2, 3]] = [*(2.0 * sign for sign in flips), 1]  # array axes z, y, x to RAS rows
    volume = Volume(array=array, geometry=Geometry.of((3, 4, 5), affine))
    how = {"axis_order": (1, 0, 2), "spacing_mm": (2.0, 2.0, 2.0), "normalization": ({"kind": "none"},)}
    ours, record = preprocess_image(volume, Preprocessing.model_validate(how))
    theirs = array.transpose(0, *(axis + 1 for axis in transpose))
    np.testing.assert_array_equal(reoriented(theirs, record, transpose), ours.numpy())


def test_differences_are_shares_of_the_range_and_of_the_foreground():
    reference = np.zeros((1, 10, 10, 10), np.float32)
    reference[0, 0, 0, 0] = 4
    other = reference.copy()
    other[0, 5, 5, 5] = 1
    assert image_difference(reference, other)["image_max"] == 0.25
    assert image_difference(reference, reference)["image_max"] == 0
    assert mask_difference(np.array([-1, 0, 1, 2]), np.array([0, 0, 1, 1])) == {"mask_voxels": 1, "mask_share": 0.5}


def test_the_phantom_has_15_label_values_and_is_the_same_each_time(tmp_path):
    folder = make_phantom(tmp_path / "one", (60, 96, 96))
    again = make_phantom(tmp_path / "two", (60, 96, 96))
    assert len(json.loads((folder / "dataset.json").read_text())["labels"]) == 15
    for number, spacing_mm in enumerate(SPACINGS_MM):
        mask = read_volume(folder / "labelsTr" / f"phantom_{number:03}.nii.gz")
        assert set(np.unique(mask.array)) == set(range(len(ORGANS) + 1))
        assert mask.geometry.spacing_mm == pytest.approx(spacing_mm)
        name = f"imagesTr/phantom_{number:03}_0000.nii.gz"
        first, second = (np.asarray(nibabel.load(path / name).dataobj) for path in (folder, again))
        np.testing.assert_array_equal(first, second)
    assert np.median(SPACINGS_MM, axis=0) == pytest.approx([1.5, 0.8, 0.8])


def test_a_subset_links_the_first_cases(make_raw, tmp_path):
    folder = subset(make_raw(cases=4), tmp_path / "few", 2)
    assert sorted(path.name for path in (folder / "labelsTr").iterdir()) == ["case_00.nii.gz", "case_01.nii.gz"]
    assert len(list((folder / "imagesTr").iterdir())) == 2
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 2


def test_the_command_line_needs_data():
    with pytest.raises(SystemExit):
        build_parser().parse_args([])
    assert build_parser().parse_args(["--phantom"]).phantom_size == (300, 512, 512)
