"""The sums of binary entropy and Dice of regions in one kernel, against a slow oracle in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from builders.exact_sums import exact_loss, exact_sums
from builders.interpreted import device_of_kernels
from segfw.networks.fused_losses import fused_sums, region_table, sums_of_regions
from segfw.networks.loss_sums import SigmoidSums, SumsOfOutputs, Target
from segfw.networks.losses import build_dice_topk, deep_supervision_loss

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]
NESTED = ((1, 2, 3), (2, 3), (3,))
OVERLAPPING = ((1, 2), (2, 3), (4,), (1, 3, 4), (2,))
TARGETS = [Target(regions=NESTED), Target(regions=NESTED, ignore=4), Target(regions=OVERLAPPING, ignore=5)]


@pytest.fixture
def device() -> torch.device:
    return device_of_kernels()


@pytest.fixture
def sums(device) -> SumsOfOutputs:
    """The kernel as a training gets it, after its trial."""
    found = fused_sums(device, Target(regions=NESTED))
    assert found is sums_of_regions
    return found


def made_up(target: Target, device: torch.device, shape: tuple[int, ...] = (2, 3, 5, 7)) -> tuple[Tensor, Tensor]:
    """Logits and classes, ignored ones and a class that lies in no region among them."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape[0], len(target.regions), *shape[1:], generator=generator) * 4
    classes = torch.randint(0, 7 if target.ignore is None else 1 + target.ignore, shape, generator=generator)
    return logits.to(device), classes.to(device)


def annotated_in(target: Target) -> Tensor:
    """All in the second sample; in the first, the first and the third are not."""
    first = [index not in (0, 2) for index in range(len(target.regions))]
    return torch.tensor([first, [True] * len(first)])


def check(sums: SumsOfOutputs, target: Target, hardest: float, known: Tensor | None, logits: Tensor, classes: Tensor):
    """All sums and the gradient of a loss of them."""
    leaf = logits.clone(memory_format=torch.preserve_format).requires_grad_()
    found = sums(leaf, classes, target, hardest, known)
    exact_leaf = logits.cpu().clone().requires_grad_()
    wanted = exact_sums(exact_leaf, classes.cpu(), target, hardest, known)
    for value, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(value.cpu().double(), exact.double(), rtol=1e-5, atol=1e-5)
    exact_loss(found).backward()
    exact_loss(wanted).backward()
    torch.testing.assert_close(leaf.grad.cpu(), exact_leaf.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize("hardest", [1.0, 0.1])
@pytest.mark.parametrize("target", TARGETS)
def test_sums_and_gradients_are_those_of_double_precision(target, hardest, is_partial, layout, sums, device):
    logits, classes = made_up(target, device)
    known = annotated_in(target) if is_partial else None
    check(sums, target, hardest, known, logits.to(memory_format=layout), classes)


def test_twenty_regions_of_many_voxels_are_several_tiles(sums, device):
    """32 outputs are 64 voxels of a tile: 5 programs of a tile each, of which the last one is not full."""
    target = Target(regions=tuple((index, index + 1) for index in range(1, 21)))
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 20, 1, 17, 17, generator=generator).to(device)
    classes = torch.randint(0, 22, (1, 1, 17, 17), generator=generator).to(device)
    check(sums, target, 1.0, None, logits, classes)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("hardest", [1.0, 0.1])
@pytest.mark.parametrize("is_partial", [False, True])
def test_a_loss_of_several_outputs_and_its_gradient(is_partial, hardest, batch_dice, sums, device):
    target = TARGETS[1]
    fine, classes = made_up(target, device)
    coarse, _ = made_up(target, device, (2, 2, 3, 4))
    last, _ = made_up(target, device, (2, 1, 2, 2))
    known = annotated_in(target) if is_partial else None
    found = []
    for fused in (sums, None):
        leaf = fine.clone().requires_grad_()
        outputs = [leaf, coarse * leaf.mean(), last]
        loss = deep_supervision_loss(
            outputs, classes, batch_dice, target, hardest=hardest, fused=fused, annotated=known
        )
        (3 * loss).backward()
        found.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_16_bit_logits_get_a_gradient_of_their_type_and_layout(layout, sums, device):
    target = TARGETS[2]
    logits, classes = made_up(target, device)
    logits = logits.bfloat16().to(memory_format=layout)
    leaf = logits.clone().requires_grad_()
    exact_loss(sums(leaf, classes, target, 1.0, None)).backward()
    exact = logits.float().clone().requires_grad_()
    exact_loss(SigmoidSums.apply(exact, classes, target, 1.0)).backward()
    assert leaf.grad.dtype == torch.bfloat16
    assert leaf.grad.is_contiguous(memory_format=layout)
    torch.testing.assert_close(leaf.grad.float(), exact.grad, rtol=2**-7, atol=2**-9)


def test_large_logits_do_not_overflow_and_small_entropies_are_kept(sums, device):
    """Voxels that are right by 1e5 and by 12: e^-12 is 6e-6, which a logarithm of 1 + e^-12 would have to 1 % only."""
    target = Target(regions=((1,),))
    logits = torch.tensor([1e5, -1e5, 12.0, -12.0]).view(1, 1, 1, 1, 4).to(device).requires_grad_()
    classes = torch.tensor([1, 0, 1, 0]).view(1, 1, 1, 4).to(device)
    entropy, counted, *_ = sums(logits, classes, target, 1.0, None)
    assert counted == 4
    torch.testing.assert_close(
        entropy.cpu().double(), 2 * torch.tensor(-12.0).double().exp().log1p(), rtol=1e-6, atol=0
    )
    entropy.backward()
    assert logits.grad.isfinite().all()


def test_nothing_that_counts_gives_nothing(sums, device):
    target = TARGETS[1]
    logits, classes = made_up(target, device)
    for hardest in (1.0, 0.1):
        leaf = logits.clone().requires_grad_()
        ignored = torch.full_like(classes, 4)
        loss = deep_supervision_loss([leaf], ignored, False, target, hardest=hardest, fused=sums)
        loss.backward()
        assert loss == 0
        assert not leaf.grad.any()


def test_the_table_says_what_lies_where():
    """Whole, core and enhancing of classes 1 to 3, 4 ignored; 0 outside, 1 inside, 2 unknown; a last row for others."""
    target = Target(regions=NESTED, ignore=4)
    assert region_table(target) == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 2, 2], [0, 0, 0]]
    # Nobody drew the whole: it holds what the core holds, and of all other voxels nothing is known.
    without_whole = region_table(target, (False, True, True))
    assert without_whole == [[2, 0, 0], [2, 0, 0], [1, 1, 0], [1, 1, 1], [2, 2, 2], [2, 0, 0]]


def test_the_loss_of_the_hardest_voxels_is_handed_the_kernel(sums, device):
    class PerSample:
        batch_dice = False

    target = TARGETS[0]
    logits, classes = made_up(target, device)
    asked = []

    def counting(*given: object) -> tuple[Tensor, ...]:
        asked.append(given[3])
        return sums(*given)

    build_dice_topk(PerSample(), target, fused=counting)([logits], classes)
    assert asked == [0.1]
