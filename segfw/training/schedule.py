"""The length of a run and what depends on it: learning rate, batch, momentum, mirroring, and when an epoch ends."""

from __future__ import annotations

import time

from segfw.planning.rules import STEPS_PER_EPOCH
from segfw.training.checkpoint import TrainState
from segfw.training.settings import TrainSettings

LONGEST_MEMORY_STEPS = 100  # of SGD's momentum: 0.99, as published
SHORTEST_MEMORY_STEPS = 10  # momentum 0.9
PUBLISHED_RATE = 0.01
FEWEST_STEPS = 1000  # a time budget is rather spent on this many small batches than on fewer large ones
SMALLEST_BATCH = 2
MIRROR_FROM_VIEWS = 100  # patches per training case
EPOCHS_PER_BUDGET = 20  # with a time budget an epoch is at most this share of it


def learning_rate_for(momentum: float) -> float:
    """The published 0.01 at momentum 0.99, and higher with the root of what the gradients are averaged less.

    The step that SGD settles on is rate / (1 - momentum): the root is half-way, on a logarithmic scale, between
    keeping the rate and keeping that step.
    """
    return PUBLISHED_RATE * ((1 - momentum) * LONGEST_MEMORY_STEPS) ** 0.5


def warm_up(step: int, momentum: float) -> float:
    """Factor on the learning rate that rises to 1 within twice the memory of the momentum, while that fills."""
    return min(1.0, (step + 1) * (1 - momentum) / 2)


def poly_learning_rate(progress: float, initial: float, power: float = 0.9) -> float:
    """Polynomial decay from ``initial`` at progress 0 to zero at progress 1 (Isensee et al. 2021)."""
    return initial * max(0.0, 1 - progress) ** power


def fit_to_length(settings: TrainSettings, planned_batch: int, patch_s: float | None, cases: int) -> TrainSettings:
    """Fills in what depends on how long the run is: batch size, momentum and mirroring, unless they are given.

    ``patch_s`` is the measured time of a training step per patch, needed with a time budget. The published values are
    made for half a million patches; a run of a few thousand learns more from small batches, a momentum with a short
    memory and a higher rate to go with it, and images in the one orientation they are all brought into
    (docs/benchmarks.md).
    """
    batch = settings.batch_size or planned_batch
    if settings.time_budget_s:
        patches = settings.time_budget_s / patch_s
        if settings.batch_size is None:
            batch = max(min(SMALLEST_BATCH, planned_batch), min(planned_batch, int(patches / FEWEST_STEPS)))
    else:
        patches = settings.epochs * (settings.steps_per_epoch or STEPS_PER_EPOCH) * batch
    momentum = momentum_for(patches / batch) if settings.momentum is None else settings.momentum
    rate = learning_rate_for(momentum) if settings.learning_rate is None else settings.learning_rate
    mirroring = patches / cases >= MIRROR_FROM_VIEWS if settings.mirroring is None else settings.mirroring
    return settings.model_copy(
        update={"batch_size": batch, "momentum": momentum, "learning_rate": rate, "mirroring": mirroring}
    )


def momentum_for(total_steps: float) -> float:
    """Momentum whose memory is a hundredth of the run, between 0.9 and the published 0.99 (from 10 000 steps on).

    A memory of 100 steps is made for 250 000 of them: a run of a few hundred steps spends itself overshooting.
    """
    memory_steps = min(max(total_steps / 100, SHORTEST_MEMORY_STEPS), LONGEST_MEMORY_STEPS)
    return 1 - 1 / memory_steps


class Clock:
    """How far the run is: by steps, or by the time budget, of which validation and pauses are part as well."""

    def __init__(self, settings: TrainSettings, state: TrainState) -> None:
        self.settings, self.state = settings, state
        self.started = time.monotonic() - state.elapsed_s
        self.steps_per_epoch = settings.steps_per_epoch or STEPS_PER_EPOCH
        self.epoch_started = self.started

    def elapsed_s(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return time.monotonic() - self.started

    def progress(self) -> float:
        """0 at the start, 1 when training is over."""
        if self.settings.time_budget_s:
            return min(1.0, self.elapsed_s() / self.settings.time_budget_s)
        return min(1.0, self.state.step / (self.settings.epochs * self.steps_per_epoch))

    def left_s(self) -> float:
        """Seconds until the end at the pace so far."""
        done = self.progress()
        return self.elapsed_s() * (1 - done) / max(done, 1e-6)

    def epoch_is_over(self, steps: int) -> bool:
        """True after the epoch's steps or, with a time budget, its share of it."""
        if steps >= self.steps_per_epoch or self.progress() >= 1:
            return True
        budget = self.settings.time_budget_s
        return bool(budget) and time.monotonic() - self.epoch_started > budget / EPOCHS_PER_BUDGET
