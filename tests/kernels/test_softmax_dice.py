"""The sums of cross entropy and Dice in one kernel against plain operations, and a loss made of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from torch import Tensor

from builders.interpreted import device_of_kernels
from segfw.networks.fused_layers import fused_sums
from segfw.networks.loss_sums import SoftmaxSums, SumsOfOutputs, Target
from segfw.networks.losses import deep_supervision_loss

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


@pytest.fixture
def device() -> torch.device:
    return device_of_kernels()


@pytest.fixture
def sums(device) -> SumsOfOutputs:
    """The kernel as a training gets it, after its trial."""
    found = fused_sums(device)
    assert found is not None
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


def test_regions_and_the_hardest_voxels_do_without_the_kernel(device):
    def refused(*_: object) -> tuple[Tensor, ...]:
        raise AssertionError("the kernel was called")

    logits, classes = made_up(3, device)
    for target, hardest in ((Target(regions=((1, 2), (2,), (1,))), 1.0), (Target(), 0.1)):
        plain = deep_supervision_loss([logits], classes, False, target, hardest=hardest)
        assert torch.equal(
            deep_supervision_loss([logits], classes, False, target, hardest=hardest, fused=refused), plain
        )
    with pytest.raises(AssertionError, match="the kernel was called"):
        deep_supervision_loss([logits], classes, False, Target(), fused=refused)
