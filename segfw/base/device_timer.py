"""How long a part of the training takes, by the clock of the device that does the work."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


class DeviceTimer:
    """Seconds spent inside of ``with timer:``, by the clock of a CUDA device if that does the work.

    Its events are read only when ``read_s`` is called, so that no step waits.
    """

    def __init__(self, device: torch.device, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._device = device
        self._now_s = now_s  # the host's clock
        self._seconds = 0.0
        self._started_s = 0.0
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []  # by the clock of a CUDA device

    def __enter__(self) -> None:
        if self._device.type == "cuda":
            started = torch.cuda.Event(enable_timing=True)
            started.record(torch.cuda.current_stream(self._device))
            self._spans.append((started, torch.cuda.Event(enable_timing=True)))
        else:
            self._started_s = self._now_s()

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self._spans[-1][1].record(torch.cuda.current_stream(self._device))
        else:
            self._seconds += self._now_s() - self._started_s

    def read_s(self) -> float:
        """Seconds since the last call; waits for the device if it is still busy. For the end of an epoch."""
        for started, ended in self._spans:
            ended.synchronize()
            self._seconds += started.elapsed_time(ended) / 1000
        seconds = self._seconds
        self._seconds = 0.0
        self._spans = []
        return seconds
