"""``predict --plausible``: which files there are, when they are made anew, and of which models it is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from builders.calibrated import calibrated_model
from builders.data import make_images, mask_bytes
from builders.models import make_model, selection_of, write_fold
from builders.slow_prediction import start_slow_prediction
from builders.waiting import kill, wait_until
from segfw.base.records import UserError
from segfw.cli import main
from segfw.images.formats import read_mask
from segfw.model.source import QUALITY_FILE
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.quality.plausible_masks import PlausibleCase
from segfw.quality.plausible_thresholds import PlausibleThresholds
from segfw.quality.quality_model import QualityModel
from segfw.verbs.export import export_model
from segfw.verbs.predict import predict

TESTS = Path(__file__).parents[1]
FOUND = PlausibleThresholds(
    outer=-0.7, inner=-0.5, level=0.05, patients=60, empty_share=0, outer_ratio=1.2, inner_ratio=0.8
)
NONE = FOUND.model_copy(
    update={"outer": None, "inner": None, "note": "only 7 patients have it; at least 10 are needed"}
)


def with_thresholds(model: Path, **thresholds: PlausibleThresholds) -> Path:
    quality = QualityModel.load(model / QUALITY_FILE)
    quality.model_copy(update={"plausible": thresholds}).save(model / QUALITY_FILE)
    return model


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Path:
    model = calibrated_model(tmp_path_factory.mktemp("calibrated"), folds=("0", "1", "2"))
    return with_thresholds(model, bright=FOUND, dark=FOUND)


@pytest.fixture
def own(calibrated, tmp_path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(calibrated, tmp_path / "own"))


@pytest.fixture(scope="module")
def made(calibrated, images, tmp_path_factory) -> Path:
    """Masks with plausible ones, which no test changes."""
    output = tmp_path_factory.mktemp("made")
    predict(calibrated, images, output, device="cpu", plausible=True)
    return output


def plausible(folder: Path) -> dict[str, bytes]:
    """Values of the masks, and the text of other files: gzip keeps the time."""
    return {
        path.name: read_mask(path).array.tobytes() if path.name.endswith(".nii.gz") else path.read_bytes()
        for path in sorted((folder / "plausible").glob("[!.]*"))
    }


def test_every_case_has_its_masks_nested_and_on_its_own_grid(made):
    kinds = ("fold_0", "fold_1", "fold_2", "inner", "outer_bright", "outer_dark")
    assert set(plausible(made)) == {"a.json", "b.json", *(f"{case}_{kind}.nii.gz" for case in "ab" for kind in kinds)}
    for case in "ab":
        mask = read_mask(made / f"{case}.nii.gz")
        inner = read_mask(made / "plausible" / f"{case}_inner.nii.gz")
        assert inner.geometry == mask.geometry
        listed = PlausibleCase.load(made / "plausible" / f"{case}.json")
        assert set(listed.files) == {f"{case}_{kind}.nii.gz" for kind in kinds}
        assert listed.guarantee == "exchangeable"
        for structure, value in zip(listed.structures, (3, 7)):
            outer = read_mask(made / "plausible" / f"{case}_outer_{structure.label}.nii.gz").array == value
            assert not ((inner.array == value) & (mask.array != value)).any()
            assert not ((mask.array == value) & ~outer).any()
            assert structure.inner_ml < structure.mask_ml < structure.outer_ml
            voxel_ml = abs(np.linalg.det(mask.geometry.matrix[:3, :3])) / 1000
            assert structure.outer_ml == pytest.approx(outer.sum() * voxel_ml)


def test_a_folds_mask_is_that_of_the_fold_alone(calibrated, images, made, tmp_path):
    predict(calibrated, images, tmp_path, device="cpu", folds=("1",), quality=False)
    for case in "ab":
        alone = read_mask(tmp_path / f"{case}.nii.gz").array
        np.testing.assert_array_equal(read_mask(made / "plausible" / f"{case}_fold_1.nii.gz").array, alone)


def test_two_folds_have_no_masks_of_their_own(calibrated, images, tmp_path):
    predict(calibrated, images, tmp_path, device="cpu", folds=("0", "2"), plausible=True)
    assert not list((tmp_path / "plausible").glob("*fold*"))
    assert (tmp_path / "plausible" / "a_inner.nii.gz").is_file()


def test_masks_themselves_are_those_without(calibrated, images, made, tmp_path):
    predict(calibrated, images, tmp_path, device="cpu")
    assert set(mask_bytes(tmp_path)) == {"a.nii.gz", "b.nii.gz"}
    for name in mask_bytes(tmp_path):
        np.testing.assert_array_equal(read_mask(tmp_path / name).array, read_mask(made / name).array)


def test_what_lacks_is_made_and_the_rest_is_kept(calibrated, images, made, tmp_path, capsys):
    predict(calibrated, images, tmp_path, device="cpu")
    predict(calibrated, images, tmp_path, device="cpu", plausible=True)
    assert "2 cases predicted, 0 were there" in capsys.readouterr().out
    assert plausible(tmp_path) == plausible(made)
    (tmp_path / "plausible" / "b.json").unlink()
    predict(calibrated, images, tmp_path, device="cpu", plausible=True)
    assert "1 case predicted, 1 were there" in capsys.readouterr().out
    predict(calibrated, images, tmp_path, device="cpu")  # more than is asked for may be there
    assert plausible(tmp_path) == plausible(made)


def test_another_calibration_and_another_image_take_the_old_ones_with_them(own, tmp_path):
    images = make_images(tmp_path / "images", 2)
    masks = tmp_path / "masks"
    predict(own, images, masks, device="cpu", plausible=True)
    before = plausible(masks)
    with_thresholds(own, bright=FOUND.model_copy(update={"outer": -0.6}))
    predict(own, images, masks, device="cpu", plausible=True)
    after = plausible(masks)
    assert "a_outer_dark.nii.gz" not in after
    assert after["a_outer_bright.nii.gz"] != before["a_outer_bright.nii.gz"]
    shutil.copy(images / "b.nii.gz", images / "a.nii.gz")
    predict(own, images, masks, device="cpu")
    assert {name[0] for name in plausible(masks)} == {"b"}


def test_a_damaged_list_of_files_removes_nothing_else(own, images, tmp_path):
    masks = tmp_path / "masks"
    predict(own, images, masks, device="cpu", plausible=True)
    precious = tmp_path / "a_precious.txt"
    precious.write_text("keep")
    names = ["../../a_precious.txt", "b_inner.nii.gz", "a_/../../../a_precious.txt", "a_fold_0.nii.gz"]
    (masks / "plausible" / "a.json").write_text(json.dumps({"files": names}))
    predict(own, images, masks, device="cpu", overwrite=True)
    assert precious.read_text() == "keep"
    assert "a_fold_0.nii.gz" not in plausible(masks)


def test_a_killed_call_goes_on_and_makes_the_same(calibrated, images, made, tmp_path):
    process = start_slow_prediction(calibrated, images, tmp_path, "slow=0.05", "plausible")
    wait_until(lambda: mask_bytes(tmp_path), process)
    kill(process)
    for name in mask_bytes(tmp_path):  # the mask last: what is beside it is whole
        PlausibleCase.load(tmp_path / "plausible" / f"{name.removesuffix('.nii.gz')}.json")
    predict(calibrated, images, tmp_path, device="cpu", plausible=True)
    assert plausible(tmp_path) == plausible(made)
    assert not list(tmp_path.rglob(".partial-*"))


def test_only_wanted_structures_have_plausible_masks(calibrated, images, tmp_path):
    predict(calibrated, images, tmp_path, device="cpu", plausible=True, only=("dark",))
    assert "a_outer_bright.nii.gz" not in plausible(tmp_path)
    inner = read_mask(tmp_path / "plausible" / "a_inner.nii.gz").array
    assert set(np.unique(inner)) == {0, 7}


def test_a_dry_run_counts_what_they_take(calibrated, images, tmp_path, capsys):
    call = ["predict", str(calibrated), str(images), str(tmp_path / "new"), "--dry-run", "--json"]
    assert main([*call, "--plausible"]) == 0
    with_them = json.loads(capsys.readouterr().out)
    assert main(call) == 0
    assert with_them["disk_needed_bytes"] > json.loads(capsys.readouterr().out)["disk_needed_bytes"]
    assert not (tmp_path / "new").exists()


def test_without_quality_they_are_made_all_the_same(calibrated, images, made, tmp_path):
    predict(calibrated, images, tmp_path, device="cpu", plausible=True, quality=False)
    assert plausible(tmp_path) == plausible(made)
    assert not (tmp_path / "quality").exists()


def test_other_tiling_withdraws_the_promise(calibrated, images, tmp_path):
    predict(calibrated, images, tmp_path, device="cpu", plausible=True, mirroring=False)
    listed = PlausibleCase.load(tmp_path / "plausible" / "a.json")
    assert listed.guarantee == "withdrawn: the model was calibrated with other options (mirroring is off)"


def test_a_model_file_brings_its_thresholds(calibrated, images, made, tmp_path):
    export_model(calibrated, tmp_path / "model.zip")
    predict(tmp_path / "model.zip", images, tmp_path / "masks", device="cpu", plausible=True)
    assert plausible(tmp_path / "masks") == plausible(made)


def refused(model: Path, images: Path, output: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        predict(model, images, output, device="cpu", plausible=True, **options)
    assert not output.exists()
    return str(caught.value)


def test_a_model_that_is_not_calibrated_is_one_sentence(images, tmp_path):
    model = make_model(tmp_path / "model")
    assert refused(model, images, tmp_path / "masks") == (
        f"{model}: plausible=True needs thresholds from held-out cases, and this model is not calibrated; "
        f"run segfw calibrate {model} first"
    )


def test_too_few_cases_are_one_sentence_and_a_structure_with_too_few_a_note(own, images, tmp_path, capsys):
    with_thresholds(own, bright=NONE, dark=NONE)
    assert refused(own, images, tmp_path / "masks") == (
        f"{own / QUALITY_FILE}: holds no thresholds for plausible=True (only 7 patients have it; at least 10 are "
        "needed); calibrate with more cases, or leave out plausible=True"
    )
    with_thresholds(own, bright=FOUND.model_copy(update={"outer_ratio": 12.3}), dark=NONE)
    assert refused(own, images, tmp_path / "masks", only=("dark",)) == (
        f"{own / QUALITY_FILE}: holds no thresholds for plausible=True of dark (only 7 patients have it; at least 10 "
        "are needed); calibrate with more cases, or leave out plausible=True"
    )
    predict(own, images, tmp_path / "masks", device="cpu", plausible=True)
    printed = capsys.readouterr().out
    assert "note: no plausible masks of dark: only 7 patients have it" in printed
    assert "bright keep their promise and say little: outer ones are 12.3 times as large as the mask" in printed
    assert "a_outer_dark.nii.gz" not in plausible(tmp_path / "masks")


def test_other_weights_and_other_configurations_are_one_sentence(own, images, tmp_path):
    plan = Plan.load(own / PLAN_FILE)
    full = plan.configurations["3d_fullres"]
    low = full.model_copy(update={"name": "3d_lowres"})
    plan.model_copy(update={"configurations": {"3d_fullres": full, "3d_lowres": low}}).save(own / PLAN_FILE)
    write_fold(own, low, "0", (2,), 11)
    sentence = refused(own, images, tmp_path / "masks", configuration="3d_lowres")
    assert "plausible=True is of 3d_fullres, which was calibrated, and 3d_lowres predicts" in sentence
    selection_of("3d_fullres", "3d_lowres").save(own / "selection.json")
    sentence = refused(own, images, tmp_path / "masks")
    assert "3d_fullres and 3d_lowres predicts" in sentence
    write_fold(own, full, "1", (2,), 12)
    sentence = refused(own, images, tmp_path / "masks", configuration="3d_fullres", quality=False)
    assert re.search("is of another model .*; run segfw calibrate anew, or leave out plausible=True", sentence)
