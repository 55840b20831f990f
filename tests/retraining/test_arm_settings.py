"""How long both arms train, at which rate: by shares, epochs and times, of a made-up training."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from builders.networks import spec
from builders.training import ZSCORE, configuration
from segfw.base.records import UserError
from segfw.cli import build_parser
from segfw.model.training_record import RunRecord, TrainingEnd
from segfw.retraining import arm_settings as module
from segfw.retraining.arm_settings import arm_settings, fold_start, in_epochs
from segfw.retraining.retrain_options import RetrainOptions
from segfw.retraining.retraining_record import AskedRetraining, FoldStart, Retraining
from segfw.training.pace import Pace
from segfw.training.schedule import FittedSettings
from segfw.training.settings import TrainSettings

CPU = torch.device("cpu")
FITTED = FittedSettings(
    **vars(TrainSettings(time_budget_s=600.0, patches="grow", seed=7, patience=5, training_precision="bf16"))
    | {"batch_size": 3, "patch_size": (8, 16, 16), "learning_rate": 0.02, "momentum": 0.95, "mirroring": True}
)


@pytest.fixture
def work(tmp_path):
    """A fold that was trained for 5000 steps, without its weights being any."""
    folder = tmp_path / "work" / "runs" / "3d_fullres" / "fold_0"
    folder.mkdir(parents=True)
    FITTED.save(folder / "settings.json")
    end = TrainingEnd(steps=5000, epochs=20, seconds=600.0, warning="")
    RunRecord(label_names=("bright", "dark"), sessions=(), end=end).save(folder / "run.json")
    (folder / "weights.safetensors").write_bytes(b"weights")
    return tmp_path / "work"


def start_of(work, options=RetrainOptions(), *, before=None):
    return fold_start(work, configuration(ZSCORE, spec()), "0", before, options, scratch=options.scratch, device=CPU)


@pytest.mark.parametrize("steps, epochs", [(1, (1, 1)), (100, (1, 100)), (1000, (4, 250)), (1100, (4, 275))])
def test_steps_become_epochs_of_about_250(steps, epochs):
    assert in_epochs(steps) == epochs


def test_a_fifth_of_the_steps_at_half_the_rate_unless_asked_otherwise(work):
    start = start_of(work)
    assert (start.steps, start.original_steps) == (1000, 5000)
    assert (start.learning_rate, start.original_rate) == (0.01, 0.02)
    assert start_of(work, RetrainOptions(length_share=0.1)).steps == 500
    assert start_of(work, RetrainOptions(epochs=3)).steps == 750  # of the published 250
    scratch = start_of(work, RetrainOptions(scratch=True))
    assert (scratch.steps, scratch.learning_rate) == (5000, 0.02)


def test_over_rounds_length_and_rate_are_shares_of_the_first_training(work):
    earlier = FoldStart(
        fold="0",
        weights_sha256="0",
        original_steps=10_000,
        original_rate=0.04,
        epochs=20,
        steps_per_epoch=250,
        learning_rate=0.02,
        old_share=0.5,
    )
    asked = asked_of()
    before = Retraining(
        asked=asked,
        configuration="3d_fullres",
        new=(),
        left_out={},
        patient_of={},
        test_patient_of={},
        folds=(earlier,),
        version="0.1.0",
    )
    start = start_of(work, before=before)
    assert (start.steps, start.learning_rate) == (2000, 0.02)


def test_a_time_becomes_steps_once_of_the_patches_that_will_be_taken(work, monkeypatch):
    """A hundredth of a second for a step on three patches of 2048 voxels, whatever else there is to do."""
    voxels = 3 * 8 * 16 * 16
    pace = Pace(fixed_s=0.0, voxel_s=0.01 / voxels)
    monkeypatch.setattr(module, "foretold_pace", lambda *_: pace)
    seconds = 10.0
    constant = start_of(work, RetrainOptions(time_budget_s=seconds))
    assert constant.steps == pytest.approx(seconds / pace.step_s(voxels), abs=2)
    growing = start_of(work, RetrainOptions(time_budget_s=seconds, scratch=True))
    assert growing.steps > 1.2 * constant.steps  # its first patches are small
    monkeypatch.setattr(module, "foretold_pace", lambda *_: None)
    with pytest.raises(UserError, match="no memory for a step"):
        start_of(work, RetrainOptions(time_budget_s=seconds))


def test_both_arms_are_trained_as_the_model_was_but_for_length_rate_and_seed(work):
    start = start_of(work)
    warm = arm_settings(FITTED, start, 4, scratch=False, precision=None)
    differing = {each.name for each in fields(TrainSettings) if getattr(warm, each.name) != getattr(FITTED, each.name)}
    assert differing == {
        *("epochs", "steps_per_epoch", "time_budget_s", "learning_rate", "seed", "patches", "patience"),
        "training_precision",
    }
    assert (warm.epochs, warm.steps_per_epoch, warm.seed, warm.patches) == (4, 250, 4, "constant")
    assert arm_settings(FITTED, start, 4, scratch=True, precision=None).patches == "grow"


def test_a_model_that_does_not_tell_how_it_was_trained_is_refused(work):
    folder = work / "runs" / "3d_fullres" / "fold_0"
    (folder / "run.json").unlink()
    with pytest.raises(UserError, match="does not say for how many steps the fold was trained"):
        start_of(work)
    (folder / "settings.json").unlink()
    with pytest.raises(UserError, match="does not say how it was trained"):
        start_of(work)


def asked_of(**changes):
    values = {
        "base": Path("work"),
        "labels": (Path("masks"), Path("more masks")),
        "states": "signed",
        "scratch": False,
        "length_share": 0.2,
        "epochs": None,
        "time_budget_s": None,
        "test": None,
        "groups": None,
        "configuration": None,
        "folds": None,
        "seed": 1,
    }
    return AskedRetraining(**values | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"states": "reviewed", "scratch": True, "epochs": 4, "folds": ("0", "2")},
        {"time_budget_s": 90.0, "test": Path("test"), "groups": "(pat.*)_", "configuration": "2d", "seed": 3},
        {"length_share": 0.1},
    ],
)
def test_the_command_that_goes_on_asks_for_the_same(changes):
    asked = asked_of(**changes)
    verb, *words = asked.words(Path("new"))
    typed = build_parser().parse_args(words)
    assert (verb, typed.verb, typed.new) == ("segfw", "retrain", Path("new"))
    options = RetrainOptions.from_arguments(typed)
    assert (typed.work, tuple(typed.labels)) == (asked.base, asked.labels)
    for each in fields(RetrainOptions):
        if each.name in AskedRetraining.model_fields:
            assert getattr(options, each.name) == getattr(asked, each.name), each.name
    assert options == replace(options, raw_only=False, device="auto", workers=None)
