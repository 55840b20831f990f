"""Damaged files of every kind end in a value or in one sentence: a short campaign, always of the same files.

`make fuzz` tries as many as 10 minutes allow.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

from fuzz import bad_input, campaign
from fuzz.campaign import FAULTS, READ, REFUSED, Result, in_worker
from fuzz.mutations import cut, flipped, json_edited
from fuzz.targets import TARGETS
from segfw.base.device import keep_freed_pages
from segfw.base.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
needs_fork = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="workers are forked and limited as on Linux"
)


@needs_fork
def test_no_damaged_file_is_more_than_refused():
    """Each kind of file three times. In a process of its own: one that has used threads cannot be forked safely."""
    command = [sys.executable, "-m", "fuzz", "--inputs", str(3 * len(TARGETS)), "--seed", "14"]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    total = done.stdout.splitlines()[-1].split()
    assert total[0] == "all"
    read, refused, *faults = (int(count) for count in total[1:])
    assert faults == [0] * len(FAULTS)
    assert read + refused == 3 * len(TARGETS)
    assert refused > read  # most damages are known as such


def _no_such(message: str) -> object:
    raise UserError(message)


@needs_fork
@pytest.mark.parametrize(
    "read, outcome",
    [
        (lambda: 3, READ),
        (lambda: _no_such("/a: is damaged; copy it again"), REFUSED),
        (lambda: _no_such("/a: is damaged\nand more"), "no sentence"),
        (lambda: _no_such("damaged"), "no sentence"),  # which file?
        (lambda: {}["a"], "traceback"),
        (lambda: np.ones(3 * 1024**3, np.uint8), "traceback"),  # of a MemoryError
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "died"),
        (lambda: time.sleep(60), "hang"),
        (lambda: [None for _ in iter(int, 1)], "hang"),
    ],
)
def test_a_worker_tells_every_outcome(read, outcome, monkeypatch):
    monkeypatch.setattr(campaign, "LIMIT_S", 20.0 if outcome != "hang" else 1.0)
    monkeypatch.setattr(campaign, "LIMIT_CPU_S", 20 if outcome != "hang" else 1)
    assert in_worker(read).outcome == outcome


@needs_fork
@pytest.mark.parametrize("freed", [0, 200])
def test_memory_of_a_worker_is_measured(freed):
    """Also where this process has freed memory that it keeps, as after trainings in it."""
    keep_freed_pages()
    blocks = [np.ones(1024**2, np.uint8) for _ in range(freed)]
    del blocks
    before_mb = in_worker(lambda: None).memory_mb
    assert 250 < in_worker(lambda: np.ones(300 * 1024**2, np.uint8).sum()).memory_mb - before_mb < 500


def test_voxels_that_were_not_stored_are_a_fault():
    target = TARGETS[".png"]
    whole = bytes(range(64))
    read = Result(READ, "other", 0.0, 0.0)
    for mutation, damaged in (("a bit", flipped(whole, Random(1))), ("a cut", cut(whole, Random(1)))):
        assert campaign._judged(target, mutation, whole, damaged, read, "as stored").outcome == "other voxels"
        assert campaign._judged(target, mutation, whole, damaged, read, "other").outcome == READ
    assert campaign._judged(TARGETS[".nii"], "a bit", whole, flipped(whole, Random(1)), read, "").outcome == READ


def test_the_same_seed_makes_the_same_damage():
    content = b'{"a": [1, 2, {"b": 3}], "c": "d"}'
    first = [json_edited(content, Random(f"1 {number}")) for number in range(50)]
    assert first == [json_edited(content, Random(f"1 {number}")) for number in range(50)]
    assert len(set(first)) > 25


def test_the_page_on_bad_input_is_what_segfw_says(capsys):
    """Where a message was reworded: python tests/fuzz/bad_input.py"""
    assert bad_input.PAGE.read_text(encoding="utf-8") == bad_input.page()
