"""Steps that a CUDA device records and replays, with its own streams, memory, random numbers and driver."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from builders.card import CARD, NEEDS_A_CARD
from builders.losses import REGIONS
from builders.networks import three_stages
from builders.steps_taken import (
    NETWORKS,
    STEPS,
    Step,
    batches,
    compute_for,
    momentum_of,
    plain,
    rate_of,
    state_for,
    taken,
)
from builders.training import run, weights
from segfw.base.device import held_to_memory
from segfw.base.records import GIGABYTE
from segfw.model.training_record import read_metrics
from segfw.networks.fused_losses import fused_sums
from segfw.networks.losses import LABELS, LOSSES, alone
from segfw.training.captured_steps import WARM_UP_STEPS, CapturedSteps, with_launch_share
from segfw.training.checkpoint import TrainState
from segfw.training.step import train_step

pytestmark = NEEDS_A_CARD

LARGE = (64, 64, 64)  # patches beside whose memory that of weights is nothing


@pytest.fixture(autouse=True)
def _the_same_algorithms_in_every_step():
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
    torch.cuda.empty_cache()


def assert_close(state: TrainState, other: TrainState) -> None:
    """But for the order of sums, which a card does not keep."""
    pairs = [(state.network.state_dict()[name], weight) for name, weight in other.network.state_dict().items()]
    for found, wanted in pairs + list(zip(momentum_of(state), momentum_of(other), strict=True)):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def drawn(network, **how) -> list[tuple[Tensor, Tensor]]:
    return list(batches(network, device=CARD, **how))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_replayed_steps_train_what_plain_steps_train(name, precision):
    """Other batches and another rate in every step; weights follow those of plain steps, each loss keeps its value."""
    network = NETWORKS[name]
    compute = compute_for(network, device=CARD, precision=precision)
    captured = CapturedSteps(compute, "on")
    replayed = state_for(network, CARD)
    losses = taken(captured.step, replayed, drawn(network))
    assert captured.is_replaying
    usual = state_for(network, CARD)
    wanted = taken(plain(compute), usual, drawn(network))
    loose = {} if precision == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(torch.stack(losses), torch.stack(wanted), **({"rtol": 1e-3, "atol": 1e-4} | loose))
    assert len({float(loss) for loss in losses}) == STEPS
    if not loose:
        assert_close(replayed, usual)


def test_a_float16_run_scales_skips_and_grows_while_steps_are_replayed():
    """Whose sixth batch, the third replay, gives gradients that are no numbers; the scale doubles after two others."""
    network = three_stages()
    compute = compute_for(network, device=CARD, precision=torch.float16)
    captured = CapturedSteps(compute, "on")
    state = state_for(network, CARD)
    state.scaler = torch.amp.GradScaler("cuda", init_scale=4.0, growth_interval=2)
    scales = []
    for number, (image, truth) in enumerate(drawn(network, steps=8), 1):
        captured.step(state, image * torch.inf if number == 6 else image, truth)
        scales.append(state.scaler.get_scale())
    assert captured.is_replaying
    assert scales == [4, 8, 8, 16, 16, 8, 8, 16]
    assert all(weight.isfinite().all() for weight in state.network.parameters())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("target", [LABELS, REGIONS])
def test_the_kernels_of_the_losses_are_recorded_too(target, loss):
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed (pip install triton), so no kernel was run")
    network = three_stages(classes=3)
    sums = fused_sums(CARD, target)
    assert sums is not None
    made = LOSSES[loss](SimpleNamespace(batch_dice=False), target, alone, sums)
    compute = compute_for(network, target, CARD, loss=made)
    captured = CapturedSteps(compute, "on")
    states = []
    for steps in (captured.step, plain(compute)):
        states.append(state_for(network, CARD))
        taken(steps, states[-1], drawn(network, classes=3 if target is LABELS else 4))
    assert captured.is_replaying
    assert_close(*states)


@pytest.mark.parametrize("has_kernels", [False, True])
@pytest.mark.parametrize("target", [LABELS, REGIONS])
def test_a_step_on_cases_annotated_in_part_waits_for_nothing(target, has_kernels):
    if has_kernels and find_spec("triton") is None:
        pytest.skip("Triton is not installed (pip install triton), so no kernel was run")
    network = three_stages(classes=3)
    sums = fused_sums(CARD, target) if has_kernels else None
    loss = LOSSES["dice-topk"](SimpleNamespace(batch_dice=False), target, alone, sums)
    compute = compute_for(network, target, CARD, loss=loss)
    state = state_for(network, CARD)
    image, truth = drawn(network, steps=1)[0]
    known = torch.tensor([[True, False, True], [True, True, True]])
    train_step(compute, state, image, truth, known)  # makes what is made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(compute, state, image, truth, known)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(weight.isfinite().all() for weight in state.network.parameters())


def test_batches_in_parts_and_patches_of_another_size_are_recorded_anew():
    network = three_stages()
    compute = compute_for(network, device=CARD)
    captured = CapturedSteps(compute, "on")
    states = []
    for steps in (captured.step, plain(compute)):
        state = state_for(network, CARD)
        taken(steps, state, drawn(network, steps=5))
        state.counters.parts = 2
        taken(steps, state, drawn(network, steps=5))
        taken(steps, state, drawn(network, steps=5, patch=(8, 16, 24)))
        states.append(state)
    assert captured.is_replaying
    assert_close(*states)


def test_what_a_recorded_step_holds_is_given_back():
    """To the card, where no other step finds it taken; the graph's gradients are gone as well."""
    network = three_stages()
    captured = CapturedSteps(compute_for(network, device=CARD), "on")
    state = state_for(network, CARD)
    given = drawn(network, steps=1, patch=LARGE) * (WARM_UP_STEPS + 1)
    taken(captured.step, state, given)
    assert captured.is_replaying
    torch.cuda.empty_cache()  # of what plain steps had
    held = torch.cuda.memory_reserved(CARD)
    captured.forget(state)
    assert torch.cuda.memory_reserved(CARD) < held / 2
    assert all(weight.grad is None for weight in state.network.parameters())


def test_a_step_that_asks_for_a_value_leaves_plain_steps_and_a_card_that_works(capsys):
    """Its memory is there again, random numbers are drawn, and another step can be recorded."""
    network = three_stages()
    usual = compute_for(network, device=CARD)

    def looks_at_a_value(outputs, truth) -> Tensor:
        loss = usual.loss(outputs, truth)
        return loss if float(loss.detach()) > -100 else loss * 0

    state = state_for(network, CARD)
    captured = CapturedSteps(compute_for(network, device=CARD, loss=looks_at_a_value), "on")
    given = drawn(network, steps=1, patch=LARGE) * (WARM_UP_STEPS + 1)
    taken(captured.step, state, given)
    assert "CUDA graphs are not usable here, going on without them" in capsys.readouterr().out
    assert not captured.is_replaying
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.randn(4, device=CARD).isfinite().all()
    state.optimizer.zero_grad(set_to_none=True)
    held = torch.cuda.memory_reserved(CARD)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved(CARD) < held / 2
    again = CapturedSteps(usual, "on")
    taken(again.step, state, given)
    assert again.is_replaying


def test_a_replay_is_asked_for_after_the_work_before_it_and_before_the_work_behind_it():
    """Weights that are set just before a replay are those that it reads; what is read behind it is what it wrote."""
    network = three_stages()
    compute = compute_for(network, device=CARD)
    image, truth = drawn(network, steps=1)[0]
    results = []
    for is_replayed in (True, False):
        state = state_for(network, CARD)
        captured = CapturedSteps(compute, "on" if is_replayed else "off")
        first = [tensor.clone() for tensor in (*state.network.parameters(), *momentum_of(state))]
        for number in range(STEPS):
            with torch.no_grad():
                for tensor, before in zip((*state.network.parameters(), *momentum_of(state)), first, strict=True):
                    tensor.copy_(before)
            state.optimizer.param_groups[0]["lr"] = rate_of(number)
            captured.step(state, image * (1 + number), truth)
            results.append([weight.detach().clone() for weight in state.network.parameters()])
    for replayed, usual in zip(results[:STEPS], results[STEPS:], strict=True):
        for found, wanted in zip(replayed, usual, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_what_auto_goes_by_is_a_share(capsys):
    network = three_stages()
    compute = compute_for(network, device=CARD)
    state = state_for(network, CARD)
    image, truth = drawn(network, steps=1)[0]
    step = lambda: train_step(compute, state, image, truth)  # noqa: E731
    step()
    _, share = with_launch_share(step, CARD)
    assert 0 < share <= 1
    captured = CapturedSteps(compute, "auto")
    taken(captured.step, state, drawn(network))
    told = capsys.readouterr().out
    assert captured.is_replaying == ("--cuda-graphs auto: not for patches of 8 x 16 x 16" not in told)


def test_a_whole_run_whose_batches_and_checkpoints_are_copied_while_steps_are_replayed(
    prepared, tmp_path, monkeypatch, capsys
):
    """Patches grow, validation lies between its epochs, and a checkpoint is written after every step."""
    usual: Step = CapturedSteps.step
    replays = []

    def step(self, *given):
        loss = usual(self, *given)
        replays.append(self.is_replaying)
        return loss

    monkeypatch.setattr(CapturedSteps, "step", step)
    how = {"network": three_stages(in_channels=1, classes=3), "epochs": 3, "steps_per_epoch": 12, "patches": "grow"}
    how |= {"device": "cuda", "precision": "fp32", "checkpoint_every_s": 0.0}
    losses = {}
    for wanted in ("on", "off"):
        folder = run(prepared, tmp_path / wanted, cuda_graphs=wanted, **how)
        losses[wanted] = [row["train_loss"] for row in read_metrics(folder)]
        assert all(weight.isfinite().all() for weight in weights(folder).values())
    assert "CUDA graphs" not in capsys.readouterr().out
    assert sum(replays) > 12
    assert losses["on"] == pytest.approx(losses["off"], abs=0.02)


def test_a_training_is_refused_memory_beyond_its_part_of_the_card_and_only_while_it_lasts():
    torch.cuda.empty_cache()
    limit_gb = torch.cuda.memory_reserved(CARD) / GIGABYTE + 0.25
    half_a_gb = int(0.5 * GIGABYTE)
    with held_to_memory(CARD, limit_gb):
        torch.empty(half_a_gb // 8, dtype=torch.uint8, device=CARD)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(half_a_gb, dtype=torch.uint8, device=CARD)
    torch.empty(half_a_gb, dtype=torch.uint8, device=CARD)
