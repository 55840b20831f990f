"""Two processes that train one network do what one process does with the joined batch."""

import os
import socket
from pathlib import Path

import pytest
import torch
from small_training import run, weights

from segfw.training.distributed import ALONE, Ranks, joined, launched_ranks
from segfw.training.runlog import read_metrics

SETTINGS = {"precision": "fp32", "epochs": 2, "batch_size": 4}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def train_as(rank: int, port: int, prepared: tuple, folder: Path, values: dict) -> None:
    """One of two processes; at the top of the module so that it can be sent to another process."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    ranks = launched_ranks()
    with joined(ranks, torch.device("cpu")):
        run(prepared, folder, ranks=ranks, **values)


def train_by_two(prepared: tuple, folder: Path, **values) -> Path:
    torch.multiprocessing.spawn(train_as, (free_port(), prepared, folder, values), nprocs=2)
    return folder


@pytest.mark.parametrize("batch_dice", [False, True])
def test_two_processes_train_like_one_with_the_joined_batch(prepared, tmp_path, batch_dice):
    values = SETTINGS | {"batch_dice": batch_dice}
    one = run(prepared, tmp_path / "one", **values)
    two = train_by_two(prepared, tmp_path / "two", **values)
    alone, together = (read_metrics(folder) for folder in (one, two))
    for name in ("train_loss", "val_loss", "val_dice"):
        assert [row[name] for row in together] == pytest.approx([row[name] for row in alone], abs=2e-4), name
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(two)[name], tensor, atol=2e-4, rtol=2e-3)


def test_a_batch_is_shared_out_without_gaps():
    ranks = [Ranks(rank=rank, count=3) for rank in range(3)]
    assert [each.joined_batch(7) for each in ranks] == [9, 9, 9]
    assert [list(each.samples(9)) for each in ranks] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert [each.share("abcdefg") for each in ranks] == ["adg", "be", "cf"]
    assert ALONE.joined_batch(7) == 7


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched_ranks() == ALONE
    assert ALONE.from_first(1.5, 2.0) == (1.5, 2.0)
