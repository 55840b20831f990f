"""Runs whose patches grow: what is trained on when, that they go on bit for bit, and what their weights say."""

import pytest

from builders.networks import spec
from builders.training import assert_same_weights, run, usual_loss, weights
from segfw.model.training_record import read_metrics
from segfw.model.weights import load_tensors, save_weights
from segfw.training import batches

GROWING = {"patches": "grow", "epochs": 2, "steps_per_epoch": 4, "network": spec(), "checkpoint_every_s": 0.0}
SIZES = [((4, 8, 8), 6)] * 4 + [((6, 12, 12), 3)] * 2 + [((8, 16, 16), 2)] * 2  # and how many of them, step by step


@pytest.fixture
def cut_sizes(monkeypatch):
    """Shape and number of the patches of every training step that is computed."""
    sizes = []
    finish = batches.Batches.finish

    def noted(self, cut, device, *answer):
        image, classes = finish(self, cut, device, *answer)
        if self.stream == 0:
            sizes.append((tuple(image.shape[2:]), image.shape[0]))
        return image, classes

    monkeypatch.setattr(batches.Batches, "finish", noted)
    return sizes


def test_every_stage_has_its_share_of_the_steps(prepared, tmp_path, cut_sizes, capsys):
    folder = run(prepared, tmp_path / "run", **GROWING)
    assert cut_sizes == SIZES
    said = capsys.readouterr().out
    assert "patches grow: 4 x 8 x 8 (6 a step), 6 x 12 x 12 (3 a step), then 8 x 16 x 16 (2 a step)" in said
    assert [row.get("patches") for row in read_metrics(folder)] == [
        "6 x 12 x 12 voxels, 3 a step, from step 5 on",  # the first epoch's last step was its reason
        "8 x 16 x 16 voxels, 2 a step, from step 7 on",
    ]
    assert load_tensors(folder / "weights.safetensors")[1]["patch_size"] == "8x16x16"


@pytest.mark.parametrize("step", [2, 4, 5, 7])  # in every stage, and where a new one begins
def test_a_run_that_is_killed_in_any_stage_ends_like_an_undisturbed_one(prepared, tmp_path, step):
    whole = run(prepared, tmp_path / "whole", **GROWING)

    class Killed(Exception):
        pass

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        run(prepared, tmp_path / "cut", **GROWING, build_loss=usual_loss(before={step + 1: kill}))
    resumed = run(prepared, tmp_path / "cut", **GROWING, resume=True)
    assert_same_weights(whole, resumed)


def test_a_run_that_is_ended_early_cools_down_on_the_patches_that_prediction_takes(prepared, tmp_path, cut_sizes):
    settings = GROWING | {"epochs": 8, "steps_per_epoch": 7, "patience": 1, "fewest_gain": 10.0}
    run(prepared, tmp_path / "run", **settings)
    assert cut_sizes == [((4, 8, 8), 6)] * 15 + [((8, 16, 16), 2)]  # two epochs, and 15 % of their steps


def test_constant_patches_are_the_planned_ones(prepared, tmp_path, cut_sizes):
    run(prepared, tmp_path / "run", epochs=1, steps_per_epoch=2)
    assert cut_sizes == [((8, 16, 16), 2)] * 2


def test_a_time_budget_ends_on_the_patch_that_it_has_room_for(prepared, tmp_path, cut_sizes):
    """By a clock on which every look takes a second: hardly any step fits, so that the smallest patch is the last."""
    now = [0.0]

    def now_s() -> float:
        now[0] += 1.0
        return now[0]

    folder = run(prepared, tmp_path / "run", time_budget_s=120.0, now_s=now_s)
    last = cut_sizes[-1][0]
    assert last < (8, 16, 16)
    assert load_tensors(folder / "weights.safetensors")[1]["patch_size"] == "x".join(map(str, last))
    assert weights(folder)


def test_a_patch_that_is_none_is_refused(tmp_path):
    from segfw.base.records import UserError

    save_weights(tmp_path / "w.safetensors", {}, epoch=1, mirror_axes=(), patch_size=(0, 8, 8))
    with pytest.raises(UserError, match="field 'patch_size' is '0x8x8'; it must be voxels such as 40x56x40"):
        load_tensors(tmp_path / "w.safetensors")
