"""Both planners are given the same data, and every difference of their plans is found."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.against_nnunet.plans import Failed, fields, for_both, raw_folder, same
from builders.data import write_nifti
from builders.nnunet import plans
from segfw.dataset.cases import Channel, DatasetManifest
from segfw.dataset.labels import LabelSet
from segfw.dataset.layouts import find_dataset
from segfw.images.formats import read_mask
from segfw.nnunet.read_plans import plan_of_nnunet

CHANNELS = (Channel(name="CT"), Channel(name="PET"))
LABELS = LabelSet(names=("background", "large", "small"), values=(0, 40, 255))


def plan_of(written):
    return plan_of_nnunet(written, CHANNELS, LABELS, Path("plans.json"))


def differing(**changes):
    """Names of the fields that differ after a change of the plans that are compared."""
    one, other = plans(), plans()
    other["configurations"]["3d_fullres"] |= changes
    pairs = fields(*(plan_of(written).configurations["3d_fullres"] for written in (one, other)))
    return [name for name, values in pairs.items() if not same(*values)]


def test_every_changed_field_is_found_and_no_other():
    assert differing() == []
    assert differing(patch_size=[4, 32, 8]) == ["patch"]
    assert differing(batch_size=3) == ["batch"]
    assert differing(batch_dice=False) == ["batch Dice"]
    assert differing(spacing=[5.0, 1.0, 0.51]) == ["spacing"]
    assert differing(spacing=[5.0, 1.0, 0.5000000001]) == []
    assert differing(median_image_size_in_voxels=[7.0, 9.0, 13.0]) == ["median shape"]
    assert differing(use_mask_for_norm=[False, False]) == ["normalisation"]
    network = plans()["configurations"]["3d_fullres"]["architecture"]
    network["arch_kwargs"] |= {"strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2]], "features_per_stage": [4, 8, 9]}
    assert differing(architecture=network) == ["strides", "features"]


def test_slices_have_no_size_across_them_in_nnunets_plans():
    one, other = (plan_of(plans()).configurations["3d_fullres"] for _ in range(2))
    one, other = (plan.model_copy(update={"name": "2d"}) for plan in (one, other))
    assert same(*fields(one.model_copy(update={"median_shape": (8.0, 9.0, 12.0)}), other)["median shape"])
    assert not same(*fields(one.model_copy(update={"median_shape": (7.0, 9.5, 12.0)}), other)["median shape"])


def test_one_case_is_linked_twice(tmp_path):
    data = tmp_path / "data"
    write_nifti(data / "images" / "scan_ct.nii.gz", np.ones((4, 5, 6), np.int16))
    write_nifti(data / "labels" / "scan_mask.nii.gz", np.ones((4, 5, 6), np.uint8))
    given, how = for_both(data, tmp_path / "given")
    assert how == ", one twice"
    cases = find_dataset(given).cases
    assert len(cases) == 2
    assert {case.images[0].resolve() for case in cases} == {data / "images" / "scan_ct.nii.gz"}
    assert {case.label.resolve() for case in cases} == {data / "labels" / "scan_mask.nii.gz"}


def test_names_without_likeness_are_paired_where_one_mask_has_the_grid(tmp_path):
    data = tmp_path / "data"
    for name, mask, size in (("ct", "seg", 4), ("mr_small", "organs", 5), ("alone", "none", 6)):
        write_nifti(data / "images" / f"{name}.nii.gz", np.ones((size, 5, 6), np.int16))
        write_nifti(data / "labels" / f"{mask}.nii.gz", np.ones((size + (name == "alone"), 5, 6), np.uint8))
    given, how = for_both(data, tmp_path / "given")
    assert how == ", paired by grid"
    pairs = {(case.images[0].resolve().name, case.label.resolve().name) for case in find_dataset(given).cases}
    assert pairs == {("ct.nii.gz", "seg.nii.gz"), ("mr_small.nii.gz", "organs.nii.gz")}


def test_what_is_no_data_set_is_said(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(Failed, match="expected images/ and labels/"):
        for_both(tmp_path, tmp_path / "given")


def test_masks_of_another_ending_are_written_as_the_images_are(tmp_path):
    data, raw = tmp_path / "data", tmp_path / "raw"
    for part in ("images", "labels"):
        (data / part).mkdir(parents=True)
    drawn = np.zeros((5, 7), np.uint8)
    drawn[1:3, 2:6], drawn[4, 1] = 255, 40
    for name in "ab":
        Image.fromarray(np.full((5, 7, 3), 9, np.uint8)).save(data / "images" / f"{name}.tif")
        Image.fromarray(drawn).save(data / "labels" / f"{name}.gif")
    found, plan = find_dataset(data), plan_of(plans())
    names = {"name": found.name, "root": found.root, "layout": found.layout}
    manifest = DatasetManifest(channels=plan.channels, labels=LABELS, cases=found.cases, notes=(), **names)
    raw_folder(manifest, plan, data, raw)
    assert (raw / "imagesTr" / "a_0000.tif").resolve() == data / "images" / "a.tif"
    np.testing.assert_array_equal(read_mask(raw / "labelsTr" / "b.tif").array[0, 0], drawn)
    described = json.loads((raw / "dataset.json").read_text())
    assert described["file_ending"] == ".tif"
    assert described["labels"] == {"background": 0, "large": 1, "small": 2}
