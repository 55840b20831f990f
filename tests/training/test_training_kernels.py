"""A training with kernels: it comes to the same weights, and goes on without what does not work."""

from __future__ import annotations

import pytest
import torch

from builders.interpreted import device_of_kernels
from builders.networks import spec
from builders.training import prepare, run, weights
from segfw.model.training_record import read_metrics
from segfw.networks import fused_losses
from segfw.networks.fused_losses import sums_of_labels, sums_of_regions
from segfw.networks.loss_sums import SigmoidSums, Target
from segfw.networks.losses import LABELS
from segfw.networks.spec import RESIDUAL_ENCODER
from segfw.training import training_kernels as module
from segfw.training.augment import warp
from segfw.training.batches import Batches
from segfw.training.training_kernels import training_kernels, warp_in_one_launch

CPU = torch.device("cpu")
SHORT = {"epochs": 1, "steps_per_epoch": 2, "precision": "fp32", "compile": False}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    return prepare(tmp_path_factory.mktemp("prepared"))


def test_kernels_train_what_plain_operations_train(prepared, tmp_path, monkeypatch):
    """Two steps of a residual network on augmented patches, warped ones among them, on the device that runs kernels."""
    device = device_of_kernels()
    network = spec(architecture=RESIDUAL_ENCODER)
    warped = []
    monkeypatch.setattr(module, "warp_in_one_launch", lambda *given: warped.append(1) or warp_in_one_launch(*given))
    how = SHORT | {"network": network, "device": device.type, "seed": 7}
    with_kernels = run(prepared, tmp_path / "with", kernels=True, **how)
    without = run(prepared, tmp_path / "without", kernels=False, **how)
    assert len(warped) > 1  # the trial's is one
    losses = [read_metrics(folder)[0]["train_loss"] for folder in (with_kernels, without)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    for name, weight in weights(with_kernels).items():
        torch.testing.assert_close(weight, weights(without)[name], rtol=1e-2, atol=1e-4, msg=name)


def test_where_triton_is_not_the_training_says_so_and_runs(prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("segfw.kernels.trial.find_spec", lambda name: None)
    with_kernels = run(prepared, tmp_path / "with", kernels=True, **SHORT)
    assert "--kernels on: Triton is not installed; going on without them\n" in capsys.readouterr().out
    without = run(prepared, tmp_path / "without", kernels=False, **SHORT)
    for name, weight in weights(with_kernels).items():
        assert torch.equal(weight, weights(without)[name]), name


def test_nothing_is_asked_of_triton_unless_kernels_are_wanted(monkeypatch):
    monkeypatch.setattr(module, "has_triton", lambda device: pytest.fail("Triton was asked for"))
    found = training_kernels(CPU, are_wanted=False)
    assert found.sums is None
    assert found.warp is warp


@pytest.mark.parametrize(
    "target, wanted", [(LABELS, sums_of_labels), (Target(regions=((1, 2), (2,))), sums_of_regions)]
)
def test_labels_and_regions_have_a_kernel_each_for_their_loss(target, wanted):
    assert training_kernels(device_of_kernels(), target, are_wanted=True).sums is wanted


def test_a_kernel_that_errs_leaves_the_plain_loss(monkeypatch, capsys):
    monkeypatch.setattr(fused_losses, "sums_of_regions", lambda *given: SigmoidSums.apply(*given)[::-1])
    assert fused_losses.fused_sums(device_of_kernels(), Target(regions=((1, 2), (2,)))) is None
    assert "the kernel of the loss of regions is left out here" in capsys.readouterr().out


def test_a_kernel_that_errs_leaves_the_plain_warp(monkeypatch, capsys):
    device = device_of_kernels()
    monkeypatch.setattr(module, "warp_in_one_launch", lambda *_: (torch.zeros(1), torch.zeros(1)))
    assert module.fused_warp(device) is warp
    assert "the kernel of the warp is left out here" in capsys.readouterr().out


def test_batches_warp_as_they_are_told():
    assert Batches.__dataclass_fields__["warp"].default is warp
