"""Wall time and peak memory of a command with all the processes that it starts."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

GB = 1024**3
INTERVAL_S = 0.05
MOST_SAMPLING = 0.05  # share of the time: reading the size of large processes is not free, and must not slow them


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a command took. PSS counts memory that processes share once, RSS once for each of them."""

    wall_s: float
    peak_pss_gb: float
    peak_rss_gb: float
    most_processes: int
    samples: int
    stopped: str = ""  # why it was not let to its end


def measure(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    most_gb: float | None = None,
    most_s: float | None = None,
) -> Measured:
    """Runs a command to its end, its output in ``log``; raises RuntimeError with the last lines if it fails.

    With more than ``most_gb`` of PSS, or after ``most_s``, its whole tree of processes is ended, and ``stopped`` says
    so; also if the system killed it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    pss = rss = most = samples = 0
    stopped = ""
    with log.open("w", encoding="utf-8") as output:
        start = time.perf_counter()
        child = subprocess.Popen(command, env=dict(env), stdout=output, stderr=subprocess.STDOUT)
        try:
            while child.poll() is None:
                began = time.perf_counter()
                now_pss, now_rss, processes = tree_memory(child.pid)
                pss, rss, most, samples = max(pss, now_pss), max(rss, now_rss), max(most, processes), samples + 1
                if most_gb is not None and now_pss > most_gb * GB:
                    stopped = f"more than {most_gb:g} GB"
                elif most_s is not None and time.perf_counter() - start > most_s:
                    stopped = f"longer than {most_s:g} s"
                if stopped:
                    end_tree(child)
                _wait(child, max(INTERVAL_S, (time.perf_counter() - began) / MOST_SAMPLING))
            wall_s = time.perf_counter() - start
        finally:
            if child.poll() is None:
                end_tree(child)
    if child.returncode == -signal.SIGKILL and not stopped:
        stopped = "killed by the system"
    if child.returncode and not stopped:
        last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}; the end of {log}:\n{last}")
    return Measured(
        wall_s=wall_s,
        peak_pss_gb=pss / GB,
        peak_rss_gb=rss / GB,
        most_processes=most,
        samples=samples,
        stopped=stopped,
    )


def end_tree(child: subprocess.Popen) -> None:
    """Kills a process and its descendants, and waits for it."""
    try:
        tree = psutil.Process(child.pid).children(recursive=True)
    except psutil.Error:
        tree = []
    for process in (child, *tree):
        try:
            process.kill()
        except psutil.Error:  # ended meanwhile
            continue
    child.wait()


def tree_memory(pid: int) -> tuple[int, int, int]:
    """Sums over a process and its descendants: PSS (RSS where the system does not tell it) and RSS in bytes, number."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0, 0, 0
    pss = rss = alive = 0
    for process in tree:
        try:
            info = process.memory_full_info()
        except (psutil.Error, OSError):  # ended meanwhile
            continue
        pss, rss, alive = pss + getattr(info, "pss", info.rss), rss + info.rss, alive + 1
    return pss, rss, alive


def _wait(child: subprocess.Popen, seconds: float) -> None:
    try:
        child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return
