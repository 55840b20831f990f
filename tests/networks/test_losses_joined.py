"""Entropy of the hardest voxels against a slow version, and losses of a batch that several processes share."""

from functools import partial
from itertools import product
from math import ceil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from builders.losses import TARGETS, batch_for
from segfw.networks.losses import (
    HARDEST,
    LABELS,
    LOSSES,
    Target,
    deep_supervision_loss,
    dice_ce_loss,
    supervision_weights,
)


def slow_hardest(logits: Tensor, classes: Tensor, target: Target, share: float) -> Tensor:
    """Mean entropy of the hardest voxels of each patch (in each region), picked one by one in float64."""
    taken = []
    for patch, truth in zip(logits.double(), classes):
        kept = truth != target.ignore if target.ignore is not None else torch.ones_like(truth, dtype=torch.bool)
        if target.regions:
            inside = [sum((truth == member).double() for member in members) for members in target.regions]
            entropies = [
                F.binary_cross_entropy_with_logits(region, mask, reduction="none")[kept]
                for region, mask in zip(patch, inside)
            ]
        else:
            entropies = [F.cross_entropy(patch.movedim(0, -1)[kept], truth[kept], reduction="none")]
        taken += [entropy.topk(ceil(share * len(entropy))).values for entropy in entropies if len(entropy)]
    return torch.cat(taken).mean()


def entropy_of(logits: Tensor, classes: Tensor, target: Target, hardest: float) -> Tensor:
    """Entropy alone: the loss, and the Dice that it subtracts put back."""
    whole = dice_ce_loss(logits, classes, False, target)
    plain = slow_hardest(logits, classes, target, 1.0)
    return dice_ce_loss(logits, classes, False, target, hardest=hardest) + plain - whole


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("share", [0.1, 0.37, 1.0])
def test_the_hardest_voxels_are_those_a_slow_search_finds(kind, share):
    logits, classes = batch_for(TARGETS[kind])
    if TARGETS[kind].ignore is not None:
        classes[1, 1:] = TARGETS[kind].ignore  # patches differ in how many voxels count
    logits = 3 * logits
    ours = logits.clone().requires_grad_()
    theirs = logits.clone().requires_grad_()
    loss = entropy_of(ours, classes, TARGETS[kind], share)
    expected = slow_hardest(theirs, classes, TARGETS[kind], share)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-3)


def test_a_tenth_of_the_voxels_by_hand():
    # Twenty voxels of background, so two count: those that the network takes for the other class.
    logits = torch.zeros(1, 2, 1, 4, 5)
    logits[0, 1] = -9
    logits[0, 1, 0, 1, 2] = 3
    logits[0, 1, 0, 3, 0] = 2
    logits[0, 1, 0, 0, 0] = 1
    logits.requires_grad_()
    classes = torch.zeros(1, 1, 4, 5, dtype=torch.long)
    entropy_of(logits, classes, LABELS, HARDEST).backward()
    assert logits.grad[0, 1].abs().gt(1e-4).nonzero().tolist() == [[0, 1, 2], [0, 3, 0]]
    assert logits.grad[0, 1, 0, 1, 2].item() == pytest.approx(torch.tensor(3.0).sigmoid().item() / 2, rel=1e-3)


@pytest.mark.parametrize("kind", TARGETS)
def test_voxels_that_are_alike_share_the_weight(kind):
    logits, classes = batch_for(TARGETS[kind])
    alike = torch.zeros_like(logits).requires_grad_()
    loss = entropy_of(alike, classes, TARGETS[kind], HARDEST)
    loss.backward()
    assert loss.item() == pytest.approx(torch.tensor(logits.shape[1] if kind in ("labels", "ignore") else 2).log())
    counted = classes != 4
    assert alike.grad.movedim(1, -1)[counted].abs().min() > 0
    assert not alike.grad.movedim(1, -1)[~counted].any()


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("factor", [1e4, 1e30])
def test_hopeless_voxels_give_finite_losses(kind, factor):
    logits, classes = batch_for(TARGETS[kind])
    extreme = (factor * logits).requires_grad_()
    loss = dice_ce_loss(extreme, classes, False, TARGETS[kind], hardest=HARDEST)
    loss.backward()
    assert loss.isfinite()
    assert extreme.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["ignore", "both"])
def test_a_patch_without_any_annotated_voxel_leaves_the_others_alone(kind):
    logits, classes = batch_for(TARGETS[kind])
    classes[1] = 4
    logits.requires_grad_()
    loss = dice_ce_loss(logits, classes, True, TARGETS[kind], hardest=HARDEST)
    alone = dice_ce_loss(logits[:1], classes[:1], True, TARGETS[kind], hardest=HARDEST)
    assert loss.item() == pytest.approx(alone.item(), abs=1e-6)
    loss.backward()
    assert logits.grad[0].any()
    assert not logits.grad[1].any()


@pytest.mark.parametrize("kind", TARGETS)
def test_the_hardest_voxels_cost_no_further_memory_until_backward(kind):
    logits, classes = batch_for(TARGETS[kind])
    logits.requires_grad_()
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
    ):
        dice_ce_loss(logits, classes, False, TARGETS[kind], hardest=HARDEST)
    floats = sum(tensor.numel() for tensor in kept.values() if tensor.is_floating_point())
    assert floats < 1.1 * logits.numel()


def test_losses_by_name():
    logits, classes = batch_for(LABELS)
    outputs = [logits, torch.randn(2, 4, 3, 3, 4), torch.randn(2, 4, 2, 2, 2)]
    for batch_dice in (False, True):
        configuration = SimpleNamespace(batch_dice=batch_dice)
        for name, share in (("dice-ce", 1.0), ("dice-topk", 0.1)):
            expected = deep_supervision_loss(outputs, classes, batch_dice, hardest=share)
            assert LOSSES[name](configuration, LABELS)(outputs, classes) == expected


def test_one_output_is_enough():
    logits, classes = batch_for(LABELS)
    assert supervision_weights(1) == (1.0,)
    for outputs in ([logits], (logits,), [logits, torch.randn(2, 4, 3, 3, 4)]):
        assert deep_supervision_loss(outputs, classes, True) == dice_ce_loss(logits, classes, True)


# What the ranks see of five samples: rank 0 has two and nearly all of the annotated voxels, rank 1 three.
SHARES = (slice(0, 2), slice(2, 5))


def shared_batch(target: Target) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(5, 2, 4, 6, 8, generator=generator)
    classes = torch.randint(0, 4, (5, 4, 6, 8), generator=generator)
    if target.ignore is not None:
        classes[2:][torch.rand(3, 4, 6, 8, generator=generator) < 0.9] = target.ignore
        classes[4] = target.ignore
    return image, classes


class Pyramid(nn.Module):
    """Two outputs, and a third one from a layer of its own that the loss gives no weight."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv3d(2, outputs, 3, padding=1)
        self.coarsest = nn.Conv3d(2, outputs, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        logits = self.conv(image)
        return [logits, F.avg_pool3d(logits, 2), self.coarsest(F.avg_pool3d(image, 4))]


def loss_and_gradient(forward: nn.Module, network: Pyramid, share: slice, target: Target, **options) -> list[Tensor]:
    image, classes = shared_batch(target)
    loss = deep_supervision_loss(forward(image[share]), classes[share], target=target, **options)
    network.zero_grad()
    loss.backward()
    assert not network.coarsest.weight.grad.any()
    return [loss.detach(), network.conv.weight.grad.clone(), network.conv.bias.grad.clone()]


def cases() -> list[tuple[str, bool, float]]:
    return list(product(TARGETS, (False, True), (1.0, 0.1)))


def outputs_of(target: Target) -> int:
    return len(target.regions) or 4


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(found_by(rank), Path(folder) / f"rank_{rank}.pt")
    # No network that averages lives here any more: the group would end with it, and may then wait for ever.
    torch.distributed.destroy_process_group()


def found_by(rank: int) -> list[list[Tensor]]:
    """Loss and gradients of all cases in one of two processes."""
    found = []
    for kind, batch_dice, hardest in cases():
        network = Pyramid(outputs_of(TARGETS[kind]))
        parallel = nn.parallel.DistributedDataParallel(network)
        options = {"batch_dice": batch_dice, "hardest": hardest, "join": all_reduce}
        found.append(loss_and_gradient(parallel, network, SHARES[rank], TARGETS[kind], **options))
    return found


def test_two_processes_have_the_loss_and_gradient_of_one_with_the_joined_batch(tmp_path):
    torch.multiprocessing.spawn(run_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank_{rank}.pt") for rank in range(2)]
    for number, (kind, batch_dice, hardest) in enumerate(cases()):
        network = Pyramid(outputs_of(TARGETS[kind]))
        options = {"batch_dice": batch_dice, "hardest": hardest}
        expected = loss_and_gradient(network, network, slice(None), TARGETS[kind], **options)
        for rank in ranks:
            torch.testing.assert_close(rank[number], expected, atol=1e-6, rtol=1e-4)
        apart = [loss_and_gradient(network, network, share, TARGETS[kind], **options)[0] for share in SHARES]
        if TARGETS[kind].ignore is not None or batch_dice:  # a mean over ranks would be something else
            assert abs(sum(apart) / 2 - expected[0]) > 1e-3


def test_no_rank_needs_annotated_voxels_of_its_own():
    """The second rank has none; what it adds to the sums are zeros."""
    logits, classes = batch_for(TARGETS["ignore"])
    classes[1] = 4
    sums = []
    dice_ce_loss(logits[1:], classes[1:], True, TARGETS["ignore"], join=lambda own: sums.append(own) or own)
    joined = dice_ce_loss(logits[:1], classes[:1], True, TARGETS["ignore"], join=partial(torch.add, other=sums[0]))
    assert not sums[0].any()
    assert joined == dice_ce_loss(logits, classes, True, TARGETS["ignore"])
