"""Where the cases lie (device, memory or disk) and how batches get to the device before they are asked for.

Threads, not worker processes: there is no worker to die, hang or fill shared memory, and one copy of the data. Copies
and NumPy release the interpreter; python-blosc2 holds it while it reads a box from disk.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segfw.base.records import GIGABYTE, UserError
from segfw.base.resources import free_memory_bytes
from segfw.grid.preprocess import Preprocessing
from segfw.grid.store import CaseArrays, load_stored, open_case, stored_bytes
from segfw.training.batches import CutBatch

MEMORY_SHARE = 0.4  # of the free memory that a data set may fill to be kept whole
DEVICE_SHARE = 0.25  # of a GPU's free memory, most of which the step needs
STEP_MARGIN = 0.2  # of it, for what the step's count does not know
BATCHES_AHEAD = 3


def open_cases(
    folder: Path,
    case_ids: Sequence[str],
    preprocessing: Preprocessing,
    device: torch.device | None = None,
    step_gb: float = 0.0,
    previous: Path | None = None,
    sharers: int = 1,
    limit_gb: float | None = None,
) -> list[CaseArrays]:
    """Opens preprocessed cases: whole on a CUDA ``device`` if they are small, else as many as fit in memory.

    The others stay on disk. ``step_gb`` is what a training step will take of the device; ``previous`` is the folder of
    what the first stage of a cascade finds; ``sharers`` is the number of processes that open them on this machine;
    ``limit_gb`` what the training keeps to of the device.
    Raises UserError if a case is not preprocessed, or was for another plan.
    """
    for case_id in case_ids:
        if load_stored(folder, case_id).preprocessing != preprocessing:
            raise UserError(
                f"{folder}: {case_id} was preprocessed for another plan; run segfw plan-and-preprocess again"
            )
    sizes = list(stored_bytes(folder, list(case_ids), previous))
    size = sum(sizes)
    if device is not None and size < spare_device_bytes(device, step_gb, limit_gb):
        return [
            on_device(open_case(folder, case_id, in_memory=True, previous=previous), device) for case_id in case_ids
        ]
    room_bytes = MEMORY_SHARE * free_memory_bytes() / sharers
    cases = []
    for case_id, case_bytes in zip(case_ids, sizes):
        # Those that are left to the disk hold the interpreter when they are read: the fewer, the less a step waits.
        fits = case_bytes < room_bytes
        room_bytes -= case_bytes if fits else 0
        cases.append(open_case(folder, case_id, in_memory=fits, previous=previous))
    return cases


def spare_device_bytes(device: torch.device, step_gb: float, limit_gb: float | None = None) -> float:
    """Bytes of a CUDA device that cases may fill: DEVICE_SHARE of what is free, and STEP_MARGIN must be left besides
    the step. None of any other device.
    """
    if device.type != "cuda":
        return 0.0
    free: float = torch.cuda.mem_get_info(device)[0]
    if limit_gb is not None:
        free = min(free, limit_gb * GIGABYTE - torch.cuda.memory_reserved(device))
    return min(DEVICE_SHARE * free, (1 - STEP_MARGIN) * free - step_gb * GIGABYTE)


def on_device(case: CaseArrays, device: torch.device) -> CaseArrays:
    """The case with its image and mask as tensors on ``device``.

    What is drawn from stays on the host: the lists of voxels, and the previous stage's labels with their components.
    """

    def moved(array: np.ndarray) -> Tensor:
        values = np.ascontiguousarray(array[:])
        return torch.from_numpy(values.astype(np.int16) if values.dtype == np.uint16 else values).to(device)

    return replace(case, image=moved(case.image), classes=moved(case.classes))


@lru_cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all feeders: memory that was used on a stream is kept for it."""
    return torch.cuda.Stream(device)


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
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.stalled_s = 0.0
        self._now_s = now_s
        self._cut = cut
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device is not None and device.type == "cuda":
            self._stream = _copy_stream(device)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self._next_step = first_step
        self._coming: deque = deque()

    def __iter__(self) -> Iterator[CutBatch]:
        while True:
            while len(self._coming) < BATCHES_AHEAD:
                self._coming.append(self._pool.submit(self._make, self._next_step))
                self._next_step += 1
            asked = self._now_s()
            batch, arrived = self._coming.popleft().result()
            self.stalled_s += self._now_s() - asked
            if arrived is not None:
                self._take_over(batch, arrived)
            yield batch

    def go_on_with(self, cut: Callable[[int], CutBatch], next_step: int) -> None:
        """Cuts by another function from ``next_step`` on; what was cut ahead by the one before is dropped."""
        for coming in self._coming:
            coming.cancel()
        self._coming.clear()
        self._cut = cut
        self._next_step = next_step

    def _make(self, step: int) -> tuple[CutBatch, torch.cuda.Event | None]:
        if self._stream is None or self._device is None:
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
