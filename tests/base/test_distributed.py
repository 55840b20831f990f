"""Two processes that train one network do what one process does with the joined batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from builders.training import run, weights
from segfw.base.ranks import ALONE, Ranks, joined, launched_ranks
from segfw.evaluation.metrics import Scores
from segfw.model.training_record import read_metrics
from segfw.planning.splits import Splits
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

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
        assert not TELLS_THREADS or threads_of_the_group() > 0  # otherwise the next line proves nothing
    assert threads_of_the_group() == 0  # one that is left can abort the process at its end


TELLS_THREADS = Path("/proc/self/task").is_dir()


def threads_of_the_group() -> int:
    """Threads of this process in which gloo works, by the name that PyTorch gives them."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return names.count("pt_gloo_runloop")


def fail_as(rank: int, port: int, prepared: tuple, folder: Path) -> None:
    """One of two processes whose training ends with an error, which is kept."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    ranks = launched_ranks()

    def augment(image, classes, rng):
        raise RuntimeError(f"made to fail with {threads_of_the_group()} threads")

    threads = "[1-9]" if TELLS_THREADS else "0"  # otherwise the line after it proves nothing
    with pytest.raises(RuntimeError, match=f"with {threads}") as kept, joined(ranks, torch.device("cpu")):
        run(prepared, folder, ranks=ranks, augment=augment, **SETTINGS)
    assert threads_of_the_group() == 0
    assert kept.traceback


def test_an_error_that_is_kept_does_not_keep_the_group(prepared, tmp_path):
    torch.multiprocessing.spawn(fail_as, (free_port(), prepared, tmp_path), nprocs=2)


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


def test_torchrun_trains_and_validates_together(make_raw, tmp_path):
    raw = make_raw(cases=6)
    work = tmp_path / "work"
    plan_and_preprocess(raw, work, configurations=("2d",), device="cpu")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    command += ["-m", "segfw", "train", str(work), "2d", "0", "--device", "cpu"]

    def call(*options: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, env=environment)

    done = call("--batch-size", "3", "--epochs", "2", "--steps-per-epoch", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1  # only the first process reports
    assert done.stdout.count("next: segfw predict") == 1
    assert "batch 4" in done.stdout  # three do not divide by two
    fold = work / "runs" / "2d" / "fold_0"
    record = json.loads((fold / "run.json").read_text())
    assert record["sessions"][0]["processes"] == 2
    expected = set(Splits.load(work / "splits.json").fold("0").validation)
    assert set(Scores.load(fold / "validation" / "scores.json").cases) == expected
    assert len(expected) == 2  # one for each process
    longer = call("--extend", "1")
    assert longer.returncode == 0, longer.stderr
    assert longer.stdout.count("epoch 3/3") == 1


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
