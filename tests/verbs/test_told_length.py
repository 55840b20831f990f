"""What is said of a training's length before its first step and at its end, and when that is a warning."""

import json
import re
from types import SimpleNamespace

import pytest
import torch

import segfw.training.loop
from builders.models import small_model
from builders.networks import spec
from segfw.cli import main
from segfw.model.training_record import read_run_record
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.planning.plan_for_device import training_flops
from segfw.training.expected_length import expected_training, length_warnings
from segfw.training.settings import TrainSettings

CPU = torch.device("cpu")
QUICK = ("--device", "cpu", "--configurations", "3d_fullres", "--folds", "0")


@pytest.fixture
def configuration(tmp_path, monkeypatch):
    """3d_fullres of a plan; a step is 1e12 operations and the device does 1e12 of them in a second."""
    monkeypatch.setattr("segfw.training.expected_length.training_flops", lambda device: 1e12)
    planned = Plan.load(small_model(tmp_path / "planned") / PLAN_FILE).configurations["3d_fullres"]
    estimate = planned.estimate.model_copy(update={"teraflop_per_step": 1.0})
    return planned.model_copy(update={"estimate": estimate, "patch_size": (8, 16, 24), "batch_size": 2})


def test_the_line_has_folds_steps_patch_batch_and_hours(configuration):
    expected = expected_training(configuration, TrainSettings(batch_size=4), 5, CPU)
    assert expected.line() == (
        "3d_fullres: 5 folds, 250,000 steps each (1000 epochs of 250), patches of 8 x 16 x 24 voxels, 4 a step, "
        "about 181 h (8 days) a fold, 903 h (38 days) in all on CPU; enough for large structures, not for small ones"
    )
    budget = expected_training(configuration, TrainSettings(time_budget_s=5400), 1, CPU)
    assert budget.line() == (
        "3d_fullres: 1 fold, about 9,009 steps each, patches that grow from 4 x 8 x 8 to 8 x 16 x 24 voxels, "
        "2 a step, 1.5 h a fold on CPU; enough for large structures, not for small ones"
    )


@pytest.mark.parametrize(
    "settings, folds, said",
    [
        ({}, 1, "no length was given, so that 1000 epochs are trained, about 90 h (4 days) on CPU"),
        ({"epochs": 999}, 5, None),  # long, but that is what was asked for
        ({"time_budget_s": 1e6}, 5, None),
        ({"epochs": 2, "steps_per_epoch": 3}, 1, "6 steps of training: too few for a usable model"),
        ({"epochs": 1, "steps_per_epoch": 300}, 1, None),
    ],
)
def test_warned_of_is_what_nobody_asked_for_and_what_is_of_no_use(configuration, settings, folds, said):
    expected = [expected_training(configuration, TrainSettings(**settings), folds, CPU)]
    warnings = length_warnings(expected, "segfw train 'my work' 3d_fullres 0 --time-budget 2h")
    assert [said in each for each in warnings] == ([] if said is None else [True])
    if said and "no length" in said:
        assert warnings[0].endswith("a time of your choice: segfw train 'my work' 3d_fullres 0 --time-budget 2h")


def test_the_command_that_is_proposed_keeps_what_else_was_asked_for(make_raw, tmp_path, capsys):
    raw, work = make_raw(), tmp_path / "work"
    assert main(["run", str(raw), str(work), *QUICK, "--seed", "7", "--time-budget", "0.1s", "--dry-run"]) == 0
    said = capsys.readouterr().out
    longer = "--configurations 3d_fullres --folds 0 --seed 7 --device cpu --time-budget 2h"
    assert f"to train for longer: segfw run {raw} {work} {longer}" in said


def test_a_run_of_six_steps_is_warned_of_at_both_ends_and_in_its_record(make_raw, tmp_path, capsys):
    raw, work = make_raw(), tmp_path / "work"
    assert main(["run", str(raw), str(work), *QUICK, "--epochs", "2", "--steps-per-epoch", "3"]) == 0
    said = capsys.readouterr().out
    before, after = said.split("epoch 1/2", 1)
    assert "to train: 3d_fullres: 1 fold, 6 steps each (2 epochs of 3), patches of " in before
    assert before.count("warning: 6 steps of training: too few for a usable model") == 1
    folder = work / "runs" / "3d_fullres" / "fold_0"
    assert f"{folder}: trained 6 steps in 2 epochs, " in after
    assert after.count("warning: 6 steps of training: too few for a usable model") == 1
    end = read_run_record(folder).end
    assert (end.steps, end.epochs) == (6, 2)
    assert "too few for a usable model" in end.warning
    # Records of versions that did not keep it are read.
    kept = json.loads((folder / "run.json").read_text())
    del kept["end"]
    (folder / "run.json").write_text(json.dumps(kept))
    assert read_run_record(folder).end is None


def test_no_length_is_warned_of_by_run_and_train_with_a_command_to_paste(make_raw, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("segfw.training.expected_length.training_flops", lambda device: 1e6)  # a slow device
    begun = []
    monkeypatch.setattr(segfw.training.loop, "train", lambda request: begun.append(request))
    monkeypatch.setattr("segfw.verbs.train._validate", lambda *given: None)
    raw, work = make_raw(), tmp_path / "my work"
    assert main(["run", str(raw), str(work), *QUICK, "--as-published"]) == 0
    said = capsys.readouterr().out
    assert len(begun) == 1
    assert re.search(r"to train: 3d_fullres: 1 fold, 250,000 steps each .* about [\d,]+ h .* a fold on CPU", said)
    command = (
        f"segfw run {raw} '{work}' --configurations 3d_fullres --folds 0 --as-published --device cpu --time-budget 2h"
    )
    assert said.count("warning: no length was given") == 1
    assert f"to train for a time of your choice: {command}\n" in said
    assert main(["train", str(work), "3d_fullres", "1", "--device", "cpu"]) == 0
    assert f"your choice: segfw train '{work}' 3d_fullres 1 --device cpu --time-budget 2h\n" in capsys.readouterr().out
    # A length that was chosen is nothing to warn of.
    assert main(["train", str(work), "3d_fullres", "1", "--device", "cpu", "--epochs", "900"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_a_plan_for_the_published_length_is_told_of_a_better_one_for_little_time(
    make_raw, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(segfw.training.loop, "train", lambda request: None)
    monkeypatch.setattr("segfw.verbs.train._validate", lambda *given: None)
    monkeypatch.setattr("segfw.training.expected_length.training_flops", lambda device: 1e9)
    raw, work = make_raw(), tmp_path / "work"
    assert main(["plan-and-preprocess", str(raw), str(work), "--configurations", "3d_fullres", "--device", "cpu"]) == 0
    train = ["train", str(work), "3d_fullres", "0", "--device", "cpu"]
    capsys.readouterr()
    assert main([*train, "--time-budget", "90s"]) == 0
    again = f"segfw plan-and-preprocess {raw} {work} --time-budget 1m30s"
    assert f"networks for so little time are planned by: {again}\n" in capsys.readouterr().out
    assert main([*train, "--epochs", "1", "--steps-per-epoch", "1"]) == 0
    assert "networks for so little time" not in capsys.readouterr().out
    assert main([*again.split()[1:], "--configurations", "3d_fullres", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main([*train, "--time-budget", "90s"]) == 0
    assert "networks for so little time" not in capsys.readouterr().out


def test_without_a_length_a_cpu_is_given_an_hour_in_all(make_raw, tmp_path, capsys, monkeypatch):
    begun = []
    monkeypatch.setattr(segfw.training.loop, "train", lambda request: begun.append(request))
    monkeypatch.setattr("segfw.verbs.train._validate", lambda *given: None)
    assert main(["run", str(make_raw()), str(tmp_path / "work"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert [request.settings.time_budget_s for request in begun] == [720.0] * 5
    assert len({request.configuration.name for request in begun}) == 1
    assert "no length was given: on a CPU each fold is trained for 12 min; --time-budget trains for another" in said
    assert "warning" not in said
    assert (Plan.load(tmp_path / "work" / PLAN_FILE).planned_time_s) == 720.0


def test_a_plan_that_something_is_trained_by_serves_other_lengths_too(make_raw, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(segfw.training.loop, "train", lambda request: None)
    monkeypatch.setattr("segfw.verbs.train._validate", lambda *given: None)
    raw, work = make_raw(), tmp_path / "work"
    command = ["run", str(raw), str(work), "--device", "cpu", "--folds", "0", "--time-budget"]
    assert main([*command, "12m"]) == 0
    plan = Plan.load(work / PLAN_FILE)
    assert main([*command, "24m"]) == 0
    assert Plan.load(work / PLAN_FILE).planned_time_s == 1440  # nothing is trained yet
    fold = work / "runs" / plan.chosen / "fold_0"
    fold.mkdir(parents=True)
    (fold / "weights.safetensors").touch()
    capsys.readouterr()
    assert main([*command[:-2], "1", "--time-budget", "48m"]) == 0
    assert Plan.load(work / PLAN_FILE).planned_time_s == 1440
    trained = f"runs/{plan.chosen}/fold_0 is trained by it"
    assert (
        f"plan.json: was planned for trainings of 24 min on CPU, and stays so, because {trained}"
        in capsys.readouterr().out
    )


def test_a_work_folder_that_was_planned_for_a_time_trains_one_configuration_in_any_length(
    make_raw, tmp_path, capsys, monkeypatch
):
    begun = []
    monkeypatch.setattr(segfw.training.loop, "train", lambda request: begun.append(request.configuration.name))
    monkeypatch.setattr("segfw.verbs.train._validate", lambda *given: None)
    raw, work = make_raw(), tmp_path / "work"
    command = ["run", str(raw), str(work), "--device", "cpu", "--folds", "0"]
    assert main([*command, "--time-budget", "12m", "--dry-run"]) == 0
    foretold = capsys.readouterr().out
    assert main([*command, "--time-budget", "12m"]) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("to train: "))
    assert line.split(", about ")[0] in foretold  # the same; how many steps is measured each time
    assert line.rpartition(";")[2] in foretold
    plan = Plan.load(work / PLAN_FILE)
    assert plan.reasons[-1] in said
    fold = work / "runs" / plan.chosen / "fold_0"
    fold.mkdir(parents=True)
    (fold / "weights.safetensors").touch()
    assert main([*command[:-1], "1", "--epochs", "400"]) == 0
    assert begun == [plan.chosen] * 2


def test_folds_begun_with_epochs_are_proposed_no_other_length(make_raw, tmp_path, capsys, monkeypatch):
    begun = []
    monkeypatch.setattr(segfw.training.loop, "train", lambda request: begun.append(request.settings.time_budget_s))
    monkeypatch.setattr("segfw.verbs.train._validate", lambda *given: None)
    raw, work = make_raw(), tmp_path / "work"
    fold = work / "runs" / "2d" / "fold_0"
    fold.mkdir(parents=True)
    TrainSettings().save(fold / "settings.json")
    assert main(["run", str(raw), str(work), "--device", "cpu", "--folds", "1", "--configurations", "2d"]) == 0
    assert begun == [None]
    assert "no length was given: on a CPU" not in capsys.readouterr().out


def test_the_probe_changes_no_random_number():
    training_flops.cache_clear()
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    cost = SimpleNamespace(step_s_on=lambda device, flops: 1.0 if flops() > 0 else 0.0)
    planned = SimpleNamespace(
        name="2d", patch_size=(1, 8, 8), batch_size=2, estimate=cost, network=spec(), is_refiner=False
    )
    assert expected_training(planned, TrainSettings(), 1, CPU).step_s == pytest.approx(1.3)
    assert torch.equal(torch.rand(3), wanted)
