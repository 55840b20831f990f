"""What fine-tuning and comparisons need of a training: rates by part of the network, a long warm-up, kept weights."""

import pytest
import torch

from builders.networks import spec
from builders.training import prepare, run, weights
from segfw.networks import build_network
from segfw.networks.transfer import head_names
from segfw.training.kept_weights import kept_file
from segfw.training.prepare import rate_groups
from segfw.training.schedule import long_warm_up


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("data"))


def test_the_encoder_has_a_rate_of_its_own():
    network = build_network(spec())
    names = {id(weight): name for name, weight in network.named_parameters()}
    encoder, others = rate_groups(network, "plain-unet", 0.3)
    assert (encoder["rate_factor"], others["rate_factor"]) == (0.3, 1.0)
    assert {names[id(weight)].split(".")[0] for weight in encoder["params"]} == {"encoder"}
    assert {names[id(weight)].split(".")[0] for weight in others["params"]} == {"decoder", "up", "heads"}
    (everything,) = rate_groups(network, "plain-unet", 1.0)
    assert len(everything["params"]) == len(names)


def test_a_slow_encoder_moves_less(prepared, tmp_path):
    """Of one step, whose gradients are the same: rates of 0.5 and 1 move the encoder by half as much."""
    settings = {"epochs": 1, "steps_per_epoch": 1, "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    start = {name: tensor.clone() for name, tensor in build_network(spec()).state_dict().items()}

    def begin(network):
        network.load_state_dict(start)

    full = weights(run(prepared, tmp_path / "full", **settings, start=begin))
    half = weights(run(prepared, tmp_path / "half", **settings, encoder_rate=0.5, start=begin))
    for name, tensor in full.items():
        factor = 0.5 if name.startswith("encoder.") else 1.0
        torch.testing.assert_close(half[name] - start[name], factor * (tensor - start[name]), rtol=1e-3, atol=1e-6)
    assert any((full[name] - start[name]).abs().max() > 1e-4 for name in full if name.startswith("encoder."))


def test_the_rate_rises_evenly_within_its_share():
    assert [long_warm_up(progress, 0.2) for progress in (0.0, 0.05, 0.1, 0.2, 0.9)] == [0.0, 0.25, 0.5, 1.0, 1.0]
    assert long_warm_up(0.0, 0.0) == 1


def test_weights_are_kept_after_a_quarter(prepared, tmp_path):
    """Of 12 steps those after the third are what a run of that schedule had then."""
    folder = run(prepared, tmp_path / "run", keep_at=(0.25,), epochs=4, steps_per_epoch=3)
    kept = kept_file(folder, 0.25)
    assert kept.name == "weights_at_25.safetensors"
    written = kept.read_bytes()
    assert written != (folder / "weights.safetensors").read_bytes()
    plain = run(prepared, tmp_path / "plain", epochs=4, steps_per_epoch=3)
    assert not kept_file(plain, 0.25).is_file()
    assert all(torch.equal(tensor, weights(plain)[name]) for name, tensor in weights(folder).items())


def test_weights_of_a_run_that_was_lost_are_not_kept(prepared, tmp_path):
    whole = run(prepared, tmp_path / "whole", keep_at=(0.25,), epochs=4, steps_per_epoch=3)
    again = kept_file(tmp_path / "again", 0.25)
    again.parent.mkdir()
    again.write_bytes(b"of a run that was killed before its first checkpoint")
    run(prepared, tmp_path / "again", keep_at=(0.25,), epochs=4, steps_per_epoch=3)
    assert again.read_bytes() == kept_file(whole, 0.25).read_bytes()


@pytest.mark.parametrize("architecture", ["plain-unet", "residual-encoder-unet"])
def test_heads_are_what_depends_on_the_number_of_classes(architecture):
    found = head_names(spec(architecture=architecture), build_network)
    assert found == {"heads.0.weight", "heads.0.bias"}
