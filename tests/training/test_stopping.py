"""Runs that end early, later, or not as they should: each leaves weights and says what happened."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from builders.training import FOLD, run, usual_loss, weights
from segfw.base.errors import DiskFull
from segfw.base.records import UserError
from segfw.model.training_record import read_metrics
from segfw.model.weights import load_tensors
from segfw.networks import build_network
from segfw.networks.losses import deep_supervision_loss
from segfw.training import checkpoint, epochs, loop, prepare
from segfw.training.checkpoint import CHECKPOINT_FILE
from segfw.training.settings import TrainSettings
from segfw.training.train_request import BuildLoss


def writing_stop(folder: Path, text: str, at_step: int) -> dict:
    """Settings of a run in which STOP is written while a step is under way, and seen after it."""
    return {
        "build_loss": usual_loss(before={at_step: lambda: (folder / "STOP").write_text(text)}),
        "look_for_stop_every_s": 0.0,
    }


def test_a_stop_file_brings_the_run_to_an_annealed_end(prepared, tmp_path, capsys):
    run(prepared, tmp_path, epochs=50, **writing_stop(tmp_path, "", at_step=20))
    rows = read_metrics(tmp_path)
    assert sum(row["steps"] for row in rows) == 23  # 20 and 15 % of them
    assert rows[-1]["learning_rate"] < 0.5 * rows[-3]["learning_rate"]
    assert "the learning rate falls to zero within 3 steps" in capsys.readouterr().out
    assert (tmp_path / "weights.safetensors").is_file()
    assert not (tmp_path / "STOP").exists()


def test_a_stop_file_that_says_now_ends_at_once_and_can_be_resumed(prepared, tmp_path, capsys):
    whole = run(prepared, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(prepared, tmp_path / "cut", **writing_stop(tmp_path / "cut", "now\n", at_step=8))
    assert "stopped at step 8" in capsys.readouterr().out
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    resumed = run(prepared, tmp_path / "cut", resume=True)
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(whole).items())


def test_a_full_disk_is_told_before_a_run_is_said_to_have_stopped(prepared, tmp_path, capsys, monkeypatch):
    real = checkpoint.save_tensors
    folder = tmp_path / "cut"

    def full_from_then_on(path, *given) -> None:
        if (folder / "STOP").exists():
            raise DiskFull(f"{path}: the disk is full")
        real(path, *given)

    monkeypatch.setattr(checkpoint, "save_tensors", full_from_then_on)
    with pytest.raises(DiskFull, match="the disk is full"):
        run(prepared, folder, **writing_stop(folder, "now", at_step=8))
    assert "stopped at step" not in capsys.readouterr().out
    assert (folder / "STOP").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_stop_is_obeyed_in_any_encoding_and_in_the_last_step_of_an_epoch(prepared, tmp_path, capsys, encoding):
    def write() -> None:
        (tmp_path / "STOP").write_bytes("now\r\n".encode(encoding))

    values = {"build_loss": usual_loss(before={3: write}), "look_for_stop_every_s": 0.0}
    with pytest.raises(KeyboardInterrupt):
        run(prepared, tmp_path, epochs=6, steps_per_epoch=1, **values)
    assert "stopped at step " in capsys.readouterr().out
    assert len(read_metrics(tmp_path)) < 6
    assert not (tmp_path / "STOP").exists()
    resumed = run(prepared, tmp_path, resume=True, epochs=6, steps_per_epoch=1)
    assert [row["epoch"] for row in read_metrics(resumed)] == [0, 1, 2, 3, 4, 5]


def test_a_plateau_ends_the_run(prepared, tmp_path, capsys):
    run(prepared, tmp_path, epochs=100, patience=3, fewest_gain=2.0)  # more than any Dice can rise
    assert len(read_metrics(tmp_path)) == 5  # the first, three more, and two steps (15 %) of cooling down
    assert "no progress for 3 epochs" in capsys.readouterr().out


def test_an_extended_run_goes_on_from_its_weights(prepared, tmp_path):
    run(prepared, tmp_path)
    before = weights(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    run(prepared, tmp_path, resume=True, extend_epochs=2)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [0, 1, 2, 3, 4, 5]
    assert not all(torch.equal(tensor, weights(tmp_path)[name]) for name, tensor in before.items())
    assert TrainSettings.load(tmp_path / "settings.json").epochs == 6


def broken_at(*calls: int) -> BuildLoss:
    """The usual loss, but no number in some calls."""
    return usual_loss(factors=dict.fromkeys(calls, float("nan")))


def test_a_diverged_run_goes_on_from_the_last_good_checkpoint_at_a_lower_rate(prepared, tmp_path, capsys):
    run(prepared, tmp_path, build_loss=broken_at(8), learning_rate=0.01, checkpoint_every_s=0.0)
    said = capsys.readouterr().out
    assert "the training loss became nan in epoch 3: going on from the last good checkpoint" in said
    assert "at step 6, with 0.5 times the learning rate" in said  # not from the one in the middle of the epoch
    rows = read_metrics(tmp_path)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert ["rescued" in row for row in rows] == [False, False, True, False]
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path).values())
    undisturbed = read_metrics(run(prepared, tmp_path / "undisturbed", learning_rate=0.01))
    assert rows[-1]["learning_rate"] <= 0.5 * undisturbed[-1]["learning_rate"]


def test_a_run_that_diverges_before_its_first_epoch_ends_starts_from_its_first_step(prepared, tmp_path, capsys):
    run(prepared, tmp_path, build_loss=broken_at(2))
    assert "at step 0, with 0.5 times" in capsys.readouterr().out
    assert len(read_metrics(tmp_path)) == 4


def test_a_run_that_keeps_diverging_ends_with_a_sentence(prepared, tmp_path):
    with pytest.raises(UserError, match=r"loss became nan in epoch 1, and again after 4 attempts at lower learning"):
        run(prepared, tmp_path, build_loss=broken_at(*range(1, 99)))


def test_a_network_that_falls_back_to_background_is_rescued(prepared, tmp_path, monkeypatch, capsys):
    original, calls = epochs.validate_patches, []

    def collapsed_once(*arguments, **named):
        calls.append(1)
        figures, predicted_voxels = original(*arguments, **named)
        return figures | {"val_dice": 0.5}, 0 if len(calls) == 3 else predicted_voxels

    monkeypatch.setattr(epochs, "validate_patches", collapsed_once)
    run(prepared, tmp_path, checkpoint_every_s=0.0)
    said = capsys.readouterr().out
    assert "predicting background only in epoch 3: going on" in said
    assert "at step 6, with 0.5 times" in said  # before the epoch in which it collapsed


def test_broken_intensities_are_named_instead_of_rescued(prepared, tmp_path, monkeypatch):
    original = prepare.open_cases

    def broken(*arguments, **named):
        cases = original(*arguments, **named)
        cases[0].image[:] = float("inf")
        return cases

    monkeypatch.setattr(prepare, "open_cases", broken)
    with pytest.raises(UserError, match=f"{FOLD.train[0]} holds intensities that are no numbers; run segfw check"):
        run(prepared, tmp_path)


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory")
# As libraries under PyTorch say it, with which a training used to end.
IN_OTHER_WORDS = (
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("miopenStatusAllocFailed"),
)


def with_memory_for(patches: int, tried: list[int] | None = None, error: Exception = OUT_OF_MEMORY) -> BuildLoss:
    """The usual loss on a device that has no memory for more patches at a time; ``tried`` gets the sizes of batches."""

    def build(configuration, target):
        def loss(outputs, classes):
            if tried is not None:
                tried.append(len(classes))
            if len(classes) > patches:
                raise error
            return deep_supervision_loss(outputs, classes, configuration.batch_dice, target)

        return loss

    return build


def test_a_batch_that_does_not_fit_is_computed_in_parts(prepared, tmp_path, capsys):
    """Gradients of the Dice per patch are the same, computed whole or one patch after the other."""
    settings = {"precision": "fp32", "epochs": 1, "batch_size": 4}
    whole = run(prepared, tmp_path / "whole", **settings)
    parts = run(prepared, tmp_path / "parts", **settings, build_loss=with_memory_for(1))
    said = capsys.readouterr().out
    assert said.count("out of memory") == 2
    assert "the batch of 4 is computed in 4 parts from now on" in said
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("error", IN_OTHER_WORDS, ids=str)
def test_memory_that_ran_out_in_a_librarys_words_makes_parts_too(prepared, tmp_path, capsys, error):
    run(prepared, tmp_path, epochs=1, build_loss=with_memory_for(1, error=error))
    assert "the batch of 2 is computed in 2 parts from now on" in capsys.readouterr().out
    assert (tmp_path / "weights.safetensors").is_file()


def test_an_error_that_is_none_of_memory_ends_the_training(prepared, tmp_path):
    error = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
    with pytest.raises(RuntimeError, match="EXECUTION_FAILED"):
        run(prepared, tmp_path, epochs=1, build_loss=with_memory_for(1, error=error))


def test_memory_that_ran_out_after_gradients_were_unscaled_is_no_end(prepared, tmp_path, monkeypatch, capsys):
    """In float16 the scaler refuses to unscale the gradients of a step twice."""
    clip = torch.nn.utils.clip_grad_norm_
    refusals = iter((OUT_OF_MEMORY,))

    def clip_if_there_is_memory(*given: object) -> torch.Tensor:
        for error in refusals:
            raise error
        return clip(*given)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip_if_there_is_memory)
    run(prepared, tmp_path, epochs=1, precision="fp16")
    assert "the batch of 2 is computed in 2 parts from now on" in capsys.readouterr().out


def test_the_pace_is_measured_on_as_many_patches_as_fit(prepared, tmp_path):
    tried = []
    settings = {"time_budget_s": 0.5, "steps_per_epoch": None, "batch_size": 8}
    run(prepared, tmp_path, **settings, build_loss=with_memory_for(1, tried))
    assert tried[:3] == [2, 1, 1]
    begun = tried.index(8)
    assert tried[begun : begun + 4] == [8, 4, 2, 1]  # the first training step


def test_a_patch_that_does_not_fit_ends_with_a_sentence(prepared, tmp_path):
    with pytest.raises(UserError, match="ran out of memory with batch 2; train with a smaller --batch-size"):
        run(prepared, tmp_path, build_loss=with_memory_for(0))


@pytest.fixture
def held_to_4_gb(monkeypatch):
    usual = prepare._compute
    monkeypatch.setattr(prepare, "_compute", lambda *given: replace(usual(*given), limit_gb=4.0))


def test_where_a_training_keeps_to_a_part_of_a_card_that_is_what_runs_out(prepared, tmp_path, held_to_4_gb, capsys):
    run(prepared, tmp_path / "parts", epochs=1, build_loss=with_memory_for(1))
    said = "out of the 4 GB of --gpu-limit-gb: the batch of 2 is computed in 2 parts from now on\n"
    assert said in capsys.readouterr().out
    with pytest.raises(UserError, match="cpu ran out of the 4 GB of --gpu-limit-gb with batch 2; train with a smaller"):
        run(prepared, tmp_path / "none", build_loss=with_memory_for(0))


def test_a_training_keeps_to_its_part_of_a_card_while_it_lasts_and_when_it_goes_on(prepared, tmp_path, monkeypatch):
    """4 GB, of which CUDA itself takes half a one; by the settings that it was begun with."""
    held = []

    @contextlib.contextmanager
    def noted(device, limit_gb):
        held.append(limit_gb)
        yield
        held.append("let go")

    monkeypatch.setattr(loop, "held_to_memory", noted)
    run(prepared, tmp_path, epochs=1, gpu_limit_gb=4.0)
    run(prepared, tmp_path, resume=True, extend_epochs=1)
    run(prepared, tmp_path / "all", epochs=1)
    assert held == [3.5, "let go", 3.5, "let go", None, "let go"]


def test_a_run_that_never_fitted_can_be_begun_with_other_settings(prepared, tmp_path):
    with pytest.raises(UserError, match="with batch 2"):
        run(prepared, tmp_path, build_loss=with_memory_for(0))
    assert not (tmp_path / CHECKPOINT_FILE).exists()
    assert not (tmp_path / "settings.json").exists()
    assert not (tmp_path / "good.safetensors").exists()


def test_best_weights_are_those_of_the_best_whole_cases(prepared, tmp_path):
    """Of four epochs the second is best by whole cases; its weights are kept, and each epoch's Dice is written down."""
    voxels = iter([(5, 5, 0), (9, 1, 0), (5, 5, 0), (7, 3, 0)])  # Dice 2/3, 18/19, 2/3, 14/17
    seen = []

    def count(network, case_id, patch_size):
        seen.append((case_id, network.training))
        hit, extra, missed = next(voxels)
        return torch.tensor([[hit, 0], [extra, 0], [missed, 0]])

    run(prepared, tmp_path, count_whole_case=count, whole_cases_share=1e9)
    assert seen == [(FOLD.validation[0], False)] * 4
    rows = read_metrics(tmp_path)
    assert [row["whole_case_dice"] for row in rows] == pytest.approx([10 / 15, 18 / 19, 10 / 15, 14 / 17])
    assert load_tensors(tmp_path / "best.safetensors")[1]["epoch"] == "2"


def test_cases_too_large_to_validate_whole_do_not_end_the_run(prepared, tmp_path, capsys):
    def too_large(network, case_id, patch_size):
        raise torch.OutOfMemoryError

    run(prepared, tmp_path, epochs=1, count_whole_case=too_large, whole_cases_share=1e9)
    assert "whole_case_dice" not in read_metrics(tmp_path)[0]
    assert f"{FOLD.validation[0]} is too large to be validated as a whole" in capsys.readouterr().out


def test_whole_cases_wait_until_they_are_a_small_share_of_the_work(prepared, tmp_path):
    """27 tiles against three times two patches a step: due when 5 % of the work is at least that, at step 90."""
    calls = []

    def count(network, case_id, patch_size):
        calls.append(case_id)
        return torch.ones(3, 2)

    run(prepared, tmp_path, epochs=3, steps_per_epoch=45, count_whole_case=count, augmentation="none")
    assert len(calls) == 1
    assert [("whole_case_dice" in row) for row in read_metrics(tmp_path)] == [False, True, False]


class SlowNetwork(torch.nn.Module):
    """A network by whose passes alone a clock moves, so that the budget is kept on a busy machine too.

    A training step takes 0.1 s, a batch of validation 0.05 s.
    """

    def __init__(self, spec) -> None:
        super().__init__()
        self.network = build_network(spec)
        self.time_s = 100.0

    def forward(self, image):
        self.time_s += 0.1 if torch.is_grad_enabled() else 0.05
        return self.network(image)


def test_a_time_budget_is_kept_and_ends_with_an_annealed_rate(prepared, tmp_path):
    networks = []

    def build(spec):
        networks.append(SlowNetwork(spec))
        return networks[0]

    def now_s() -> float:
        return networks[0].time_s if networks else 100.0

    run(prepared, tmp_path, time_budget_s=6.2, steps_per_epoch=None, build=build, now_s=now_s)
    rows = read_metrics(tmp_path)
    assert rows[-1]["elapsed_s"] == pytest.approx(6.2, rel=0.05)
    # 0.2 s to measure the pace; an epoch ends with the first step after a twentieth of the budget: 0.45 s with
    # validation.
    assert len(rows) == 14
    assert rows[-1]["learning_rate"] < 0.25 * max(row["learning_rate"] for row in rows)
    assert (tmp_path / "weights.safetensors").is_file()
