"""Waits that have an end: what never comes fails a test with a sentence instead of holding it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence

LONGEST_WAIT_S = 600  # only a hang takes so long, however busy the machine is


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Looks again and again until ``condition`` holds; fails if ``process`` ends before, with what it said."""
    ends_at_s = time.monotonic() + LONGEST_WAIT_S
    while not condition():
        assert process is None or process.poll() is None, process.communicate(timeout=60)
        assert time.monotonic() < ends_at_s, f"did not come in {LONGEST_WAIT_S} s"
        time.sleep(0.0005)  # some tests kill a process within a stage that takes milliseconds


def run_together(threads: Sequence[threading.Thread]) -> None:
    """Starts all threads and waits until all have ended."""
    for thread in threads:
        thread.daemon = True  # one that hangs does not keep the tests from ending
        thread.start()
    for thread in threads:
        thread.join(LONGEST_WAIT_S)
        assert not thread.is_alive(), f"{thread.name} did not end in {LONGEST_WAIT_S} s"


def kill(process: subprocess.Popen[str]) -> None:
    """Ends a process as the system does that takes its memory, and waits until it is gone."""
    process.kill()
    process.communicate(timeout=60)
