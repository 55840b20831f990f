"""Training: it learns, it is repeatable, and an interrupted run ends bit for bit like an undisturbed one."""

import numpy as np
import pytest
import torch

from builders.data import write_cases
from builders.networks import spec
from builders.training import IDS, LABELS, ZSCORE, assert_same_weights, run, usual_loss, weights
from segfw.base.ranks import Ranks
from segfw.base.records import UserError
from segfw.dataset.labels import LabelSet, Region
from segfw.grid.store import preprocess_dataset
from segfw.model.training_record import read_metrics
from segfw.model.weights import load_tensors
from segfw.planning.plan import target_of
from segfw.training.checkpoint import CHECKPOINT_FILE


def test_training_learns_the_blocks(prepared, tmp_path):
    folder = run(prepared, tmp_path, epochs=4, steps_per_epoch=25, learning_rate=0.02)
    rows = read_metrics(folder)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.5
    assert rows[-1]["val_dice"] > 0.8
    assert rows[-1]["learning_rate"] < 0.1 * rows[0]["learning_rate"]


def test_training_learns_regions_beside_ignored_voxels(tmp_path):
    """The whole of both blocks and the dark one in it, from masks that ignore a slice of each and the far end."""
    regions = (Region(name="whole", values=(3, 7), painted=3), Region(name="dark", values=(7,), painted=7))
    labels = LabelSet(names=LABELS.names, values=LABELS.values, ignore=9, regions=regions)

    def ignore_some(mask_xyz: np.ndarray) -> None:
        mask_xyz[:, :, 9] = 9
        mask_xyz[:, 5] = 9

    cases = write_cases(tmp_path, IDS, ignore_some)
    assert not preprocess_dataset(cases, labels, {"3d": ZSCORE}, tmp_path, case_bytes=dict.fromkeys(IDS, 20_000))
    run(
        (tmp_path / "3d", ZSCORE),
        tmp_path,
        network=spec(classes=2),
        target=target_of(labels),
        label_names=tuple(labels.structures),
        epochs=4,
        steps_per_epoch=25,
        learning_rate=0.02,
    )
    rows = read_metrics(tmp_path)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.5
    assert len(rows[-1]["val_dice_per_label"]) == 2
    assert min(rows[-1]["val_dice_per_label"]) > 0.7


def test_same_seed_same_weights_and_another_seed_others(prepared, tmp_path):
    first, again, other = (run(prepared, tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert_same_weights(first, again)
    assert not all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(first).items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_ends_like_an_undisturbed_one(prepared, tmp_path, precision):
    settings = {"precision": precision, "checkpoint_every_s": 0.0}
    whole = run(prepared, tmp_path / "whole", **settings)

    class Killed(Exception):
        pass

    def kill() -> None:
        raise Killed

    in_the_third_epoch = usual_loss(before={8: kill})
    with pytest.raises(Killed):
        run(prepared, tmp_path / "cut", **settings, build_loss=in_the_third_epoch)
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    (tmp_path / "cut" / "metrics.jsonl").open("a").write('{"epoch": 2, "train_lo')  # killed while writing a line
    resumed = run(prepared, tmp_path / "cut", **settings, resume=True)
    assert_same_weights(whole, resumed)
    timings = ("epoch_s", "elapsed_s", "stalled_share", "augment_share")
    cleaned = [
        [{k: v for k, v in row.items() if k not in timings} for row in read_metrics(f)] for f in (whole, resumed)
    ]
    assert cleaned[0] == cleaned[1]
    ends = [load_tensors(folder / CHECKPOINT_FILE)[0] for folder in (whole, resumed)]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_resuming_without_a_checkpoint_is_refused(prepared, tmp_path):
    with pytest.raises(UserError, match=r"last.safetensors: there is no checkpoint to resume from; train without"):
        run(prepared, tmp_path, resume=True)


def test_resuming_another_network_is_refused(prepared, tmp_path):
    run(prepared, tmp_path, epochs=1)
    with pytest.raises(UserError, match="is of another network"):
        run(prepared, tmp_path, network=spec(features=(4, 8)), resume=True)


def test_a_one_stage_network_trains(prepared, tmp_path):
    flat = spec(features=(8,), strides=((1, 1, 1),), kernels=((3, 3, 3),), encoder_blocks=(2,), decoder_convs=())
    assert read_metrics(run(prepared, tmp_path, network=flat, epochs=1))[0]["train_loss"] < 5


def test_a_two_dimensional_network_trains_through_the_same_path(prepared, tmp_path):
    flat = spec(strides=((1, 1, 1), (1, 2, 2)), kernels=((1, 3, 3), (1, 3, 3)))
    assert read_metrics(run(prepared, tmp_path, network=flat, epochs=1))[0]["train_loss"] < 5


def test_compiling_that_fails_falls_back_to_eager(prepared, tmp_path, monkeypatch, capsys):
    def broken(network, **options):
        def fail(*_):
            raise RuntimeError("no compiler found")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    run(prepared, tmp_path, epochs=1, compile=True)
    assert "torch.compile is not usable here, going on without it: no compiler found" in capsys.readouterr().out
    assert (tmp_path / "weights.safetensors").is_file()


def test_a_compiled_network_trains_like_an_eager_one(prepared, tmp_path, monkeypatch):
    """Through the compiler's front end only: generating code takes a minute and belongs in no unit test."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **options: real(network, backend="eager"))
    eager = run(prepared, tmp_path / "eager", epochs=1, precision="fp32", compile=False)
    compiled = run(prepared, tmp_path / "compiled", epochs=1, precision="fp32", compile=True)
    for name, tensor in weights(eager).items():
        torch.testing.assert_close(weights(compiled)[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_budget_that_is_spent_before_the_first_step_still_trains(prepared, tmp_path):
    folder = run(prepared, tmp_path, time_budget_s=1e-3, steps_per_epoch=None)
    assert [row["steps"] for row in read_metrics(folder)] == [1]


class NormedOverTheBatch(torch.nn.Module):
    """What a user may bring: running statistics and dropout, which must not meet validation patches."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv3d(1, 4, 3, padding=1)
        self.norm, self.drop = torch.nn.BatchNorm3d(4), torch.nn.Dropout3d(0.2)
        self.last = torch.nn.Conv3d(4, 3, 1)

    def forward(self, image):
        logits = self.last(self.drop(self.norm(self.first(image)).relu()))
        return [logits] if self.training else logits


def test_running_statistics_are_of_training_patches_only(prepared, tmp_path):
    run(prepared, tmp_path, build=lambda spec: NormedOverTheBatch(), epochs=2, steps_per_epoch=3)
    assert weights(tmp_path)["norm.num_batches_tracked"] == 6


def test_another_number_of_processes_that_cannot_share_the_batch_is_refused(prepared, tmp_path):
    run(prepared, tmp_path, epochs=1, batch_size=3)
    with pytest.raises(UserError, match="was begun with a batch of 3, which 2 processes cannot share"):
        run(prepared, tmp_path, resume=True, ranks=Ranks(rank=0, count=2))
