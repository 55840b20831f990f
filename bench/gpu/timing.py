"""Milliseconds and peak memory of a call on a CUDA device; on the CPU by the host's clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

GIB = 2**30


def synchronize(device: torch.device) -> None:
    """Waits for all that the device was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_cached_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def call_ms(call: Callable[[], object], repeats: int, device: torch.device, *, warm_up: int = 3) -> dict[str, float]:
    """Median and longest milliseconds of a call, after ``warm_up`` calls that no clock reads."""
    for _ in range(warm_up):
        call()
    synchronize(device)
    if device.type == "cuda":
        found = _ms_by_events(call, repeats, device)
    else:
        found = _ms_by_clock(call, repeats)
    return {"median_ms": round(statistics.median(found), 3), "max_ms": round(max(found), 3)}


def _ms_by_events(call: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        call()
        mark.record()
    synchronize(device)
    return [before.elapsed_time(after) for before, after in zip(marks, marks[1:])]


def _ms_by_clock(call: Callable[[], object], repeats: int) -> list[float]:
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        found.append((time.perf_counter() - began) * 1e3)
    return found


def call_ms_and_gib(
    call: Callable[[], object], repeats: int, device: torch.device, *, warm_up: int = 3
) -> dict[str, float]:
    """The same with the peak of all tensors and of what the allocator held, in GiB."""
    reset_peak(device)
    return call_ms(call, repeats, device, warm_up=warm_up) | peak_gib(device)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> dict[str, float]:
    """Since :func:`reset_peak`; nothing on the CPU, where PyTorch does not count."""
    if device.type != "cuda":
        return {}
    return {
        "tensors_gib": round(torch.cuda.max_memory_allocated(device) / GIB, 2),
        "held_gib": round(torch.cuda.max_memory_reserved(device) / GIB, 2),
    }
