"""The sums of cross entropy and Dice in one kernel against plain operations, and a loss made of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from torch import Tensor

from builders.exact_sums import exact_loss, exact_sums
from builders.interpreted import device_of_kernels
from segfw.networks.fused_losses import fused_sums, sums_of_labels
from segfw.networks.loss_sums import SoftmaxSums, SumsOfOutputs, Target
from segfw.networks.losses import LABELS, deep_supervision_loss

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


@pytest.fixture
def device() -> torch.device:
    return device_of_kernels()


@pytest.fixture
def sums(device) -> SumsOfOutputs:
    """The kernel as a training gets it, after its trial."""
    found = fused_sums(device, LABELS)
    assert found is sums_of_labels
    return found


def softmax_dice_sums(logits: Tensor, classes: Tensor, ignore: int | None) -> tuple[Tensor, ...]:
    return import_module("segfw.kernels.softmax_dice").softmax_dice_sums(logits, classes, ignore)


def made_up(outputs: int, device: torch.device, shape: tuple[int, ...] = (2, 3, 7, 11)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = shape[0]
    logits = torch.randn(batch, outputs, *shape[1:], generator=generator) * 4
    classes = torch.randint(0, outputs, shape, generator=generator)
    return logits.to(device), classes.to(device)


def gradients(function: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = function(leaf)
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("outputs, ignore", [(2, None), (5, None), (5, 3), (20, 0)])
def test_sums_are_those_of_plain_operations_in_double_precision(outputs, ignore, layout, device):
    logits, classes = made_up(outputs, device)
    logits = logits.to(memory_format=layout)
    found = softmax_dice_sums(logits, classes, ignore)
    # In double precision by hand: plain operations of segfw work in float32.
    probs = logits.double().softmax(1)
    counted = torch.ones_like(classes, dtype=torch.bool) if ignore is None else classes != ignore
    truth = torch.stack([(classes == k) & counted for k in range(outputs)], 1)
    entropy = -probs.log()[truth].sum()
    space = (2, 3, 4)
    volume = (probs * counted[:, None]).sum(space)[:, 1:]
    overlap = (probs * truth).sum(space)[:, 1:]
    wanted = (entropy, counted.sum(), overlap, volume, truth.sum(space)[:, 1:])
    for value, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(value.double(), exact.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("target", [Target(), Target(ignore=4)])
def test_a_loss_of_several_outputs_and_its_gradient(target, batch_dice, layout, sums, device):
    fine, classes = made_up(5, device)
    coarse, _ = made_up(5, device, (2, 2, 4, 6))
    last, _ = made_up(5, device, (2, 1, 2, 3))
    scale = torch.tensor(3.0)  # of fp16's scaler

    def loss(leaf: Tensor, fused: SumsOfOutputs | None) -> Tensor:
        outputs = [leaf.to(memory_format=layout), coarse * leaf.mean(), last]
        return scale * deep_supervision_loss(outputs, classes, batch_dice, target, fused=fused)

    found, gradient = gradients(lambda leaf: loss(leaf, sums), fine)
    wanted, wanted_gradient = gradients(lambda leaf: loss(leaf, None), fine)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_16_bit_logits_get_a_gradient_of_their_type_and_layout(layout, device):
    logits, classes = made_up(6, device)
    logits = logits.bfloat16().to(memory_format=layout)
    leaf = logits.clone().requires_grad_()
    entropy, _, overlap, volume, _ = softmax_dice_sums(leaf, classes, None)
    (entropy + overlap.sum() - volume.sum()).backward()
    exact = logits.float().clone().requires_grad_()
    entropy_32, _, overlap_32, volume_32, _ = SoftmaxSums.apply(exact, classes, Target(), 1.0)
    (entropy_32 + overlap_32.sum() - volume_32.sum()).backward()
    assert leaf.grad.dtype == torch.bfloat16
    assert leaf.grad.is_contiguous(memory_format=layout)
    torch.testing.assert_close(leaf.grad.float(), exact.grad, rtol=2**-7, atol=2**-9)


def test_large_logits_do_not_overflow(device):
    logits, classes = made_up(4, device)
    leaf = (logits * 1e4).requires_grad_()
    entropy, *_ = softmax_dice_sums(leaf, classes, None)
    entropy.backward()
    wanted = torch.nn.functional.cross_entropy(leaf.detach().double(), classes, reduction="sum")
    torch.testing.assert_close(entropy.double(), wanted, rtol=1e-5, atol=0.0)
    assert leaf.grad.isfinite().all()


def test_nothing_annotated_gives_nothing(device, sums):
    logits, classes = made_up(3, device)
    loss, gradient = gradients(
        lambda leaf: deep_supervision_loss([leaf], torch.full_like(classes, 2), False, Target(ignore=2), fused=sums),
        logits,
    )
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize("hardest", [1.0, 0.1])
@pytest.mark.parametrize("ignore", [None, 5])
def test_the_hardest_voxels_and_samples_in_part_in_double_precision(ignore, hardest, is_partial, layout, sums, device):
    """In the first sample 2 and 4 of five classes are not annotated, in the second all are."""
    logits, classes = made_up(5, device, (2, 3, 5, 7))
    known = torch.tensor([[True, True, False, True, False], [True] * 5]) if is_partial else None
    if ignore is not None:
        classes[:, 1] = ignore
    leaf = logits.clone().to(memory_format=layout).requires_grad_()
    found = sums(leaf, classes, Target(ignore=ignore), hardest, known)
    exact_leaf = logits.cpu().clone().requires_grad_()
    wanted = exact_sums(exact_leaf, classes.cpu(), Target(ignore=ignore), hardest, known)
    for value, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(value.cpu().double(), exact.double(), rtol=1e-5, atol=1e-5)
    exact_loss(found).backward()
    exact_loss(wanted).backward()
    torch.testing.assert_close(leaf.grad.cpu(), exact_leaf.grad, rtol=1e-4, atol=1e-6)


def test_what_is_hidden_shares_the_gradient_where_the_background_is_as_good_as_impossible(sums, device):
    """Logits 0, 200 and 190 at a voxel of class 0, where nobody drew 1 and 2: all but exp(-200) of it is theirs."""
    logits = torch.tensor([0.0, 200.0, 190.0]).view(1, 3, 1, 1, 1).to(device).requires_grad_()
    classes = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=device)
    entropy, *_ = sums(logits, classes, LABELS, 1.0, torch.tensor([[True, False, False]]))
    entropy.backward()
    assert entropy.item() == pytest.approx(0, abs=1e-4)
    assert not logits.grad.abs().gt(1e-4).any()


def test_what_a_program_cannot_hold_is_computed_plainly(sums, device):
    logits = torch.randn(1, 1025, 1, 1, 2).to(device)
    classes = torch.tensor([3, 1024]).view(1, 1, 1, 2).to(device)
    found = sums(logits, classes, LABELS, 1.0, None)
    for value, plain in zip(found, SoftmaxSums.apply(logits, classes, LABELS, 1.0), strict=True):
        assert torch.equal(value, plain)
