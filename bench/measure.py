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
LAST_LINES = 15  # of the output of a command that failed


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a command took. PSS counts memory that processes share once, RSS once for each of them."""

    wall_s: float
    peak_pss_gb: float
    peak_rss_gb: float
    most_processes: int
    samples: int
    stopped: str = ""  # why it was not let to its end


@dataclass(kw_only=True)
class _Peaks:
    """The largest values that were seen, in bytes."""

    pss: int = 0
    rss: int = 0
    processes: int = 0
    samples: int = 0

    def sample(self, pid: int) -> int:
        """Looks at a process and its descendants; returns their PSS of now."""
        pss, rss, processes = tree_memory(pid)
        self.pss = max(self.pss, pss)
        self.rss = max(self.rss, rss)
        self.processes = max(self.processes, processes)
        self.samples += 1
        return pss


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
    peaks = _Peaks()
    stopped = ""
    with log.open("w", encoding="utf-8") as output:
        start = time.perf_counter()
        child = subprocess.Popen(command, env=dict(env), stdout=output, stderr=subprocess.STDOUT)
        try:
            while child.poll() is None:
                sampling_began = time.perf_counter()
                pss = peaks.sample(child.pid)
                if most_gb is not None and pss > most_gb * GB:
                    stopped = f"more than {most_gb:g} GB"
                elif most_s is not None and time.perf_counter() - start > most_s:
                    stopped = f"longer than {most_s:g} s"
                if stopped:
                    end_tree(child)
                sampling_s = time.perf_counter() - sampling_began
                _wait(child, max(INTERVAL_S, sampling_s / MOST_SAMPLING))
            wall_s = time.perf_counter() - start
        finally:
            if child.poll() is None:
                end_tree(child)
    if child.returncode == -signal.SIGKILL and not stopped:
        stopped = "killed by the system"
    if child.returncode and not stopped:
        raise RuntimeError(failure(command, child.returncode, log))
    return Measured(
        wall_s=wall_s,
        peak_pss_gb=peaks.pss / GB,
        peak_rss_gb=peaks.rss / GB,
        most_processes=peaks.processes,
        samples=peaks.samples,
        stopped=stopped,
    )


def failure(command: Sequence[str], status: int, log: Path) -> str:
    """What is said of a command that failed: its exit status and the end of its output."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = "\n".join(lines[-LAST_LINES:])
    return f"{' '.join(command)} ended with {status}; the end of {log}:\n{last}"


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
    pss = 0
    rss = 0
    alive = 0
    for process in tree:
        try:
            info = process.memory_full_info()
        except (psutil.Error, OSError):  # ended meanwhile
            continue
        pss += getattr(info, "pss", info.rss)
        rss += info.rss
        alive += 1
    return pss, rss, alive


def _wait(child: subprocess.Popen, seconds: float) -> None:
    try:
        child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return
