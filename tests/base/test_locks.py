"""One process at a time: the second is told who is at it, or waits; the dead hold nothing."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from segfw.base.locks import Busy, claimed, held, in_turn

HOLD = """
import sys, time
from pathlib import Path
from segfw.base.locks import held
with held(Path(sys.argv[1]), "fold", ""):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_second_is_told_who_is_at_it_and_a_killed_process_holds_nothing(tmp_path):
    lock = tmp_path / "runs" / ".fold_0.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Busy) as busy, held(lock, "fold_0: is being trained", "wait"):
            pass
        said = rf"fold_0: is being trained by process {other.pid} on {socket.gethostname()} since 20\d\d-\d\d-\d\d "
        assert busy.match(said + r"\d\d:\d\d:\d\d\+\d\d:\d\d; wait$")
        other.send_signal(signal.SIGKILL)
        other.wait(60)
    with held(lock, "fold_0", "wait"), claimed(lock) as is_ours:
        assert not is_ours
    with claimed(lock) as is_ours:
        assert is_ours
    assert os.listdir(lock.parent) == [lock.name]


class Waiting(io.StringIO):
    """Standard error that tells when somebody said that it waits.

    capsys would lose what another thread writes between its reading and its emptying.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_said = threading.Event()

    def flush(self) -> None:
        if "waiting until it ends" in self.getvalue():
            self.is_said.set()


def test_in_turn_waits_and_says_for_whom(tmp_path, monkeypatch):
    said = Waiting()
    monkeypatch.setattr(sys, "stderr", said)
    lock = tmp_path / "lock"
    order = []
    is_held = threading.Event()
    may_end = threading.Event()

    def first():
        with in_turn(lock, "work: is being planned"):
            is_held.set()
            may_end.wait(60)
            order.append("first")

    def second():
        with in_turn(lock, "work: is being planned"):
            order.append("second")

    threads = [threading.Thread(target=job, daemon=True) for job in (first, second)]
    threads[0].start()
    assert is_held.wait(60)
    threads[1].start()
    assert said.is_said.wait(60)
    assert order == []
    may_end.set()
    for thread in threads:
        thread.join(60)
    assert order == ["first", "second"]
    assert f"work: is being planned by process {os.getpid()} on " in said.getvalue()
