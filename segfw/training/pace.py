"""What a training step takes on this device, measured before the first one: it tells how many fit into a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from segfw.images.geometry import Shape
from segfw.planning.for_time import OVERHEAD
from segfw.training.checkpoint import TrainState
from segfw.training.step import Compute, empty_step, step_fits

MEASURED_SHARE = 0.005  # of a time budget, that a measured step may take
MEASURED_PATCHES = 2  # of a measured step
SHORTEST_S = 1e-6  # of a step, where a coarse clock has not moved


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of a step: a part that does not depend on its patches, and the rest by the number of their voxels."""

    fixed_s: float
    voxel_s: float

    def step_s(self, voxels: float) -> float:
        """Seconds of a step on so many voxels, of all its patches, and of what comes with it."""
        return (self.fixed_s + self.voxel_s * voxels) * OVERHEAD


def measured_pace(
    compute: Compute,
    state: TrainState,
    patches: Sequence[Shape],
    time_budget_s: float,
    now_s: Callable[[], float] = time.monotonic,
) -> Pace:
    """The pace of one rank, from steps on the smallest of ``patches`` and on a larger one.

    That is the largest of which a step is within MEASURED_SHARE of the time budget, as far as smaller ones tell: on a
    GPU small patches keep only part of it busy, and on a CPU large ones take minutes. All ranks measure the same steps,
    as the first one's clock decides. Where a single patch does not fit the device's error goes on.
    """
    ordered = sorted(patches, key=prod)
    few, few_s = _measured(compute, state, ordered[0], now_s)
    many = few
    many_s = few_s
    measured = ordered[0]
    while True:
        most_voxels = prod(measured) * MEASURED_SHARE * time_budget_s / many_s
        within = [patch for patch in ordered if prod(measured) < prod(patch) <= most_voxels]
        if not within:
            break
        measured = within[-1]
        many, many_s = _measured(compute, state, measured, now_s)
    if many <= few:  # none, or so little memory that fewer of the larger ones fit
        return Pace(fixed_s=0.0, voxel_s=many_s / many)
    voxel_s = max(many_s - few_s, 0.0) / (many - few)
    return Pace(fixed_s=max(many_s - voxel_s * many, 0.0), voxel_s=voxel_s)


def _measured(compute: Compute, state: TrainState, patch_size: Shape, now_s: Callable[[], float]) -> tuple[int, float]:
    """Voxels and seconds of forward and backward on a few patches; a first such step prepares, and is not timed."""
    batch = max(1, MEASURED_PATCHES // state.counters.parts)
    while not step_fits(compute, state, batch, patch_size):
        batch //= 2
    started_s = now_s()
    empty_step(compute, state, batch, patch_size)
    (seconds,) = compute.ranks.from_first(max(now_s() - started_s, SHORTEST_S))
    return batch * prod(patch_size), seconds
