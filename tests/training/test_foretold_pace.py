"""The pace of steps that is measured before a run has begun."""

import pytest
import torch

from builders.models import small_model
from segfw.cli import main
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.training.expected_length import expected_training
from segfw.training.foretold_pace import foretold_pace
from segfw.training.pace import Pace
from segfw.training.settings import TrainSettings

CPU = torch.device("cpu")


@pytest.fixture
def configuration(tmp_path):
    return Plan.load(small_model(tmp_path / "planned") / PLAN_FILE).configurations["3d_fullres"]


def test_steps_are_foretold_by_the_measured_pace_and_not_by_the_probe(configuration, monkeypatch):
    def no_probe(device):
        raise AssertionError("the probe was asked")

    monkeypatch.setattr("segfw.training.expected_length.training_flops", no_probe)
    settings = TrainSettings(time_budget_s=1300, patches="constant")
    voxels = 2 * torch.Size(configuration.patch_size).numel()  # the batch of a budget is the smallest, of 2
    expected = expected_training(configuration, settings, 1, CPU, pace=Pace(fixed_s=0.0, voxel_s=1 / voxels))
    assert expected.steps == 1000  # a second each, and 1.3 with what comes besides


def test_a_pace_is_measured_on_the_planned_network_and_draws_no_number_of_training(configuration):
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    pace = foretold_pace(configuration, TrainSettings(time_budget_s=60), CPU)
    assert pace.fixed_s + pace.voxel_s > 0
    assert torch.equal(torch.rand(3), wanted)


def test_without_memory_for_a_patch_nothing_is_foretold(configuration, monkeypatch):
    def too_large(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("segfw.training.foretold_pace.measured_pace", too_large)
    assert foretold_pace(configuration, TrainSettings(time_budget_s=60), CPU) is None


def test_run_says_the_steps_that_it_measured(make_raw, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("segfw.training.foretold_pace.measured_pace", lambda *given: Pace(fixed_s=0.1, voxel_s=0.0))
    raw, work = make_raw(), tmp_path / "work"
    words = ["--device", "cpu", "--folds", "0", "--configurations", "3d_fullres", "--time-budget", "130s", "--dry-run"]
    assert main(["plan-and-preprocess", str(raw), str(work), "--device", "cpu", "--time-budget", "130s"]) == 0
    assert main(["run", str(raw), str(work), *words]) == 0
    assert "about 1,000 steps each" in capsys.readouterr().out
