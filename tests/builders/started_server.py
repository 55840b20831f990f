"""A server of segfw in a process of its own, from when it has said its address until it is ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
STARTS_WITHIN_S = 120
ENDS_WITHIN_S = 30


@contextmanager
def started_server(
    words: Sequence[str], address: re.Pattern[str], limits: Any = None
) -> Iterator[tuple[subprocess.Popen[str], re.Match[str]]]:
    """Calls ``python -m WORDS``, such as segfw review, and gives the process and what ``address`` matches of its words.

    ``limits`` is run in the process before it starts.
    """
    paths = os.pathsep.join((str(TESTS.parent), str(TESTS)))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        preexec_fn=limits,
    )
    try:
        yield process, _said(process, " ".join(words[:2]), address)
    finally:
        process.terminate()  # so that it lets go of its temporary files
        try:
            process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(ENDS_WITHIN_S)
        if process.stdout is not None:
            process.stdout.close()


def _said(process: subprocess.Popen[str], program: str, address: re.Pattern[str]) -> re.Match[str]:
    said = []
    ends_at_s = time.monotonic() + STARTS_WITHIN_S
    assert process.stdout is not None
    while time.monotonic() < ends_at_s:
        line = process.stdout.readline()
        said.append(line)
        found = address.search(line)
        if found:
            return found
        if not line and process.poll() is not None:
            break
    raise AssertionError(f"{program} did not start: {''.join(said)}")
