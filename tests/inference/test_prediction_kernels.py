"""Masks that kernels help to make are those of plain operations; without Triton a line says that there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from builders.data import blocks_case, write_nifti
from builders.interpreted import device_of_kernels
from builders.models import plan_of
from builders.networks import spec
from builders.training import ZSCORE, configuration
from segfw.images.formats import read_volume
from segfw.images.volume import Volume
from segfw.inference.predictor import Predictor
from segfw.model.load import Model
from segfw.networks import build_network
from segfw.networks.norm import KeepsLayout
from segfw.networks.spec import RESIDUAL_ENCODER


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    chosen = configuration(ZSCORE, spec(architecture=RESIDUAL_ENCODER))
    network = build_network(chosen.network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)  # norms of residual blocks begin at 0
    return Model(plan=plan_of(chosen), configuration=chosen, weights={"0": network.state_dict()}, mirror_axes=())


@pytest.fixture
def volume(tmp_path) -> Volume:
    image, _ = blocks_case(0)
    write_nifti(tmp_path / "a.nii.gz", image)
    return read_volume(tmp_path / "a.nii.gz")


def test_masks_are_those_of_plain_operations(model, volume):
    device = device_of_kernels()
    plain = Predictor.of(model, device=device.type, precision="fp32")
    fused = Predictor.of(model, device=device.type, precision="fp32", kernels=True)
    assert not any(isinstance(module, nn.LeakyReLU) for module in fused.networks[0].modules())
    wanted = plain(volume).array
    assert len(np.unique(wanted)) > 1  # else this proves nothing
    assert (fused(volume).array == wanted).mean() > 0.999  # rounding may turn a voxel between two classes


def test_without_triton_a_line_says_so_and_the_network_is_as_ever(model, monkeypatch, capsys):
    monkeypatch.setattr("segfw.kernels.trial.find_spec", lambda name: None)
    predictor = Predictor.of(model, device="cpu", precision="fp32", kernels=True)
    assert capsys.readouterr().out == "--kernels on: Triton is not installed; going on without them\n"
    assert all(module.fused is None for module in predictor.networks[0].modules() if isinstance(module, KeepsLayout))


def test_with_kernels_nothing_is_compiled_unless_that_is_asked_for(model, monkeypatch):
    """The compiler would join norms by itself, and their kernel would have nothing to do."""
    asked = []
    monkeypatch.setattr(
        "segfw.inference.predictor.ready_networks",
        lambda *_, use_compiler, use_kernels: asked.append((use_compiler, use_kernels)) or (),
    )
    monkeypatch.setattr("segfw.inference.predictor.compiling_pays_in_prediction", lambda *_: True)
    Predictor.of(model, device="cpu")
    Predictor.of(model, device="cpu", kernels=True)
    Predictor.of(model, device="cpu", kernels=True, compile=True)
    assert asked == [(True, False), (False, True), (True, True)]
