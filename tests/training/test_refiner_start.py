"""A refiner that begins with the layers of a plain network answers with the mask that it is given."""

import pytest
import torch

from builders.networks import spec
from segfw.model.weights import save_weights
from segfw.networks import build_network
from segfw.networks.spec import CLICK_CHANNELS, CLICK_REFINER, REFINER, RESIDUAL_ENCODER
from segfw.networks.unet import LEAN
from segfw.training.refiner_start import has_same_layers, start_with

FIRST = spec()
REFINING = spec(architecture=CLICK_REFINER, in_channels=1 + CLICK_CHANNELS, classes=2)


@pytest.mark.parametrize(
    ("first", "refiner", "is_same"),
    [
        (FIRST, REFINING, True),
        (FIRST, REFINING.model_copy(update={"architecture": REFINER}), True),
        (FIRST, REFINING.model_copy(update={"features": (4, 8)}), False),
        (FIRST, REFINING.model_copy(update={"strides": ((1, 1, 1), (1, 2, 2))}), False),
        (FIRST.model_copy(update={"architecture": RESIDUAL_ENCODER}), REFINING, False),
    ],
)
def test_layers_are_the_same_where_all_is_but_channels_and_outputs(first, refiner, is_same):
    assert has_same_layers(first, refiner) == is_same


def test_a_refiner_begins_with_the_layers_of_the_first_stage_and_with_what_it_is_given(tmp_path, capsys):
    torch.manual_seed(0)
    first = build_network(FIRST)
    file = tmp_path / "weights.safetensors"
    save_weights(file, first.state_dict(), epoch=1, mirror_axes=())
    refiner = build_network(REFINING)
    start_with(file)(refiner)
    there = first.state_dict()
    here = refiner.state_dict()
    sees = "encoder.0.0.0.weight"
    assert not here[sees][:, 1:].any()
    assert torch.equal(here[sees][:, :1], there[sees])
    others = [name for name in here if name != sees and not name.startswith("heads.")]
    assert others
    assert all(torch.equal(here[name], there[name]) for name in others)
    assert f"starting from {file}" in capsys.readouterr().out

    window = torch.randn(1, 1 + CLICK_CHANNELS, 8, 8, 8)
    window[:, 1:] = 0
    window[:, 1, 2:5] = 1  # three slices of the structure, and no click
    with torch.inference_mode():
        logits = refiner.eval()(window)
    odds = logits[0, 1] - logits[0, 0]
    assert torch.equal(odds, LEAN * (2 * window[0, 1] - 1))
