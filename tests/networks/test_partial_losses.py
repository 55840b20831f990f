"""Losses of samples in which some structures are not annotated: by hand, and against autograd on the formula."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from builders.losses import BOTH, REGIONS, TARGETS, batch_for
from segfw.networks import loss_sums, losses
from segfw.networks.loss_sums import SoftmaxSums
from segfw.networks.losses import LABELS, Target, deep_supervision_loss, dice_ce_loss, overlap_counts

HALF = torch.tensor([[True, True, False, False], [True, True, True, True]])  # sample 0 lacks the classes 2 and 3
HALF_OF_REGIONS = torch.tensor([[True, False, True], [False, False, True]])


def without(classes: Tensor, annotated: Tensor) -> Tensor:
    """The masks as somebody draws them who does not know the classes that are not annotated."""
    drawn = classes.clone()
    for sample, row in enumerate(annotated.tolist()):
        for index, known in enumerate(row):
            if not known:
                drawn[sample][drawn[sample] == index] = 0
    return drawn


def slow_softmax_loss(logits: Tensor, classes: Tensor, batch_dice: bool, target: Target, annotated: Tensor) -> Tensor:
    """From the formula, a sample and a class at a time, in float64."""
    probs = logits.double().softmax(1)
    entropies = []
    overlap = probs.new_zeros(annotated.shape)
    total = probs.new_zeros(annotated.shape)
    for b, row in enumerate(annotated.tolist()):
        kept = classes[b] != target.ignore if target.ignore is not None else torch.ones_like(classes[b]).bool()
        unknown = [k for k, known in enumerate(row) if not known]
        truth = probs[b].gather(0, classes[b].clamp_max(len(row) - 1)[None])[0]
        q0 = probs[b, 0] + sum(probs[b, k] for k in unknown)
        truth = torch.where(classes[b] == 0, q0, truth)
        entropies.append(-truth[kept].log())
        for k in range(1, len(row)):
            inside = (classes[b] == k)[kept]
            p = probs[b, k][kept]
            overlap[b, k] = (p * inside).sum()
            total[b, k] = p.sum() + inside.sum()
    dices = []
    for k in range(1, annotated.shape[1]):
        samples = annotated[:, k].nonzero().flatten().tolist()
        if not samples:
            continue
        if batch_dice:
            dices.append((2 * overlap[samples, k].sum() + 1e-5) / (total[samples, k].sum() + 1e-5))
        else:
            dices += [(2 * overlap[b, k] + 1e-5) / (total[b, k] + 1e-5) for b in samples]
    return torch.cat(entropies).mean() - torch.stack(dices).mean()


@pytest.mark.parametrize("kind", ["labels", "ignore"])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_loss_and_gradient_equal_autograd_on_the_formula(kind, batch_dice, layout):
    for rows in ([[1, 1, 0, 0], [1, 1, 1, 1]], [[1, 0, 1, 0], [1, 0, 0, 1]], [[1, 0, 0, 1], [1, 0, 0, 1]]):
        annotated = torch.tensor(rows, dtype=torch.bool)
        logits, classes = batch_for(TARGETS[kind])
        classes = without(classes, annotated)
        logits = (3 * logits).to(memory_format=layout)
        ours = logits.clone().requires_grad_()
        theirs = logits.clone().requires_grad_()
        loss = dice_ce_loss(ours, classes, batch_dice, TARGETS[kind], annotated=annotated)
        expected = slow_softmax_loss(theirs, classes, batch_dice, TARGETS[kind], annotated)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
        (5 * loss).backward()
        (5 * expected).backward()
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-7, rtol=1e-4)


def test_two_voxels_by_hand():
    """Background and the classes a, b; the mask knows a alone. Voxel 1 is a, voxel 2 is drawn as background."""
    probs = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.5, 0.375]])
    logits = probs.log().T[None, :, None, None]
    classes = torch.tensor([[[[1, 0]]]])
    annotated = torch.tensor([[True, True, False]])
    loss = dice_ce_loss(logits, classes, False, annotated=annotated)
    # Entropy -log 0.25 and -log (0.125 + 0.375); Dice of a alone: 2 * 0.25 / (0.25 + 0.5 + 1)
    assert loss.item() == pytest.approx((1.386294 + 0.693147) / 2 - 0.5 / 1.75, abs=1e-5)


def test_the_gradient_of_the_entropy_is_as_published():
    """dL/dz_j = p_j - p_j / q0 for the background and what is not annotated, p_j for the others."""
    logits = torch.tensor([0.3, -1.0, 0.7, 0.1]).view(1, 4, 1, 1, 1).requires_grad_()
    annotated = torch.tensor([[True, False, True, False]])
    entropy = SoftmaxSums.apply(logits, torch.zeros(1, 1, 1, 1, dtype=torch.long), LABELS, 1.0, annotated)[0]
    entropy.backward()
    p = logits.detach().flatten().softmax(0)
    q0 = p[0] + p[1] + p[3]
    expected = torch.stack((p[0] - p[0] / q0, p[1] - p[1] / q0, p[2], p[3] - p[3] / q0))
    torch.testing.assert_close(logits.grad.flatten(), expected)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("hardest", [1.0, 0.1])
def test_where_all_is_annotated_the_loss_is_the_usual_one_bit_for_bit(kind, batch_dice, hardest):
    target = TARGETS[kind]
    logits, classes = batch_for(target)
    usual = logits.clone().requires_grad_()
    ours = logits.clone().requires_grad_()
    everything = torch.ones(2, logits.shape[1], dtype=torch.bool)
    expected = dice_ce_loss(usual, classes, batch_dice, target, hardest=hardest)
    loss = dice_ce_loss(ours, classes, batch_dice, target, hardest=hardest, annotated=everything)
    expected.backward()
    loss.backward()
    assert loss.item() == expected.item()
    assert torch.equal(ours.grad, usual.grad)


def test_sums_of_samples_that_annotate_all_are_the_usual_ones_bit_for_bit():
    logits, classes = batch_for(LABELS)
    classes = without(classes, HALF)
    usual = SoftmaxSums.apply(logits, classes, LABELS, 1.0)
    ours = SoftmaxSums.apply(logits, classes, LABELS, 1.0, HALF)
    for one, other in zip(usual[2:], ours[2:]):
        assert torch.equal(one[1], other[1])
        assert torch.equal(one[0, :1], other[0, :1])  # of class 1, which is annotated there
        assert not other[0, 1:].any()


def test_what_the_network_says_of_an_unannotated_structure_in_background_is_no_matter():
    logits, classes = batch_for(LABELS)
    classes = torch.where(classes == 1, 1, 0)
    annotated = torch.tensor([[True, True, False, False]] * 2)
    sure_of_2 = logits.clone()
    sure_of_2[:, 2] = logits[:, [0, 2]].logsumexp(1)
    sure_of_2[:, 0] = -100.0
    both = logits.clone()
    both[:, 0] = logits[:, [0, 2]].logsumexp(1)
    both[:, 2] = -100.0
    ours = dice_ce_loss(sure_of_2, classes, True, annotated=annotated)
    assert ours.item() == pytest.approx(dice_ce_loss(both, classes, True, annotated=annotated).item(), abs=1e-6)


@pytest.mark.parametrize("size", [80.0, 1000.0])
def test_far_logits_stay_numbers_and_the_gradient_sums_to_nothing(size):
    logits = torch.tensor([-size, size, -size / 2, 0.0]).view(1, 4, 1, 1, 1).requires_grad_()
    annotated = torch.tensor([[True, True, False, False]])
    loss = dice_ce_loss(logits, torch.zeros(1, 1, 1, 1, dtype=torch.long), True, annotated=annotated)
    loss.backward()
    assert loss.item() == pytest.approx(size, rel=0.02)
    assert logits.grad.isfinite().all()
    assert logits.grad.sum().item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.flatten()[1] > 0


def test_a_structure_that_no_sample_annotates_leaves_the_mean():
    logits, classes = batch_for(LABELS)
    annotated = torch.tensor([[True, True, True, False]] * 2)
    classes = without(classes, annotated)
    sums = SoftmaxSums.apply(logits, classes, LABELS, 1.0, annotated)
    entropy = sums[0] / sums[1]
    total = sums[3] + sums[4]
    dices = (2 * sums[2].sum(0) + 1e-5) / (total.sum(0) + 1e-5)
    loss = dice_ce_loss(logits, classes, True, annotated=annotated)
    assert loss.item() == pytest.approx((entropy - dices[:2].mean()).item(), abs=1e-6)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_no_structure_at_all_is_entropy_alone(batch_dice):
    logits, classes = batch_for(LABELS)
    annotated = torch.tensor([[True, False, False, False]] * 2)
    loss = dice_ce_loss(logits, torch.zeros_like(classes), batch_dice, annotated=annotated)
    assert loss.item() == pytest.approx(0, abs=1e-6)  # background or any of the others: all there is


def test_the_hardest_voxels_are_found_by_what_background_may_be():
    """Of ten voxels the hardest one counts: by p0 that would be voxel 0, by q0 it is voxel 9."""
    logits = torch.zeros(1, 3, 1, 1, 10)
    logits[0, 2, 0, 0, 0] = 9.0  # nearly surely of the class that is not annotated: no fault
    logits[0, 1, 0, 0, 9] = 3.0  # of the class that is annotated: a fault
    logits.requires_grad_()
    annotated = torch.tensor([[True, True, False]])
    classes = torch.zeros(1, 1, 1, 10, dtype=torch.long)
    entropy = SoftmaxSums.apply(logits, classes, LABELS, 0.1, annotated)[0]
    entropy.backward()
    p = torch.tensor([0.0, 3.0, 0.0]).softmax(0)
    q0 = p[0] + p[2]
    assert entropy.item() == pytest.approx(-q0.log().item(), rel=1e-6)
    assert not logits.grad[..., :9].any()
    expected = torch.stack((p[0] - p[0] / q0, p[1], p[2] - p[2] / q0))
    torch.testing.assert_close(logits.grad[0, :, 0, 0, 9], expected)


# ---- regions ----


def slow_region_loss(logits: Tensor, classes: Tensor, batch_dice: bool, target: Target, annotated: Tensor) -> Tensor:
    """Voxel by voxel: the sets of classes of which an annotated region tells are written out here once more."""
    entropies = []
    overlap = logits.double().new_zeros(annotated.shape)
    total = logits.double().new_zeros(annotated.shape)
    for b, row in enumerate(annotated.tolist()):
        for r, members in enumerate(target.regions):
            known = set(range(9)) if row[r] else set()
            for s, parts in enumerate(target.regions):
                if row[s] and (set(parts) <= set(members) or not set(parts) & set(members)):
                    known |= set(parts)
            kept = torch.isin(classes[b], torch.tensor(sorted(known), dtype=torch.long))
            kept &= classes[b] != (99 if target.ignore is None else target.ignore)
            inside = torch.isin(classes[b], torch.tensor(members))[kept].double()
            z = logits[b, r].double()[kept]
            entropies.append(F.binary_cross_entropy_with_logits(z, inside, reduction="none"))
            p = z.sigmoid()
            overlap[b, r] = (p * inside).sum()
            total[b, r] = p.sum() + inside.sum()
    if batch_dice:
        numbers = annotated.any(0).nonzero().flatten().tolist()
        known = annotated.double()
        dices = [(2 * (overlap * known)[:, r].sum() + 1e-5) / ((total * known)[:, r].sum() + 1e-5) for r in numbers]
    else:
        dices = list(((2 * overlap + 1e-5) / (total + 1e-5))[annotated])
    return torch.cat(entropies).mean() - torch.stack(dices).mean()


@pytest.mark.parametrize(
    "target", [REGIONS, BOTH, Target(regions=((1, 2), (2,), (3,)))], ids=["nested", "both", "apart"]
)
@pytest.mark.parametrize("batch_dice", [False, True])
def test_regions_equal_autograd_on_the_formula(target, batch_dice):
    for rows in (HALF_OF_REGIONS.tolist(), [[0, 1, 0], [1, 1, 1]], [[0, 0, 1], [0, 1, 0]], [[1, 0, 0], [1, 0, 0]]):
        annotated = torch.tensor(rows, dtype=torch.bool)
        logits, classes = batch_for(target)
        ours = (3 * logits).requires_grad_()
        theirs = (3 * logits).requires_grad_()
        loss = dice_ce_loss(ours, classes, batch_dice, target, annotated=annotated)
        expected = slow_region_loss(theirs, classes, batch_dice, target, annotated)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
        loss.backward()
        expected.backward()
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-7, rtol=1e-4)


def test_an_annotated_part_is_inside_of_a_region_that_is_not_annotated():
    """Tumour (class 2) is drawn, organ (1 or 2) is not: of the organ the tumour's voxel alone is known."""
    target = Target(regions=((1, 2), (2,)))
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).view(1, 2, 1, 1, 3).requires_grad_()
    classes = torch.tensor([[[[2, 0, 0]]]])
    annotated = torch.tensor([[False, True]])
    loss = dice_ce_loss(logits, classes, False, target, annotated=annotated)
    # Four binary entropies of log 2, one of the organ and three of the tumour; the tumour's Dice 2 * 0.5 / (1.5 + 1)
    assert loss.item() == pytest.approx(0.693147 - 1 / 2.5, abs=1e-5)
    loss.backward()
    assert logits.grad[0, 0].flatten().tolist() == pytest.approx([-0.5 / 4, 0, 0])


# ---- through deep supervision, kernels and counts ----


def test_deep_supervision_weighs_the_marginal_loss_of_every_output():
    torch.manual_seed(0)
    outputs = [torch.randn(2, 4, 4, 6, 8), torch.randn(2, 4, 2, 3, 4), torch.randn(2, 4, 1, 2, 2)]
    classes = without(torch.randint(0, 4, (2, 4, 6, 8)), HALF)
    loss = deep_supervision_loss(outputs, classes, True, annotated=HALF)
    coarse = F.interpolate(classes[:, None].float(), (2, 3, 4), mode="nearest-exact")[:, 0].long()
    parts = [
        dice_ce_loss(outputs[0], classes, True, annotated=HALF),
        dice_ce_loss(outputs[1], coarse, True, annotated=HALF),
    ]
    assert loss.item() == pytest.approx((2 * parts[0] + parts[1]).item() / 3, abs=1e-6)


def test_a_kernel_is_told_who_annotates_what_unless_all_do():
    asked = []

    def kernel(*given):
        asked.append(given[4])
        return SoftmaxSums.apply(*given)

    logits, classes = batch_for(LABELS)
    deep_supervision_loss([logits], without(classes, HALF), True, fused=kernel, annotated=HALF)
    deep_supervision_loss([logits], classes, True, fused=kernel, annotated=torch.ones_like(HALF))
    assert asked[0] is HALF
    assert asked[1] is None


def test_counts_leave_out_what_is_not_annotated():
    # Two samples of three voxels: found 1 2 2, drawn 1 0 0; found 2 1 0, drawn 2 2 1
    found = torch.tensor([[1, 2, 2], [2, 1, 0]])
    logits = F.one_hot(found, 3).float().permute(0, 2, 1)[:, :, None, None]
    classes = torch.tensor([[1, 0, 0], [2, 2, 1]])[:, None, None]
    annotated = torch.tensor([[True, True, False], [True, True, True]])
    counts = overlap_counts(logits, classes, annotated=annotated)
    assert counts.tolist() == [[1, 1], [1, 0], [1, 1]]  # of class 2 in the second sample alone
    assert overlap_counts(logits, classes).tolist() == [[1, 1], [1, 2], [1, 1]]


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("batch_dice", [False, True])
def test_a_rank_with_whole_samples_joins_one_with_samples_in_part(kind, batch_dice):
    target = TARGETS[kind]
    logits, classes = batch_for(target)
    annotated = torch.tensor([[False, True, True], [True] * 3]) if target.regions else HALF
    classes = classes if target.regions else without(classes, annotated)
    sums = []
    dice_ce_loss(
        logits[1:], classes[1:], batch_dice, target, join=lambda own: sums.append(own) or own, annotated=annotated[1:]
    )
    joined = dice_ce_loss(
        logits[:1], classes[:1], batch_dice, target, join=partial(torch.add, other=sums[0]), annotated=annotated[:1]
    )
    whole = dice_ce_loss(logits, classes, batch_dice, target, annotated=annotated)
    assert joined.item() == pytest.approx(whole.item(), abs=1e-6)


def test_what_is_not_annotated_costs_no_memory_until_backward():
    logits, classes = batch_for(LABELS)
    logits.requires_grad_()
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
    ):
        dice_ce_loss(logits, without(classes, HALF), False, annotated=HALF)
    floats = sum(tensor.numel() for tensor in kept.values() if tensor.is_floating_point())
    assert floats < 1.1 * logits.numel()


@pytest.mark.parametrize("target, annotated", [(LABELS, HALF), (REGIONS, HALF_OF_REGIONS)])
def test_which_outputs_are_annotated_is_sent_to_a_device_without_waiting_for_it(target, annotated, monkeypatch):
    """On PyTorch's device without data, by ``sent`` alone: another copy from the host would wait for the network."""
    usual = Tensor.to
    masks = []

    def sent(tensor: Tensor, device: torch.device) -> Tensor:
        masks.append(tuple(tensor.shape))
        return torch.empty_like(tensor, device=device)

    def to(tensor: Tensor, *where: object, **how: object) -> Tensor:
        moved = usual(tensor, *where, **how)
        assert moved.device == tensor.device
        return moved

    for module in (loss_sums, losses):
        monkeypatch.setattr(module, "sent", sent)
    monkeypatch.setattr(Tensor, "to", to)
    outputs = annotated.shape[1]
    logits = torch.empty(2, outputs, 4, 6, 5, device="meta", requires_grad=True)
    classes = torch.empty(2, 4, 6, 5, dtype=torch.long, device="meta")
    deep_supervision_loss([logits], classes, False, target, annotated=annotated).backward()
    assert set(masks) == {(2, outputs), (2, outputs if target.regions else outputs - 1)}
    assert logits.grad is not None
