"""Where the cases lie (device, memory or disk) and how batches get to the device before they are asked for.

Threads, not worker processes: decompression and copies release the interpreter, so there is no worker to die, hang or
fill shared memory.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segfw.data.parallel import free_memory_bytes
from segfw.data.preprocess import Preprocessing
from segfw.data.store import CaseArrays, load_stored, open_case, stored_bytes
from segfw.records import UserError
from segfw.training.batches import CutBatch

MEMORY_SHARE = 0.4  # of the free memory that a data set may fill to be kept whole
DEVICE_SHARE = 0.25  # of a GPU's free memory, most of which the step needs
BATCHES_AHEAD = 3


def open_cases(
    folder: Path, case_ids: Sequence[str], how: Preprocessing, device: torch.device | None = None
) -> list[CaseArrays]:
    """Opens preprocessed cases: whole on a CUDA ``device`` if they are small, in memory if they fit, or on disk.

    Raises UserError if a case is not preprocessed, or was for another plan.
    """
    for case_id in case_ids:
        if load_stored(folder, case_id).preprocessing != how:
            raise UserError(
                f"{folder}: {case_id} was preprocessed for another plan; run segfw plan-and-preprocess again"
            )
    size = sum(stored_bytes(folder, list(case_ids)))
    fits = size < MEMORY_SHARE * free_memory_bytes()
    cases = [open_case(folder, case_id, in_memory=fits) for case_id in case_ids]
    if device is None or device.type != "cuda" or size > DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return cases
    return [on_device(case, device) for case in cases]


def on_device(case: CaseArrays, device: torch.device) -> CaseArrays:
    """The case with its arrays as tensors on ``device``; the lists of voxels stay on the host, where they are drawn."""

    def moved(array: np.ndarray) -> Tensor:
        values = np.ascontiguousarray(array[:])
        return torch.from_numpy(values.astype(np.int16) if values.dtype == np.uint16 else values).to(device)

    names = [name for name in ("image", "classes", "previous") if getattr(case, name, None) is not None]
    return replace(case, **{name: moved(getattr(case, name)) for name in names})


class Feeder:
    """Runs ``cut`` for the next steps in threads, a few ahead; ``stalled_s`` is how long the trainer had to wait.

    For a CUDA ``device`` the threads also fill pinned memory and copy from it, on a stream of their own: while the
    step computes, the next batches arrive.
    """

    def __init__(
        self,
        cut: Callable[[int], CutBatch],
        first_step: int,
        workers: int = 2,
        device: torch.device | None = None,
    ) -> None:
        self.stalled_s = 0.0
        self._cut = cut
        self._device = device
        self._stream = torch.cuda.Stream(device) if device is not None and device.type == "cuda" else None
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self._next_step = first_step
        self._coming: deque = deque()

    def __iter__(self) -> Iterator[CutBatch]:
        while True:
            while len(self._coming) < BATCHES_AHEAD:
                self._coming.append(self._pool.submit(self._make, self._next_step))
                self._next_step += 1
            asked = time.perf_counter()
            batch, arrived = self._coming.popleft().result()
            self.stalled_s += time.perf_counter() - asked
            if arrived is not None:
                self._take_over(batch, arrived)
            yield batch

    def _make(self, step: int) -> tuple[CutBatch, torch.cuda.Event | None]:
        if self._stream is None:
            return self._cut(step), None
        with torch.cuda.stream(self._stream):  # also the current device; boxes of cases kept there are cut on it
            batch = self._cut(step).to(self._device)
            return batch, self._stream.record_event()

    def _take_over(self, batch: CutBatch, arrived: torch.cuda.Event) -> None:
        """The trainer's stream waits for the copies, not the trainer; and memory is not used anew before it is done."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(arrived)
        for patch in batch.patches:
            for tensor in patch.tensors():
                tensor.record_stream(stream)

    def close(self) -> None:
        """Ends the threads; batches that were cut ahead are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Stopwatch:
    """Seconds spent inside of ``with watch:``, by the clock of a CUDA device if that does the work.

    Its events are read only when ``read_s`` is called, so that no step waits.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._device = device
        self._seconds = 0.0
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> None:
        self._started = self._now()

    def __exit__(self, *_: object) -> None:
        ended = self._now()
        if self._is_cuda:
            self._spans.append((self._started, ended))
        else:
            self._seconds += ended - self._started

    def _now(self) -> float | torch.cuda.Event:
        if not self._is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def read_s(self) -> float:
        """Seconds since the last call; waits for the device if it is still busy. For the end of an epoch."""
        for started, ended in self._spans:
            ended.synchronize()
            self._seconds += started.elapsed_time(ended) / 1000
        seconds, self._seconds, self._spans = self._seconds, 0.0, []
        return seconds
