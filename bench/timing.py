"""Two ways to do the same, timed in turn in one run, so that a machine that slows down slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def alternate(baseline: Callable[[], object], ours: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Median seconds of both, measured in turn after one warm-up each."""
    baseline_s: list[float] = []
    ours_s: list[float] = []
    for repetition in range(repetitions + 1):
        for function, seconds in ((baseline, baseline_s), (ours, ours_s)):
            started = time.perf_counter()
            function()
            if repetition > 0:
                seconds.append(time.perf_counter() - started)
    return statistics.median(baseline_s), statistics.median(ours_s)


def report(what: str, baseline_name: str, baseline_s: float, ours_s: float) -> None:
    """One line: what, medians, ratio."""
    print(f"{what}: {baseline_name} {baseline_s:.3f} s, segfw {ours_s:.3f} s, {baseline_s / ours_s:.1f} times faster")
