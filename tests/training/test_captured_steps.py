"""Steps that are recorded and replayed train what plain steps train, bit for bit: recorded here without a card."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from builders.losses import REGIONS
from builders.networks import spec, three_stages
from builders.recorded import StandIn
from builders.steps_taken import NETWORKS, STEPS, assert_same, batches, compute_for, plain, rate_of, state_for, taken
from builders.training import assert_same_weights, request, run, weights
from segfw.networks.losses import LABELS, LOSSES
from segfw.training import captured_steps, epochs, prepare
from segfw.training.batches import Batches
from segfw.training.captured_steps import WARM_UP_STEPS, CapturedSteps, why_not_captured
from segfw.training.checkpoint import CHECKPOINT_FILE, load_checkpoint, save_checkpoint
from segfw.training.kept_weights import kept_file
from segfw.training.step import is_finite


@pytest.fixture
def graphs(monkeypatch):
    stand_in = StandIn()
    stand_in(monkeypatch)
    return stand_in


def test_plain_steps_go_ahead_on_the_stream_that_is_recorded(graphs):
    """Each after what was asked for on the usual stream, which goes on after it; replays are asked for there."""
    network = spec()
    usual = compute_for(network).loss
    streams = []
    captured = CapturedSteps(
        compute_for(network, loss=lambda *given: streams.append(graphs.current) or usual(*given)), "on"
    )
    taken(captured.step, state_for(network), batches(network))
    assert len(streams) == WARM_UP_STEPS + 1
    assert len(set(streams)) == 1
    assert streams[0] is not graphs.default
    assert streams[0].waited == graphs.default.waited == WARM_UP_STEPS
    assert graphs.current is graphs.default


@pytest.mark.parametrize("name", NETWORKS)
def test_replayed_steps_train_what_plain_steps_train(graphs, name):
    """Other batches and another rate in every step: losses, weights and momentum are the same to the last bit."""
    network = NETWORKS[name]
    compute = compute_for(network)
    captured = CapturedSteps(compute, "on")
    replayed = state_for(network)
    losses = taken(captured.step, replayed, batches(network))
    assert graphs.journal == ["recorded"] + ["replayed"] * (STEPS - WARM_UP_STEPS)
    usual = state_for(network)
    wanted = taken(plain(compute), usual, batches(network))
    assert torch.equal(torch.stack(losses), torch.stack(wanted))
    assert len({float(loss) for loss in losses}) == STEPS  # each keeps its own
    assert_same(replayed, usual)
    rates = [group["lr"] for group in replayed.optimizer.param_groups]
    assert rates == [rate_of(STEPS - 1)]
    assert type(rates[0]) is float  # again, and no tensor of that value


def test_regions_and_a_slower_encoder_are_replayed_too(graphs):
    """Two groups of weights, each with a rate of its own."""
    network = three_stages(classes=3)
    compute = compute_for(network, REGIONS)
    states = []
    for steps in (CapturedSteps(compute, "on").step, plain(compute)):
        state = state_for(network)
        parameters = list(state.network.parameters())
        state.optimizer.param_groups[0]["params"] = parameters[:4]
        state.optimizer.add_param_group({"params": parameters[4:]})
        for number, (image, truth) in enumerate(batches(network, classes=4)):
            for group, factor in zip(state.optimizer.param_groups, (0.25, 1)):
                group |= {"lr": factor * rate_of(number), "momentum": 0.9}
            steps(state, image, truth)
        states.append(state)
    assert "replayed" in graphs.journal
    assert_same(*states)


def test_a_rate_of_nothing_changes_nothing_in_a_replay(graphs):
    network = spec()
    captured = CapturedSteps(compute_for(network), "on")
    state = state_for(network)
    taken(captured.step, state, batches(network, WARM_UP_STEPS + 1))
    before = {name: weight.clone() for name, weight in state.network.state_dict().items()}
    state.optimizer.param_groups[0]["lr"] = 0.0
    captured.step(state, *next(batches(network, 1)))
    assert captured.is_replaying
    assert all(torch.equal(weight, before[name]) for name, weight in state.network.state_dict().items())


def test_batches_in_parts_patches_of_another_size_and_another_momentum_are_recorded_anew(graphs):
    """What the one before held is freed first."""
    network = spec()
    compute = compute_for(network)
    states = []
    for steps in (CapturedSteps(compute, "on").step, plain(compute)):
        state = state_for(network)
        taken(steps, state, batches(network, 5))
        state.counters.parts = 2
        taken(steps, state, batches(network, 5))
        taken(steps, state, batches(network, 5, patch=(8, 16, 24)))
        state.optimizer.param_groups[0]["momentum"] = 0.5
        taken(steps, state, batches(network, 5, patch=(8, 16, 24)))
        states.append(state)
    once = ["recorded", "replayed", "replayed"]
    assert graphs.journal == [*once, *["waited", "reset", *once] * 3]
    assert_same(*states)


def test_a_float16_run_scales_skips_and_grows_while_steps_are_replayed(graphs):
    """Whose sixth batch, the third replay, gives gradients that are no numbers; the scale doubles after two others."""
    network = spec()
    compute = compute_for(network)
    states = []
    scales = []
    for steps in (CapturedSteps(compute, "on").step, plain(compute)):
        state = state_for(network)
        state.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
        for number, (image, truth) in enumerate(batches(network, 8), 1):
            steps(state, image * torch.inf if number == 6 else image, truth)
            scales.append(state.scaler.get_scale())
        states.append(state)
    assert graphs.journal == ["recorded"] + ["replayed"] * 5
    assert scales == [4, 8, 8, 16, 16, 8, 8, 16] * 2
    assert is_finite(states[0].network)
    assert_same(*states)


def test_a_run_goes_back_to_a_checkpoint_and_on(graphs, tmp_path):
    """Whose momentum is put elsewhere; where that is not told, a replay would go on with the old one."""
    network = spec()
    compute = compute_for(network)
    captured = CapturedSteps(compute, "on")
    states = []
    for steps, forget in ((captured.step, captured.forget), (plain(compute), lambda state: None)):
        state = state_for(network)
        taken(steps, state, batches(network, 5))
        save_checkpoint(tmp_path / CHECKPOINT_FILE, state)
        taken(steps, state, batches(network, 3))
        forget(state)
        load_checkpoint(tmp_path / CHECKPOINT_FILE, state)
        taken(steps, state, batches(network, 6))
        states.append(state)
    assert graphs.journal.count("recorded") == 2
    assert_same(*states)


# ---- where it does not work ----


def usual_loss():
    return LOSSES["dice-ce"](SimpleNamespace(batch_dice=True), LABELS)


def looks_at_a_value(outputs, truth):
    loss = usual_loss()(outputs, truth)
    return loss if float(loss.detach()) > -100 else loss * 0


def runs_out_of_memory(graphs):
    def loss(outputs, truth):
        if graphs.is_open:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return usual_loss()(outputs, truth)

    return loss


@pytest.mark.parametrize(
    "fault, said, freed",
    [
        ("value", "CUDA error: operation failed due to a previous error during capture", "freed"),
        ("memory", "CUDA out of memory. Tried to allocate 2.00 GiB", "reset"),
        ("memory after unscaling", "CUDA out of memory", "reset"),
    ],
)
def test_what_cannot_be_recorded_leaves_plain_steps(graphs, monkeypatch, capsys, fault, said, freed):
    """After one line, with the memory of the recording given back and the stream set back."""
    clip = torch.nn.utils.clip_grad_norm_

    def clip_if_there_is_memory(*given):
        if graphs.is_open and fault == "memory after unscaling":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return clip(*given)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip_if_there_is_memory)
    network = spec()
    compute = compute_for(
        network, loss={"value": looks_at_a_value, "memory": runs_out_of_memory(graphs)}.get(fault, usual_loss())
    )
    captured = CapturedSteps(compute, "on")
    state = state_for(network)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    taken(captured.step, state, batches(network))
    told = capsys.readouterr().out
    assert told == f"CUDA graphs are not usable here, going on without them: {said}\n"
    assert not captured.is_replaying
    assert freed in graphs.journal
    assert not graphs.is_open
    assert graphs.gives_random_numbers
    assert graphs.current is graphs.default
    usual = state_for(network)
    usual.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    taken(plain(compute_for(network)), usual, batches(network))
    assert_same(state, usual)


def test_steps_are_replayed_where_asking_for_them_takes_their_time(graphs, capsys):
    """By a clock that a card's stands in for: 9 of 10 seconds, then in larger patches 4 of 10."""
    network = spec()
    times = iter([0.0, 9.0, 10.0, 20.0, 24.0, 30.0])
    captured = CapturedSteps(compute_for(network), "auto", now_s=lambda: next(times))
    state = state_for(network)
    taken(captured.step, state, batches(network, 5))
    assert captured.is_replaying
    taken(captured.step, state, batches(network, 5, patch=(8, 16, 24)))
    assert not captured.is_replaying
    assert graphs.journal.count("recorded") == 1
    assert capsys.readouterr().out == (
        "--cuda-graphs auto: not for patches of 8 x 16 x 24, whose steps the host asks for in 40% of the time that "
        "they take\n"
    )


def test_memory_of_the_stream_that_is_not_recorded_after_all_is_given_back(graphs, monkeypatch):
    """Once, after the third step: plain ones take theirs anew, and a card would hold both."""
    freed = []
    monkeypatch.setattr(captured_steps, "free_memory", lambda compute, state: freed.append(state))
    times = iter([0.0, 4.0, 10.0])
    captured = CapturedSteps(compute_for(spec()), "auto", now_s=lambda: next(times))
    state = state_for(spec())
    taken(captured.step, state, batches(spec(), WARM_UP_STEPS - 1))
    assert freed == []
    taken(captured.step, state, batches(spec(), 3))
    assert freed == [state]
    assert not captured.is_replaying


def test_work_between_steps_gets_what_a_recorded_step_holds_where_memory_runs_out(graphs, capsys):
    """Steps are plain from then on, and train as ever; without a recorded step the error is the caller's."""
    network = spec()
    compute = compute_for(network, limit_gb=4.0)
    captured = CapturedSteps(compute, "on")
    state = state_for(network)
    asked = []

    def work() -> str:
        asked.append(captured.is_replaying)
        if captured.is_replaying or len(asked) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    with pytest.raises(torch.OutOfMemoryError):
        captured.with_room(state, work)
    given = list(batches(network))
    taken(captured.step, state, given[:6])
    assert captured.with_room(state, work) == "done"
    assert all(weight.grad is None for weight in state.network.parameters())  # which lay in its memory
    assert asked == [False, True, False]
    assert graphs.journal == ["recorded", *["replayed"] * 3, "waited", "reset"]
    said = "out of the 4 GB of --gpu-limit-gb: what the recorded step holds is given back, going on without CUDA graphs"
    assert capsys.readouterr().out == f"{said}\n"
    for step in given[6:]:
        captured.step(state, *step)
    assert captured.with_room(state, work) == "done"
    assert graphs.journal.count("recorded") == 1
    usual = state_for(network)
    taken(plain(compute), usual, given[:6])
    for step in given[6:]:
        plain(compute)(usual, *step)
    assert_same(state, usual)


def test_other_errors_of_work_between_steps_are_the_callers(graphs):
    captured = CapturedSteps(compute_for(spec()), "on")
    state = state_for(spec())
    taken(captured.step, state, batches(spec(), WARM_UP_STEPS + 1))

    def broken() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        captured.with_room(state, broken)
    assert captured.is_replaying


def test_nothing_is_asked_of_cuda_where_steps_are_plain(monkeypatch):
    def fails(*given, **how):
        pytest.fail("CUDA was asked")

    for name in ("Stream", "CUDAGraph", "graph", "stream", "synchronize", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, fails)
    network = spec()
    compute = compute_for(network)
    states = [state_for(network), state_for(network)]
    taken(CapturedSteps(compute, "off").step, states[0], batches(network))
    taken(plain(compute), states[1], batches(network))
    assert_same(*states)


def test_batches_that_are_annotated_in_part_are_plain_steps(graphs):
    network = spec()
    captured = CapturedSteps(compute_for(network), "on")
    state = state_for(network)
    for image, truth in batches(network):
        captured.step(state, image, truth, torch.tensor([[True, True, False], [True, False, True]]))
    assert graphs.journal == []


@pytest.mark.parametrize(
    "changed, how, reason",
    [
        ({"device": torch.device("cpu")}, {}, "there is no CUDA device here"),
        ({"ranks": SimpleNamespace(count=2)}, {}, "several processes exchange gradients in the middle of a step"),
        ({"forward": "compiled"}, {}, "the network is compiled"),
        ({}, {"is_own": True}, "a network or a loss of your own may do something else in every step"),
        ({}, {"is_annotated_in_part": True}, "cases that are annotated in part"),
        ({"hip": "6.4"}, {}, "on AMD's cards nobody has looked into them"),
        ({}, {}, ""),
    ],
)
def test_where_steps_cannot_be_replayed_it_is_said_why(monkeypatch, changed, how, reason):
    monkeypatch.setattr(torch.version, "hip", changed.get("hip"))
    compute = SimpleNamespace(
        device=changed.get("device", torch.device("cuda")), ranks=changed.get("ranks", SimpleNamespace(count=1))
    )
    state = SimpleNamespace(network="network", forward=changed.get("forward", "network"))
    found = why_not_captured(compute, state, **how)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


# ---- whole runs ----


@pytest.fixture
def as_on_a_card(graphs, monkeypatch):
    """Runs on the CPU replay steps, and all rates are numbers that float32 holds."""
    monkeypatch.setattr(prepare, "why_not_captured", lambda *given, **how: "")
    usual = epochs.learning_rate
    monkeypatch.setattr(epochs, "learning_rate", lambda *given: float(np.float32(usual(*given))))
    return graphs


def test_a_run_of_replayed_steps_ends_like_a_plain_one(prepared, tmp_path, as_on_a_card, capsys):
    """With validation between its epochs, patches that grow and weights that are kept on the way, to be averaged."""
    network = three_stages(in_channels=1, classes=3)
    how = {"network": network, "epochs": 3, "steps_per_epoch": 12, "patches": "grow", "keep_at": (0.5,)}
    replayed = run(prepared, tmp_path / "on", cuda_graphs="on", **how)
    stages = capsys.readouterr().out.count("patches of ") + 1
    assert stages > 1
    assert as_on_a_card.journal.count("recorded") == stages
    assert as_on_a_card.journal.count("reset") == stages - 1
    assert as_on_a_card.journal.count("replayed") == 36 - WARM_UP_STEPS * stages
    usual = run(prepared, tmp_path / "off", **how)
    assert as_on_a_card.journal.count("recorded") == stages
    assert_same_weights(replayed, usual)
    assert kept_file(replayed, 0.5).read_bytes() == kept_file(usual, 0.5).read_bytes()


def test_a_run_that_was_killed_between_replays_ends_like_an_undisturbed_one(
    prepared, tmp_path, as_on_a_card, monkeypatch
):
    how = {"cuda_graphs": "on", "checkpoint_every_s": 0.0, "steps_per_epoch": 5}
    whole = run(prepared, tmp_path / "whole", **how)
    usual = CapturedSteps.step
    steps = []

    class Killed(Exception):
        pass

    def step(self, *given):
        steps.append(self.is_replaying)
        if len(steps) == 8:
            raise Killed
        return usual(self, *given)

    monkeypatch.setattr(CapturedSteps, "step", step)
    with pytest.raises(Killed):
        run(prepared, tmp_path / "cut", **how)
    assert steps[-1]
    monkeypatch.setattr(CapturedSteps, "step", usual)
    assert_same_weights(whole, run(prepared, tmp_path / "cut", resume=True, **how))


def test_a_run_that_diverges_in_a_replay_goes_back_like_a_plain_one(prepared, tmp_path, as_on_a_card, monkeypatch):
    """In its third epoch the loss of a replay is said to be no number; nothing else of the run knows of replays."""
    usual = CapturedSteps.step
    how = {"steps_per_epoch": 5, "epochs": 4}
    folders = []
    for wanted in ("on", "off"):
        steps = []

        def step(self, *given, steps=steps):
            steps.append(self.is_replaying)
            loss = usual(self, *given)
            return loss * torch.nan if len(steps) == 12 else loss

        monkeypatch.setattr(CapturedSteps, "step", step)
        folders.append(run(prepared, tmp_path / wanted, cuda_graphs=wanted, checkpoint_every_s=0.0, **how))
        assert steps[11] == (wanted == "on")
    assert as_on_a_card.journal.count("recorded") == 2
    assert_same_weights(*folders)


@pytest.mark.parametrize("owner, name, replays", [(epochs, "_judged", 2), (Batches, "finish", 3)])
def test_a_run_whose_memory_the_recorded_step_holds_goes_on_plainly(
    owner, name, replays, prepared, tmp_path, as_on_a_card, monkeypatch
):
    """The first epoch's validation, or the augmentation of the second epoch's second batch, does not fit beside it."""
    usual = getattr(owner, name)
    failed = []

    def work(*given):
        if as_on_a_card.journal.count("replayed") == replays and not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(*given)

    how = {"steps_per_epoch": 5, "epochs": 3}
    wanted = run(prepared, tmp_path / "off", **how)
    monkeypatch.setattr(owner, name, work)
    assert_same_weights(run(prepared, tmp_path / "on", cuda_graphs="on", **how), wanted)
    assert failed
    assert as_on_a_card.journal == ["recorded", *["replayed"] * replays, "waited", "reset"]


def test_without_a_card_a_run_says_so_and_trains_as_ever(prepared, tmp_path, capsys):
    short = {"epochs": 1, "steps_per_epoch": 2}
    asked = run(prepared, tmp_path / "asked", cuda_graphs="auto", **short)
    assert "--cuda-graphs auto: there is no CUDA device here; going on without them\n" in capsys.readouterr().out
    usual = run(prepared, tmp_path / "usual", **short)
    assert "--cuda-graphs" not in capsys.readouterr().out
    assert all(torch.equal(weight, weights(usual)[name]) for name, weight in weights(asked).items())


@pytest.mark.parametrize("wanted, is_compiled", [("on", False), ("auto", True), ("off", True)])
def test_steps_that_are_replayed_are_not_compiled(prepared, tmp_path, monkeypatch, wanted, is_compiled):
    monkeypatch.setattr(prepare, "compiling_pays", lambda *given, **how: True)
    asked = request(prepared, tmp_path, cuda_graphs=wanted)
    compute = SimpleNamespace(device=torch.device("cuda"), precision=torch.float32)
    assert prepare._fitted(asked, compute, None).compile == is_compiled
