"""Losses against MONAI, autograd and by hand, and deep supervision for any number of stages."""

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor

from bench.fake_device import DEVICE, Asked, fake_device
from builders.losses import IGNORE, REGIONS, TARGETS, batch_for
from segfw.networks.losses import (
    Target,
    counted_without_waiting,
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


def slow_loss(logits: Tensor, classes: Tensor, batch_dice: bool, target: Target) -> Tensor:
    """The same in float64 from one-hot masks, with all voxels that do not count taken out one by one."""
    logits = logits.double()
    kept = classes != target.ignore if target.ignore is not None else torch.ones_like(classes, dtype=torch.bool)
    if target.regions:
        truth = torch.stack([sum((classes == m).double() for m in members) for members in target.regions], 1)
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").movedim(1, -1)[kept].mean()
        probs = logits.sigmoid()
    else:
        clean = classes.masked_fill(~kept, 0)
        truth = F.one_hot(clean, logits.shape[1]).movedim(-1, 1).double()[:, 1:]
        entropy = F.cross_entropy(logits.movedim(1, -1)[kept], classes[kept])
        probs = logits.softmax(1)[:, 1:]
    groups = (
        [(probs, truth, kept)] if batch_dice else [(p[None], t[None], k[None]) for p, t, k in zip(probs, truth, kept)]
    )
    dices = []
    for p, t, k in groups:
        p = p.movedim(1, -1)[k]
        t = t.movedim(1, -1)[k]
        dices.append((2 * (p * t).sum(0) + 1e-5) / (p.sum(0) + t.sum(0) + 1e-5))
    return entropy - torch.stack(dices).mean()


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_loss_and_gradient_equal_autograd_on_the_formula(kind, batch_dice, layout):
    logits, classes = batch_for(TARGETS[kind])
    logits = (3 * logits).to(memory_format=layout)
    ours = logits.clone().requires_grad_()
    theirs = logits.clone().requires_grad_()
    loss = dice_ce_loss(ours, classes, batch_dice, TARGETS[kind])
    expected = slow_loss(theirs, classes, batch_dice, TARGETS[kind])
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    (5 * loss).backward()  # as a gradient scaler does
    (5 * expected).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-7, rtol=1e-4)


def test_dice_by_hand():
    assert soft_dice(torch.tensor([[1.5]]), torch.tensor([[1.5 + 3]])).item() == pytest.approx(2 / 3, abs=1e-5)


def entropy_free(logits: Tensor, classes: Tensor, batch_dice: bool) -> Tensor:
    return 1 + dice_ce_loss(logits, classes, batch_dice) - F.cross_entropy(logits, classes)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_dice_equals_monai(batch_dice):
    logits, truth = batch()
    monai = DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=batch_dice, smooth_nr=1e-5, smooth_dr=1e-5
    )
    torch.testing.assert_close(entropy_free(logits, truth, batch_dice), monai(logits, truth[:, None]))


@pytest.mark.parametrize("batch_dice", [False, True])
def test_regions_equal_monai(batch_dice):
    logits, classes = batch_for(REGIONS)
    truth = torch.stack([torch.isin(classes, torch.tensor(members)) for members in REGIONS.regions], 1).float()
    monai = DiceLoss(sigmoid=True, batch=batch_dice, smooth_nr=1e-5, smooth_dr=1e-5)
    expected = monai(logits, truth) + F.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(1 + dice_ce_loss(logits, classes, batch_dice, REGIONS), expected)


def test_one_region_by_hand():
    logits = torch.tensor([0.0, 40.0, -40.0, 7.0]).view(1, 1, 1, 1, 4)
    classes = torch.tensor([[[[1, 2, 0, 9]]]])  # the last one is ignored
    loss = dice_ce_loss(logits, classes, False, Target(regions=((1, 2),), ignore=9))
    # Probabilities 0.5, 1, 0 against 1, 1, 0: entropy log(2) / 3, Dice 2 * 1.5 / (1.5 + 2)
    assert loss.item() == pytest.approx(0.693147 / 3 - 3 / 3.5, abs=1e-5)


@pytest.mark.parametrize("kind", ["ignore", "both"])
def test_what_the_network_says_of_ignored_voxels_is_no_matter(kind):
    logits, classes = batch_for(TARGETS[kind])
    other = torch.where((classes == 4)[:, None], torch.full_like(logits, 1e30), logits).requires_grad_()
    loss = dice_ce_loss(other, classes, False, TARGETS[kind])
    assert loss.item() == pytest.approx(float(dice_ce_loss(logits, classes, False, TARGETS[kind])), abs=1e-6)
    loss.backward()
    assert not other.grad.movedim(1, -1)[classes == 4].any()
    assert other.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["ignore", "both"])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_a_batch_without_any_annotated_voxel_teaches_nothing(kind, batch_dice):
    logits, classes = batch_for(TARGETS[kind])
    logits.requires_grad_()
    loss = deep_supervision_loss([logits], torch.full_like(classes, 4), batch_dice, TARGETS[kind])
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("kind", TARGETS)
def test_extreme_logits_give_finite_losses_and_gradients(kind):
    logits, classes = batch_for(TARGETS[kind])
    for factor in (1e4, 1e30):
        extreme = (factor * logits).requires_grad_()
        loss = dice_ce_loss(extreme, classes, False, TARGETS[kind])
        loss.backward()
        assert loss.isfinite()
        assert extreme.grad.isfinite().all()


@pytest.mark.parametrize("kind", TARGETS)
def test_at_most_the_probabilities_are_kept_for_the_backward_pass(kind):
    logits, classes = batch_for(TARGETS[kind])
    logits.requires_grad_()
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
    ):
        dice_ce_loss(logits, classes, False, TARGETS[kind])
    floats = sum(tensor.numel() for tensor in kept.values() if tensor.is_floating_point())
    assert floats < 1.1 * logits.numel()


def test_batch_dice_is_not_the_mean_of_dices():
    logits, truth = batch()
    truth[0] = 0  # a patch without foreground
    assert entropy_free(logits, truth, True) < entropy_free(logits, truth, False) - 0.01


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
            ahead = dice_ce_loss(logits + step, truth, True)
            behind = dice_ce_loss(logits - step, truth, True)
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
    half = torch.randn(2, 4, 4, 4, 3)
    quarter = torch.randn(2, 4, 2, 2, 2)
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


@pytest.mark.parametrize("ignore", [None, 6])
def test_overlap_counts_equal_those_of_a_loop_over_classes(ignore):
    torch.manual_seed(1)
    logits = torch.randn(2, 6, 3, 5, 7)
    truth = torch.randint(0, 6 if ignore is None else 7, (2, 3, 5, 7))
    found = logits.argmax(1)
    known = truth != ignore if ignore is not None else torch.ones_like(truth, dtype=torch.bool)
    slow = []
    for index in range(1, 6):
        hit = (found == index) & (truth == index)
        extra = (found == index) & (truth != index) & known
        slow.append([int(part.sum()) for part in (hit, extra, (truth == index) & (found != index))])
    counts = overlap_counts(logits, truth, Target(ignore=ignore))
    assert counts.T.tolist() == slow
    assert counts.dtype == torch.int64


def test_numbers_are_counted_without_waiting_for_the_largest():
    values = torch.randint(0, 13_806, (10_000,))  # pairs of 117 classes
    wanted = torch.bincount(values, minlength=13_806)
    assert torch.equal(counted_without_waiting(values, 13_806), wanted)
    assert torch.equal(counted_without_waiting(values, 13_806, most=777), wanted)


def test_counting_a_hundred_classes_asks_a_gpu_for_little():
    """Before, for eight launches a class."""
    with fake_device(), Asked() as asked:
        logits = torch.empty(2, 117, 4, 8, 8, device=DEVICE)
        counts = overlap_counts(logits, torch.zeros(2, 4, 8, 8, dtype=torch.long, device=DEVICE))
        assert counts.shape == (3, 116)
    assert asked.launch_count < 25
    assert asked.bytes_out == 0


def test_overlap_counts_of_overlapping_regions_without_ignored_voxels_by_hand():
    classes = torch.tensor([[[[0, 1, 2, 4, 2, 1]]]])
    logits = torch.tensor([[[[[-1.0, 1, 1, 1, -1, 1]]], [[[1.0, -1, 1, 1, 0, -1]]]]]).view(1, 2, 1, 1, 6)
    whole_and_core = Target(regions=((1, 2), (2,)), ignore=4)
    assert overlap_counts(logits, classes, whole_and_core).tolist() == [[3, 1], [0, 1], [1, 1]]


def test_overlap_counts_of_labels_without_ignored_voxels_by_hand():
    classes = torch.tensor([[[[0, 1, 1, 2]]], [[[2, 3, 3, 0]]]])
    predicted = torch.tensor([[[[1, 1, 0, 2]]], [[[2, 1, 2, 1]]]])
    logits = F.one_hot(predicted, 3).movedim(-1, 1).float()
    assert overlap_counts(logits, classes, Target(ignore=3)).tolist() == [[1, 2], [2, 0], [1, 0]]


def test_the_ignore_label_is_supervised_at_no_depth():
    logits, classes = batch_for(IGNORE)
    coarse = torch.randn(2, 4, 3, 3, 4)
    expected = 2 / 3 * slow_loss(logits, classes, False, IGNORE)
    coarse_classes = downsample(classes, (3, 3, 4))
    assert (coarse_classes == 4).any()
    expected += 1 / 3 * slow_loss(coarse, coarse_classes, False, IGNORE)
    loss = deep_supervision_loss([logits, coarse, torch.randn(2, 4, 1, 1, 1)], classes, False, IGNORE)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
