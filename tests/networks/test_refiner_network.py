"""The refiner's network, which starts from what it is given, and its loss, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from builders.networks import spec
from segfw.networks import build_network
from segfw.networks.refiner_loss import IGNORED, NEAR_CLICK, refiner_loss
from segfw.networks.spec import CLICK_CHANNELS, CLICK_REFINER, REFINER
from segfw.networks.unet import LEAN

REFINING = spec(architecture=REFINER, in_channels=1 + CLICK_CHANNELS, classes=2)
SLICES = spec(
    architecture=CLICK_REFINER,
    in_channels=2 + CLICK_CHANNELS,
    classes=2,
    strides=((1, 1, 1), (1, 2, 2)),
    kernels=((1, 3, 3), (1, 3, 3)),
)


@pytest.mark.parametrize("described", [REFINING, SLICES])
def test_without_weights_the_answer_is_the_given_mask(described):
    network = build_network(described)
    for weight in network.parameters():
        weight.data.zero_()
    image = torch.randn(2, described.in_channels, 4, 8, 6)
    given = torch.rand(2, 4, 8, 6) > 0.5
    image[:, -CLICK_CHANNELS] = given.float()
    image[:, -2:] = 0  # no click
    with torch.no_grad():
        finest = network.train()(image)[0]
        answer = network.eval()(image)
        image[:, -2, 1, 2, 3] = 1
        image[:, -1, 3, 2, 3] = 1
        clicked = network(image)
    assert torch.equal(finest, answer)
    assert torch.equal(answer[:, 1] > answer[:, 0], given)
    lean = answer[:, 1] - answer[:, 0]
    assert torch.equal(lean.abs(), torch.full((2, 4, 8, 6), LEAN))
    moved = clicked[:, 1] - clicked[:, 0] - lean
    wanted = LEAN if described.architecture == CLICK_REFINER else 0.0  # with it the image decides at a click
    assert torch.equal(moved[:, 1, 2, 3], torch.full((2,), wanted))
    assert torch.equal(moved[:, 3, 2, 3], torch.full((2,), -wanted))
    assert int((moved != 0).sum()) == (4 if wanted else 0)


def one_row(*numbers: float) -> torch.Tensor:
    """Logits (1, 2, 1, 1, X) whose difference is given."""
    lean = torch.tensor(numbers)[None, None, None]
    return torch.stack((torch.zeros_like(lean), lean), 1)


def test_loss_of_two_voxels_by_hand():
    # Probabilities 1/2 and 3/4; the second voxel is the structure and lies near a click, the third counts nowhere.
    logits = one_row(0.0, math.log(3), 5.0)
    truth = torch.tensor([[[[0, 1 + NEAR_CLICK, IGNORED + NEAR_CLICK]]]])
    entropy = (math.log(2) + 2 * math.log(4 / 3)) / 3
    dice = 2 * (2 * 0.75) / (0.5 + 2 * 0.75 + 2)
    assert float(refiner_loss([logits], truth)) == pytest.approx(entropy - dice, abs=1e-4)


def test_a_patch_of_which_nothing_is_known_teaches_nothing():
    logits = one_row(1.0, 2.0).requires_grad_()
    loss = refiner_loss([logits], torch.full((1, 1, 1, 2), IGNORED))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()


def test_two_processes_have_the_loss_of_the_joined_batch():
    torch.manual_seed(0)
    logits = torch.randn(4, 2, 3, 4, 5)
    coarse = torch.randn(4, 2, 3, 2, 5)
    truth = torch.randint(0, 3, (4, 3, 4, 5)) + NEAR_CLICK * torch.randint(0, 2, (4, 3, 4, 5))
    whole = refiner_loss([logits, coarse], truth)
    parts = [slice(0, 2), slice(2, 4)]
    sums = []
    for part in parts:
        refiner_loss([logits[part], coarse[part]], truth[part], join=lambda own: sums.append(own) or own)
    joined = refiner_loss([logits[:2], coarse[:2]], truth[:2], join=lambda _: sums[0] + sums[1])
    assert float(joined) == pytest.approx(float(whole), abs=1e-6)


def test_every_output_has_a_gradient_also_the_coarsest_which_does_not_count():
    outputs = [torch.randn(1, 2, 4, 4, 4, requires_grad=True), torch.randn(1, 2, 2, 2, 2, requires_grad=True)]
    refiner_loss(outputs, torch.randint(0, 2, (1, 4, 4, 4))).backward()
    assert outputs[0].grad.any()
    assert outputs[1].grad is not None
    assert not outputs[1].grad.any()
