"""Section ``feed``: a training loop with its data path, from memory, from the device and from disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from bench.gpu.steps import SegfwStep, segfw_step
from bench.gpu.timing import synchronize
from bench.gpu.visit import Problem, Visit, attempt
from segfw.base.array_files import open_array, save_array
from segfw.base.device_timer import DeviceTimer
from segfw.grid.store import CaseArrays
from segfw.training.batches import Batches
from segfw.training.feeding import Feeder, on_device
from segfw.training.step import train_step_that_fits

WARM_UP = 5  # steps that no clock reads
CASES = 4
FEW_CORES = 4
BLOCKS = 40  # random values along each axis, which are enlarged to an image


def feeding(visit: Visit, found: dict, until_left_s: float) -> None:
    """ms a step, and the shares of it that are augmentation and waiting for data; with all cores and with four."""
    problem = visit.problem()
    step = segfw_step(visit, problem, compiled=visit.on_cuda)
    all_cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        for place, cases in _cases(visit, Path(folder)).items():
            core_counts = [all_cores]
            if visit.on_cuda and place != "device" and all_cores > FEW_CORES:
                core_counts.append(FEW_CORES)
            for cores in core_counts:
                with only_cores(cores):
                    name = f"{place}, {cores} cores"
                    attempt(found, name, partial(_trained, visit, problem, step, cases))


def _cases(visit: Visit, folder: Path) -> dict[str, list[CaseArrays]]:
    """The same image and mask as cases in memory, on the device and as files."""
    edge = visit.pick(320, 48)
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(1, BLOCKS, BLOCKS, BLOCKS))
    image = ndimage.zoom(coarse, (1, *(edge / BLOCKS,) * 3), order=1).astype(np.float16)
    image += rng.normal(size=image.shape).astype(np.float16) * np.float16(0.1)
    classes = (image[0] > 0.8).astype(np.uint8)
    save_array(folder / "image", image)
    save_array(folder / "classes", classes)
    foreground = {1: np.flatnonzero(classes).astype(np.uint32)[:10000]}

    in_memory = CaseArrays(image=image, classes=classes, foreground=foreground, previous=None)
    return {
        "memory": [in_memory] * CASES,
        "device": [on_device(in_memory, visit.device)] * CASES,
        "disk": [
            CaseArrays(
                image=open_array(folder / "image"),
                classes=open_array(folder / "classes"),
                foreground=foreground,
                previous=None,
            )
            for _ in range(CASES)
        ],
    }


def _trained(visit: Visit, problem: Problem, step: SegfwStep, cases: Sequence[CaseArrays]) -> dict[str, float]:
    steps = visit.pick(60, 2)
    batches = Batches(
        cases=cases,
        patch_size=problem.patch_size,
        batch_size=problem.batch_size,
        seed=0,
        stream=0,
        augmentation="device",
        mirror_axes=(0, 1, 2),
        foreground_share=0.33,
    )
    feeder = Feeder(batches.cut, 0, device=visit.device)
    timer = DeviceTimer(visit.device)
    began = 0.0
    stalled_before_s = 0.0
    try:
        for number, cut in zip(range(WARM_UP + steps), feeder):
            if number == WARM_UP:
                synchronize(visit.device)
                began = time.perf_counter()
                stalled_before_s = feeder.stalled_s
                timer.read_s()  # sets it to zero
            with timer:
                image, classes = batches.finish(cut, visit.device)
            train_step_that_fits(step.compute, step.state, image, classes)
        synchronize(visit.device)
        total_s = time.perf_counter() - began
        return {
            "step_ms": round(total_s / steps * 1e3, 1),
            "augmentation_share": round(timer.read_s() / total_s, 3),
            "stalled_share": round((feeder.stalled_s - stalled_before_s) / total_s, 3),
        }
    finally:
        feeder.close()


@contextlib.contextmanager
def only_cores(count: int) -> Iterator[None]:
    """All threads of this process on the first ``count`` cores, and on all again afterwards (Linux)."""
    usable = sorted(os.sched_getaffinity(0))
    _set_cores(usable[:count])
    try:
        yield
    finally:
        _set_cores(usable)


def _set_cores(cores: Sequence[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            os.sched_setaffinity(int(thread), cores)
