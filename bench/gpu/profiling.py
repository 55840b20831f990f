"""Section ``profile``: the kernels that a step spends most time in."""

from __future__ import annotations

from torch.profiler import ProfilerActivity, profile

from bench.gpu.steps import segfw_step
from bench.gpu.timing import synchronize
from bench.gpu.visit import Visit

STEPS = 3
KERNELS = 40


def profiling(visit: Visit, found: dict, until_left_s: float) -> None:
    """Rows of ms a step, calls a step, name, of the step as a training takes it: compiled on CUDA."""
    step = segfw_step(visit, visit.problem(), compiled=visit.on_cuda).call
    for _ in range(4):
        step()
    synchronize(visit.device)
    with profile(activities=[ProfilerActivity.CUDA if visit.on_cuda else ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            step()
        synchronize(visit.device)
    rows = []
    for event in profiler.key_averages():
        total_us = event.self_device_time_total if visit.on_cuda else event.self_cpu_time_total
        rows.append([round(total_us / 1e3 / STEPS, 3), event.count // STEPS, event.key[:90]])
    rows.sort(reverse=True)
    found["total_ms"] = round(sum(row[0] for row in rows), 2)
    found["kernels"] = rows[:KERNELS]
