"""Losses against MONAI and by hand, and deep supervision for any number of stages."""

import pytest
import torch
from monai.losses import DiceLoss

from segfw.networks.losses import (
    deep_supervision_loss,
    dice_ce_loss,
    downsample,
    overlap_counts,
    soft_dice,
    supervision_weights,
)


def batch(classes=4, shape=(2, 5, 6, 7), seed=0):
    torch.manual_seed(seed)
    return torch.randn(shape[0], classes, *shape[1:]), torch.randint(0, classes, shape)


def test_dice_by_hand():
    probs = torch.zeros(1, 2, 1, 1, 4)
    probs[0, 1] = torch.tensor([0.5, 1.0, 0.0, 0.0])
    probs[0, 0] = 1 - probs[0, 1]
    truth = torch.tensor([[[[1, 1, 1, 0]]]])
    assert soft_dice(probs, truth, batch_dice=False).item() == pytest.approx(2 * 1.5 / (1.5 + 3), abs=1e-5)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_dice_equals_monai(batch_dice):
    logits, truth = batch()
    monai = DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=batch_dice, smooth_nr=1e-5, smooth_dr=1e-5
    )
    ours = 1 - soft_dice(logits.softmax(1), truth, batch_dice).mean()
    torch.testing.assert_close(ours, monai(logits, truth[:, None]), atol=1e-5, rtol=1e-5)


def test_batch_dice_is_not_the_mean_of_dices():
    logits, truth = batch()
    truth[0] = 0  # a patch without foreground
    assert soft_dice(logits.softmax(1), truth, True).shape == (3,)
    assert soft_dice(logits.softmax(1), truth, False).shape == (2, 3)
    assert soft_dice(logits.softmax(1), truth, True).mean() > soft_dice(logits.softmax(1), truth, False).mean()


def test_perfect_and_empty_predictions():
    truth = torch.zeros(1, 3, 3, 3, dtype=torch.long)
    truth[0, 0] = 1
    logits = torch.nn.functional.one_hot(truth, 3).movedim(-1, 1).float() * 60 - 30
    assert dice_ce_loss(logits, truth, False).item() == pytest.approx(-1, abs=1e-4)  # class 2 is absent and scores 1


def test_loss_is_computed_in_float32_and_gradients_are_finite():
    logits, truth = batch()
    large = (logits * 300).to(torch.bfloat16).requires_grad_()
    loss = dice_ce_loss(large, truth, False)
    loss.backward()
    assert loss.dtype == torch.float32
    assert large.grad.isfinite().all()


def test_gradient_is_that_of_the_formula():
    logits, truth = batch(classes=3, shape=(1, 2, 2, 3))
    logits = logits.double().requires_grad_()
    # The loss works in float32, so finite differences are taken with a step that float32 resolves.
    numeric = torch.zeros_like(logits)
    with torch.no_grad():
        for index in range(logits.numel()):
            step = torch.zeros_like(logits).view(-1)
            step[index] = 1e-2
            step = step.view_as(logits)
            ahead, behind = dice_ce_loss(logits + step, truth, True), dice_ce_loss(logits - step, truth, True)
            numeric.view(-1)[index] = (ahead - behind) / 2e-2
    dice_ce_loss(logits, truth, True).backward()
    torch.testing.assert_close(logits.grad, numeric, atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    "outputs, weights", [(1, (1,)), (2, (1, 0)), (3, (2 / 3, 1 / 3, 0)), (4, (4 / 7, 2 / 7, 1 / 7, 0))]
)
def test_supervision_weights(outputs, weights):
    assert supervision_weights(outputs) == pytest.approx(weights)


def test_deep_supervision_is_the_weighted_sum():
    fine, truth = batch(shape=(2, 4, 8, 6))
    half, quarter = torch.randn(2, 4, 4, 4, 3), torch.randn(2, 4, 2, 2, 2)
    expected = 2 / 3 * dice_ce_loss(fine, truth, False) + 1 / 3 * dice_ce_loss(half, truth[:, :, 1::2, 1::2], False)
    torch.testing.assert_close(deep_supervision_loss([fine, half, quarter], truth, False), expected)


def test_downsampling_takes_the_voxel_at_the_centre():
    classes = torch.arange(24).view(1, 2, 3, 4)
    assert downsample(classes, (2, 3, 2))[0, 0, 0].tolist() == [1, 3]
    assert torch.equal(downsample(classes, (2, 3, 4)), classes)


def test_overlap_counts_by_hand():
    truth = torch.tensor([[[[0, 1, 1, 2]]], [[[2, 2, 0, 0]]]])
    predicted = torch.tensor([[[[1, 1, 0, 2]]], [[[2, 0, 0, 1]]]])
    logits = torch.nn.functional.one_hot(predicted, 3).movedim(-1, 1).float()
    assert overlap_counts(logits, truth).tolist() == [[1, 2], [2, 0], [1, 1]]  # TP, FP, FN of classes 1 and 2
