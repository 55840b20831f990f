"""A refiner from a data set to a model file: what is trained for it, what it leaves alone, and who passes it over."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from builders.data import CASES, make_images, write_raw
from builders.networks import spec
from builders.work import HELD_OUT, SLICES_FIRST, write_splits
from segfw.base.array_files import open_array
from segfw.base.records import UserError
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model, load_refiner
from segfw.model.source import ModelSource, fold_folder, trained_folds
from segfw.model.training_record import read_metrics
from segfw.networks.spec import CLICK_CHANNELS, CLICK_REFINER
from segfw.planning.plan import FULLRES, PLAN_FILE, REFINE, TWO_D, Plan
from segfw.retraining.retrain_options import RetrainOptions
from segfw.retraining.retraining_plan import read_base
from segfw.standing.of_work import work_standing
from segfw.verbs.calibrate import calibrate
from segfw.verbs.export import export_model
from segfw.verbs.info import info
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.predict import predict
from segfw.verbs.run import run
from segfw.verbs.select import select
from segfw.verbs.train import train
from segfw.verbs.training_notes import refined_text

SHORT = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "device": "cpu"}


def made_small(work: Path) -> None:
    """Networks and patches of a plan that train within a test."""
    plan = Plan.load(work / PLAN_FILE)
    small = {FULLRES: SLICES_FIRST, REFINE: refining()}
    configurations = {
        name: each.model_copy(update={"network": small[name], "patch_size": (8, 16, 16), "batch_size": 2})
        for name, each in plan.configurations.items()
        if name in small
    }
    plan.model_copy(update={"configurations": configurations}).save(work / PLAN_FILE)


def refining():
    return spec(
        architecture=CLICK_REFINER,
        in_channels=1 + CLICK_CHANNELS,
        classes=2,
        features=(4, 8),
        strides=((1, 1, 1), (1, 2, 2)),
    )


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("refined")
    write_splits(folder / "splits.json", HELD_OUT)
    return write_raw(folder / "raw")


@pytest.fixture(scope="module")
def trained(raw, tmp_path_factory) -> Path:
    """A work folder after ``run --configurations 3d_refine --folds 0`` on a fresh one."""
    work = tmp_path_factory.mktemp("work") / "work"
    asked = {"splits": raw.with_name("splits.json"), "configurations": (REFINE,)}
    plan_and_preprocess(raw, work, **asked)
    made_small(work)
    scores = run(raw, work, **asked, **SHORT, folds=("0",))
    assert set(scores) == {FULLRES}
    return work


@pytest.fixture
def work(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "work")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_what_finds_the_masks_is_trained_with_all_its_folds_and_the_refiner_with_those_asked_for(trained):
    assert trained_folds(trained, FULLRES) == ["0", "1", "2"]
    assert trained_folds(trained, REFINE) == ["0"]
    handed_on = trained / "runs" / FULLRES / "next_stage"
    assert {path.stem for path in handed_on.glob("*.b2nd")} == set(CASES)
    assert open_array(handed_on / f"{CASES[0]}.b2nd").ndim == 3
    rows = read_metrics(fold_folder(trained, REFINE, "0"))
    assert len(rows[0]["val_dice_per_label"]) == 2  # refined, and given
    assert "given" in (fold_folder(trained, REFINE, "0") / "progress.html").read_text()


@pytest.mark.parametrize(("refined", "is_warned"), [(0.7, True), (0.8, True), (0.9, False)])
def test_clicks_that_do_not_help_yet_are_warned_of(tmp_path, refined, is_warned):
    folder = fold_folder(tmp_path, REFINE, "0")
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(json.dumps({"epoch": 0, "val_dice_per_label": [refined, 0.8]}) + "\n")
    said = refined_text(tmp_path, "0", folder)
    assert f"Dice {refined:.4f} after 1 to 6 simulated clicks, where the given masks have 0.8000" in said
    assert ("warning: clicks do not make masks better yet" in said) is is_warned
    assert (f"segfw train {tmp_path} 3d_refine 0 --extend 2h" in said) is is_warned


def test_a_refiner_is_added_to_what_is_trained_without_touching_it(raw, tmp_path, capsys):
    work = tmp_path / "work"
    splits = raw.with_name("splits.json")
    plan_and_preprocess(raw, work, splits=splits, configurations=(FULLRES,))
    made_small(work)
    run(raw, work, splits=splits, configurations=(FULLRES,), **SHORT)
    before = digests(work / "runs" / FULLRES)
    of_cases = digests(work / "preprocessed")
    plan = Plan.load(work / PLAN_FILE)
    plan_and_preprocess(raw, work, splits=splits, configurations=(REFINE,))
    after = Plan.load(work / PLAN_FILE)
    assert {name: each for name, each in after.configurations.items() if name != REFINE} == plan.configurations
    assert after.configurations[REFINE].previous_stage == FULLRES
    made_small(work)
    assert f"segfw train {work} 3d_refine 0" not in capsys.readouterr().out  # said on the command line alone
    run(raw, work, splits=splits, configurations=(REFINE,), **SHORT, folds=("1",))
    assert trained_folds(work, REFINE) == ["1"]
    now = digests(work / "runs" / FULLRES)
    pages = {name for name in before if before[name] != now[name]}
    assert not pages
    assert digests(work / "preprocessed") == of_cases
    kept = Plan.load(work / PLAN_FILE)
    plan_and_preprocess(raw, work, splits=splits, configurations=(FULLRES,))
    assert Plan.load(work / PLAN_FILE) == kept  # who asks for less takes nothing away


def test_training_alone_says_how_a_refiner_is_planned_and_what_it_needs(raw, tmp_path):
    work = tmp_path / "work"
    splits = raw.with_name("splits.json")
    plan_and_preprocess(raw, work, splits=splits, configurations=(FULLRES,))
    with pytest.raises(UserError, match="no 3d_refine is planned yet; add it, .* --configurations 3d_refine"):
        train(work, REFINE, 0, **SHORT)
    with pytest.raises(UserError, match="no refiner is trained; segfw run RAW .* --configurations 3d_refine adds one"):
        load_refiner(work)
    plan_and_preprocess(raw, work, splits=splits, configurations=(REFINE,))
    with pytest.raises(UserError, match="3d_refine learns from what each fold of 3d_fullres finds .* are not trained"):
        train(work, REFINE, 0, **SHORT)


def test_nnunets_plans_have_no_refiner(raw, tmp_path):
    (tmp_path / "nnUNetPlans.json").write_text("{}")
    with pytest.raises(UserError, match="is followed to the letter, and nnU-Net has no 3d_refine; leave one of them"):
        plan_and_preprocess(raw, tmp_path / "work", plans=tmp_path / "nnUNetPlans.json", configurations=(REFINE,))


def test_losses_and_augmentations_of_others_are_refused(work):
    with pytest.raises(UserError, match="loss dice-topk is not for 3d_refine"):
        train(work, REFINE, 1, **SHORT, loss="dice-topk")
    with pytest.raises(UserError, match="build_loss and augment are not for 3d_refine"):
        train(work, REFINE, 1, **SHORT, augment=lambda image, classes, rng: (image, classes))


def test_a_refiner_is_loaded_alone_and_predicts_nothing(work, tmp_path):
    model = load_refiner(work)
    assert model.previous is None
    assert set(model.weights) == {"0"}
    assert model.configuration.is_refiner
    refusal = "3d_refine corrects masks around clicks and finds none itself; use segfw refine, or take 3d_fullres"
    with pytest.raises(UserError, match=refusal):
        load_model(work, REFINE)
    images = make_images(tmp_path / "images", 1)
    with pytest.raises(UserError, match=refusal):
        predict(work, images, tmp_path / "masks", configuration=REFINE, device="cpu")
    with pytest.raises(UserError, match=refusal):
        select(work, configurations=(FULLRES, REFINE), device="cpu")
    with pytest.raises(UserError, match=refusal):
        calibrate(work, configuration=REFINE, device="cpu")
    with pytest.raises(UserError, match=refusal):
        Predictor.of(model, device="cpu")
    with pytest.raises(UserError, match=refusal):
        read_base(work, RetrainOptions(configuration=REFINE))


def test_it_is_never_chosen_by_itself(work, tmp_path):
    images = make_images(tmp_path / "images", 1)
    predict(work, images, tmp_path / "masks", device="cpu")
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 1
    assert load_model(work).configuration.name == FULLRES
    selection = select(work, device="cpu")
    assert selection.configurations == (FULLRES,)


def test_info_and_status_tell_of_it(work):
    said = info(work, device="cpu").text()
    assert "3d_refine" in said
    assert "Learns from the masks that 3d_fullres finds" in said
    standing = work_standing(work)
    (of_refiner,) = [each for each in standing.configurations if each.name == REFINE]
    assert [fold.state for fold in of_refiner.folds] == ["finished", "not begun", "not begun"]
    assert of_refiner.cases_preprocessed == len(CASES)
    assert standing.next.startswith("segfw predict")


def test_a_model_file_carries_it(work, tmp_path):
    file = tmp_path / "blocks.zip"
    export_model(work, file)
    with ModelSource.open(file) as source:
        assert source.card is not None
        assert source.card.configurations == (FULLRES,)
    model = load_refiner(file)
    assert set(model.weights) == {"0"}
    assert load_model(file).configuration.name == FULLRES
    images = make_images(tmp_path / "images", 1)
    predict(file, images, tmp_path / "masks", device="cpu")
    with pytest.raises(UserError, match="3d_refine corrects masks"):
        export_model(work, tmp_path / "alone.zip", configurations=(REFINE,))
    shutil.rmtree(work / "runs" / REFINE)
    export_model(work, tmp_path / "without.zip")
    with pytest.raises(UserError, match="holds no refiner; train one where the model was trained"):
        load_refiner(tmp_path / "without.zip")


def test_slices_may_find_the_masks_of_a_refiner_of_volumes(raw, tmp_path):
    work = tmp_path / "work"
    asked = {"splits": raw.with_name("splits.json"), "configurations": (TWO_D, REFINE)}
    plan_and_preprocess(raw, work, **asked)
    plan = Plan.load(work / PLAN_FILE)
    assert plan.configurations[REFINE].previous_stage == TWO_D
    flat = SLICES_FIRST.model_copy(update={"kernels": ((1, 3, 3),) * 2})
    small = {
        TWO_D: plan.configurations[TWO_D].model_copy(update={"network": flat, "patch_size": (1, 16, 16)}),
        FULLRES: plan.configurations[FULLRES],
        REFINE: plan.configurations[REFINE].model_copy(update={"network": refining(), "patch_size": (8, 16, 16)}),
    }
    plan.model_copy(update={"configurations": small}).save(work / PLAN_FILE)
    run(raw, work, **asked, **SHORT, folds=("0",))
    assert trained_folds(work, TWO_D) == ["0", "1", "2"]
    assert trained_folds(work, REFINE) == ["0"]
