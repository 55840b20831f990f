"""nnU-Net's plans followed to the letter by plan-and-preprocess."""

import json

import numpy as np
import pytest

from builders.data import write_nifti
from builders.nnunet import plans
from segfw.base.records import UserError
from segfw.cli import main
from segfw.grid.preprocess import place_back, preprocess_classes, preprocess_image
from segfw.grid.store import load_stored
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.planning.plan import Plan
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

SHAPE_XYZ = (12, 7, 9)
SPACING_XYZ = (0.5, 5.0, 1.0)


@pytest.fixture
def raw(tmp_path):
    """Six cases in nnU-Net's raw layout, two channels, stored with x to the left."""
    folder = tmp_path / "Dataset007_made_up"
    rng = np.random.default_rng(0)
    for number in range(6):
        labels = np.zeros(SHAPE_XYZ, np.uint8)
        labels[2:6, 1:4, 2:6], labels[7:10, 3:6, 3:8] = 1, 2
        for channel in range(2):
            image = rng.normal(100, 20, SHAPE_XYZ).astype(np.float32) + 60 * labels
            write_nifti(folder / "imagesTr" / f"c{number}_000{channel}.nii.gz", image, SPACING_XYZ)
        write_nifti(folder / "labelsTr" / f"c{number}.nii.gz", labels, SPACING_XYZ)
    described = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "small": 1, "large": 2},
        "numTraining": 6,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    splits = [{"train": ["c0", "c1", "c2", "c3"], "val": ["c4", "c5"]}, {"train": ["c4", "c5"], "val": ["c0", "c1"]}]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps(plans()))
    return folder


def test_the_plan_is_nnunets_and_cases_are_preprocessed_by_it(raw, tmp_path):
    work = tmp_path / "work"
    given = tmp_path / "nnUNetPlans.json"
    command = ["plan-and-preprocess", str(raw), str(work), "--plans", str(given), "--device", "cpu"]
    assert main(command) == 0
    plan = Plan.load(work / "plan.json")
    one = plan.configuration("3d_fullres")
    assert list(plan.configurations) == ["3d_fullres"]
    assert (one.patch_size, one.batch_size, one.batch_dice, one.mirror_axes) == ((4, 16, 8), 2, True, (0, 1, 2))
    assert one.network.features == (4, 8, 8)
    assert one.preprocessing.normalization[0].stats.mean == 100.0  # of the plans, not of these images
    assert one.estimate.training_memory_gb > 0
    assert json.loads((work / "splits.json").read_text())["folds"][0]["validation"] == ["c4", "c5"]
    record = load_stored(work / "preprocessed" / "3d_fullres", "c0").record
    assert record.orientation == "as stored"
    assert record.shape == (7, 9, 12)  # y of the file first: the axes of the plans
    assert record.spacing_mm == (5.0, 1.0, 0.5)
    assert main(command) == 0  # and once more: nothing changes
    assert Plan.load(work / "plan.json") == plan


def test_other_wishes_beside_given_plans_are_refused(raw, tmp_path):
    given = tmp_path / "nnUNetPlans.json"
    for wish in ({"spacing_mm": (1.0, 1.0, 1.0)}, {"preset": "resenc-m"}, {"as_published": True}):
        with pytest.raises(UserError, match=f"{next(iter(wish))}(=True)? cannot be given too"):
            plan_and_preprocess(raw, tmp_path / "work", plans=given, device="cpu", **wish)
    with pytest.raises(UserError, match="cannot be read"):
        plan_and_preprocess(raw, tmp_path / "work", plans=tmp_path / "missing.json", device="cpu")


@pytest.mark.parametrize(
    ("field", "value"),
    [("conv_bias", False), ("dropout_op", "torch.nn.Dropout3d"), ("norm_op_kwargs", None)]
    + [("norm_op_kwargs", {"affine": False})],
)
def test_plans_that_segfw_would_train_otherwise_are_refused(raw, tmp_path, field, value):
    written = plans()
    written["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"][field] = value
    given = tmp_path / "nnUNetPlans.json"
    given.write_text(json.dumps(written))
    with pytest.raises(UserError, match=f"trains with {field} {value!r}"):
        plan_and_preprocess(raw, tmp_path / "work", plans=given, device="cpu")


def test_a_plan_without_the_rule_of_orientation_is_a_canonical_one(raw, tmp_path):
    """Plans of earlier versions say it once, for the plan, and not for each configuration."""
    plan = plan_and_preprocess(raw, tmp_path / "work", configurations=("2d",), plan_only=True, device="cpu")
    content = json.loads((tmp_path / "work" / "plan.json").read_text())
    for configuration in content["configurations"].values():
        del configuration["preprocessing"]["orientation"], configuration["previous_through_file"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert Plan.load(tmp_path / "old.json") == plan
    content["orientation"] = "as stored"
    (tmp_path / "old.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="are oriented 'as stored', but by 2d 'canonical'"):
        Plan.load(tmp_path / "old.json")


def test_as_stored_nothing_is_turned_and_everything_comes_back(raw, tmp_path):
    plan = plan_and_preprocess(
        raw, tmp_path / "work", plans=tmp_path / "nnUNetPlans.json", plan_only=True, device="cpu"
    )
    how = plan.configuration("3d_fullres").preprocessing
    affine = np.array([[0, 0, -0.5, 9], [0, 5.0, 0, 0], [-1.0, 0, 0, 4], [0, 0, 0, 1]])  # z and x run backwards
    grid = Geometry.of((9, 7, 12), affine)
    image = np.zeros((2, 9, 7, 12), np.float32)
    image[:, 2:8, 1:6, 3:11] = np.random.default_rng(1).normal(100, 20, (2, 6, 5, 8))
    result, record = preprocess_image(Volume(array=image, geometry=grid), how)
    assert record.box == ((2, 8), (1, 6), (3, 11))
    assert tuple(result.shape) == (2, 5, 6, 8)
    ct = (np.clip(image[0, 2, 1, 3], -5, 250) - 100) / 50
    assert float(result[0, 0, 0, 0]) == pytest.approx(ct, abs=1e-5)
    classes = np.zeros((1, 9, 7, 12), np.uint8)
    classes[0, 3, 2, 4:9], classes[0, 7, 5, 10] = 1, 2
    network = preprocess_classes(Volume(array=classes, geometry=grid), record)
    assert int(network[4, 5, 7]) == 2
    np.testing.assert_array_equal(place_back(network.numpy(), record), classes[0])


def test_configurations_of_any_name_inherit_and_are_trained_by(raw, tmp_path, capsys):
    written = plans()
    given = tmp_path / "edited.json"
    work = tmp_path / "work"
    written["configurations"]["3d_bigger"] = {"inherits_from": "3d_fullres", "patch_size": [4, 8, 16], "batch_size": 3}
    written["configurations"]["3d_coarse"] = {"inherits_from": "3d_bigger", "spacing": [5.0, 1.5, 1.0]}
    given.write_text(json.dumps(written))
    others = tmp_path / "folds.json"
    others.write_text(json.dumps([{"train": ["c5", "c0"], "val": ["c3"]}]))
    command = ["plan-and-preprocess", str(raw), str(work), "--plans", str(given), "--splits", str(others)]
    assert main([*command, "--configurations", "3d_coarse", "--device", "cpu"]) == 0
    assert f"next: segfw train {work} 3d_coarse 0" in capsys.readouterr().out
    coarse = Plan.load(work / "plan.json").configuration("3d_coarse")
    assert (coarse.patch_size, coarse.batch_size) == ((4, 8, 16), 3)
    assert coarse.network.features == (4, 8, 8)
    assert coarse.preprocessing.spacing_mm == (5.0, 1.5, 1.0)
    # 7 x 9 x 12 voxels as the plans say, six cases, two channels of 16 bit and a mask of 8
    assert coarse.estimate.disk_gb == pytest.approx(7 * 9 * 12 * 6 * 5 / 1024**3)
    assert [path.name for path in (work / "preprocessed").iterdir() if path.is_dir()] == ["3d_coarse"]
    assert load_stored(work / "preprocessed" / "3d_coarse", "c0").record.shape == (7, 6, 6)
    folds = json.loads((work / "splits.json").read_text())["folds"]
    assert folds == [{"train": ["c5", "c0"], "validation": ["c3"]}]
    assert main(["info", str(work)]) == 0
    assert (
        "Patch 4 x 8 x 16 voxels, batch of 3, network and spacing from nnU-Net's nnUNetPlans" in capsys.readouterr().out
    )
    assert main([*command, "--configurations", "3d_wrong"]) == 2
    assert "unknown configuration '3d_wrong'; choose from 3d_fullres, 3d_bigger, 3d_coarse" in capsys.readouterr().err


def test_plans_without_the_usual_names_end_with_a_name_that_can_be_trained(raw, tmp_path, capsys):
    written = plans()
    given = tmp_path / "edited.json"
    written["configurations"] = {"mine": written["configurations"]["3d_fullres"]}
    given.write_text(json.dumps(written))
    assert main(["plan-and-preprocess", str(raw), str(tmp_path / "work"), "--plans", str(given)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next: segfw train {tmp_path / 'work'} mine 0"


def test_a_cascade_is_not_trained_on_data_of_another_spacing(raw, tmp_path):
    written = plans()
    given = tmp_path / "edited.json"
    cascade = {"inherits_from": "3d_fullres", "previous_stage": "low", "spacing": [5.0, 2.0, 0.5]}
    written["configurations"] |= {"low": {"inherits_from": "3d_fullres"}, "3d_cascade_fullres": cascade}
    given.write_text(json.dumps(written))
    with pytest.raises(UserError, match="3d_cascade_fullres is not preprocessed as 3d_fullres"):
        plan_and_preprocess(raw, tmp_path / "work", plans=given, device="cpu", plan_only=True)
    del cascade["spacing"]
    given.write_text(json.dumps(written))
    plan = plan_and_preprocess(raw, tmp_path / "work", plans=given, device="cpu", plan_only=True)
    assert plan.configuration("3d_cascade_fullres").data_name == "3d_fullres"
