"""Checkpoints: a step waits for a copy in memory alone, and what is on disk is whole, whatever the training does."""

import threading

import pytest
import torch

from builders.networks import spec
from builders.training import assert_same_weights, run
from segfw.base.errors import DiskFull
from segfw.base.records import UserError
from segfw.model.weights import load_tensors
from segfw.networks import build_network
from segfw.training import checkpoint, prepare
from segfw.training.checkpoint import CHECKPOINT_FILE, GOOD_FILE, Checkpoints, TrainState


@pytest.fixture
def state() -> TrainState:
    network = build_network(spec())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for parameter in network.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
    return TrainState(
        network=network, optimizer=optimizer, scaler=torch.amp.GradScaler("cpu", enabled=False), forward=network
    )


class SlowDisk:
    """Writes when it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.go_on = threading.Event()
        self.written = 0
        write = checkpoint.save_tensors

        def when_told(*given) -> None:
            assert self.go_on.wait(60)
            write(*given)
            self.written += 1

        monkeypatch.setattr(checkpoint, "save_tensors", when_told)


def test_the_training_goes_on_while_a_checkpoint_is_written_and_does_not_change_it(state, tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch)
    checkpoints = Checkpoints(tmp_path, is_first=True)
    wanted = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    state.counters.step = 7
    checkpoints.save(state, is_good=True)
    with torch.no_grad():  # steps, while the disk is busy
        for parameter in state.network.parameters():
            parameter.add_(1)
            state.optimizer.state[parameter]["momentum_buffer"].zero_()
    state.counters.step = 8
    assert not (tmp_path / CHECKPOINT_FILE).exists()
    disk.go_on.set()
    checkpoints.close()
    for name in (CHECKPOINT_FILE, GOOD_FILE):
        tensors, text = load_tensors(tmp_path / name)
        assert '"step": 7' in text["state"]
        for weight, tensor in wanted.items():
            assert torch.equal(tensors[f"weights/{weight}"], tensor)
        assert all((tensor == 1).all() for kind, tensor in tensors.items() if kind.startswith("momentum/"))


def test_the_next_checkpoint_waits_for_the_one_before(state, tmp_path, monkeypatch):
    """Else its copy would be taken into memory that is being written."""
    disk = SlowDisk(monkeypatch)
    checkpoints = Checkpoints(tmp_path, is_first=True)
    checkpoints.save(state)
    threading.Timer(0.05, disk.go_on.set).start()
    checkpoints.save(state)
    assert disk.written >= 1
    checkpoints.close()
    assert disk.written == 2


def test_what_the_state_no_longer_has_is_in_no_later_checkpoint(state, tmp_path):
    checkpoints = Checkpoints(tmp_path, is_first=True)
    checkpoints.save(state)
    checkpoints.finish()
    assert any(name.startswith("momentum/") for name in load_tensors(tmp_path / CHECKPOINT_FILE)[0])
    state.optimizer.state.clear()
    checkpoints.save(state)
    checkpoints.close()
    assert not any(name.startswith("momentum/") for name in load_tensors(tmp_path / CHECKPOINT_FILE)[0])


def test_both_files_are_one_until_the_next_checkpoint_comes(state, tmp_path):
    """A second name costs nothing; that of the good one keeps what it was when the last one is written anew."""
    checkpoints = Checkpoints(tmp_path, is_first=True)
    checkpoints.save(state, is_good=True)
    checkpoints.finish()
    assert (tmp_path / CHECKPOINT_FILE).samefile(tmp_path / GOOD_FILE)
    state.counters.step = 9
    checkpoints.save(state)
    checkpoints.close()
    assert '"step": 9' in load_tensors(tmp_path / CHECKPOINT_FILE)[1]["state"]
    assert '"step": 0' in load_tensors(tmp_path / GOOD_FILE)[1]["state"]


def test_where_a_disk_knows_no_second_names_the_good_one_is_a_copy(state, tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(checkpoint.os, "link", refused)
    checkpoints = Checkpoints(tmp_path, is_first=True)
    checkpoints.save(state, is_good=True)
    checkpoints.close()
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == (tmp_path / GOOD_FILE).read_bytes()
    assert not (tmp_path / CHECKPOINT_FILE).samefile(tmp_path / GOOD_FILE)


def test_what_the_writing_met_ends_the_training(prepared, tmp_path, monkeypatch):
    real = checkpoint.save_tensors
    calls = []

    def full(path, *given) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise DiskFull(f"{path}: the disk is full")
        real(path, *given)

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with pytest.raises(DiskFull, match="last.safetensors: the disk is full"):
        run(prepared, tmp_path, checkpoint_every_s=0.0)
    assert (tmp_path / CHECKPOINT_FILE).is_file()  # the one before


def test_from_cuda_they_are_copied_into_pinned_memory_without_waiting(state, monkeypatch):
    """Tensors of a made-up card note how they are copied; the event at the end is waited for where the file is made."""
    copies = []
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True))
    monkeypatch.setattr(torch, "empty_like", lambda like, **how: copies.append(how) or torch.zeros(like.shape))
    monkeypatch.setattr(torch.Tensor, "copy_", lambda kept, tensor, non_blocking: copies.append(non_blocking))
    waits = []

    class Stream:
        def record_event(self):
            return self

        def synchronize(self):
            waits.append("waited")

    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(checkpoint, "save_tensors", lambda *_: waits.append("written"))
    snapshot = checkpoint.Snapshots().take(state)
    assert copies[:2] == [{"device": "cpu", "pin_memory": True}, True]
    assert set(map(str, copies[1::2])) == {"True"}
    assert waits == []
    checkpoint.write_snapshot(None, snapshot)
    assert waits == ["waited", "written"]


def test_what_is_killed_before_its_first_step_goes_on_as_it_was_begun(prepared, tmp_path, monkeypatch):
    """Opening cases, and on CUDA compiling, take minutes."""
    whole = run(prepared, tmp_path / "whole", epochs=1)

    class Killed(Exception):
        pass

    def killed(*given, **more):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "prepare_forward", killed)
        with pytest.raises(Killed):
            run(prepared, tmp_path / "cut", epochs=1)
    assert_same_weights(whole, run(prepared, tmp_path / "cut", epochs=7, resume=True))


def test_a_folder_without_one_is_still_refused(prepared, tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint to resume from"):
        run(prepared, tmp_path, resume=True)
