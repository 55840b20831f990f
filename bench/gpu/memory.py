"""Section ``memory``: what is counted for a training step beside what it takes on the card."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from bench.gpu.timing import GIB
from bench.gpu.visit import Visit, attempt
from bench.published_plan import CLASSES
from segfw.images.geometry import Shape
from segfw.planning.fitting import Grid, choose_by_memory
from segfw.planning.memory import measure_step, step_cost
from segfw.planning.presets import preset_called

# preset: GB that it plans for
BUDGETS_GB = {
    "plain": (8, 24),
    "resenc-m": (8, 12),
    "resenc-l": (24, 70),
    "segresnet": (12,),
    "mednext": (12,),
    "swin-unetr": (12,),
}
# median shape: spacing_mm
BODIES = {
    (300, 300, 300): (1.0, 1.0, 1.0),
    (512, 512): (1.0, 1.0),
}


def memory(visit: Visit, found: dict, until_left_s: float) -> None:
    """For each preset, budget and body: patch, batch, GiB counted, GiB of tensors, GiB held by the allocator."""
    if not visit.on_cuda:
        found["plain 2 GB 2d"] = counted_and_taken("plain", 2, (64, 64), visit.device)
        return
    for preset, budgets_gb in BUDGETS_GB.items():
        for memory_gb in budgets_gb:
            for shape in BODIES:
                if visit.seconds_left() < until_left_s:
                    return
                name = f"{preset} {memory_gb} GB {len(shape)}d"
                attempt(found, name, partial(counted_and_taken, preset, memory_gb, shape, visit.device))


def counted_and_taken(
    preset: str,
    memory_gb: float,
    shape: Shape,
    device: torch.device,
    *,
    spacing_mm: Sequence[float] | None = None,
    steps: int = 2,
) -> dict:
    """The plan of a preset for a body of ``shape``: GiB counted for a step, and taken by so many real ones on CUDA."""
    began = time.monotonic()
    grid = Grid(
        spacing_mm=tuple(spacing_mm or (1.0,) * len(shape)),
        median_shape=shape,
        dataset_voxels=float(np.prod(shape)) * 500,
        channels=1,
        classes=CLASSES,
        published_classes=CLASSES,
    )
    choice = choose_by_memory(grid, preset_called(preset), memory_gb=memory_gb)
    counted_gib = step_cost(choice.network).peak_bytes(choice.patch_size, choice.batch_size) / GIB
    found = {
        "patch": list(choice.patch_size),
        "batch": choice.batch_size,
        "counted_gib": round(counted_gib, 2),
    }
    if device.type == "cuda":
        taken = measure_step(choice.network, choice.patch_size, choice.batch_size, device, memory_gb, steps=steps)
        if taken is None:
            found["out_of_memory"] = True
        else:
            found["tensors_gib"] = round(taken.tensors_gb, 2)
            found["held_gib"] = round(taken.held_gb, 2)
            found["taken_of_counted"] = round(taken.tensors_gb / counted_gib, 3)
    return found | {"seconds": round(time.monotonic() - began, 1)}
