"""The length of a run and what depends on it: learning rate, batch, momentum, mirroring, and when an epoch ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from segfw.base.options import METADATA_KEY, OptionText
from segfw.base.records import UserError
from segfw.planning.published import STEPS_PER_EPOCH
from segfw.training.checkpoint import Counters
from segfw.training.settings import TrainSettings

LONGEST_MEMORY_STEPS = 100  # of SGD's momentum: 0.99, as published
SHORTEST_MEMORY_STEPS = 10  # momentum 0.9
PUBLISHED_RATE = 0.01
FEWEST_STEPS = 1000  # a time budget is rather spent on this many small batches than on fewer large ones
SMALLEST_BATCH = 2
MIRROR_FROM_VIEWS = 100  # patches per training case
COOL_DOWN_SHARE = 0.15  # of the steps so far
EPOCHS_PER_BUDGET = 20  # with a time budget an epoch is at most this share of it
FEWEST_GAIN = 1e-3  # of the smoothed Dice; less is no progress

SomeSettings = TypeVar("SomeSettings", bound=TrainSettings)


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


def _decided(help: str, **limits: float) -> Any:
    """A field that has no default, because a run that is under way has a value for it."""
    return field(metadata={METADATA_KEY: OptionText(help=help, name=None, limits=limits)})


@dataclass(frozen=True, kw_only=True)
class FittedSettings(TrainSettings):
    """Settings of a run that is under way: nothing that a step needs is left to be decided."""

    batch_size: int = _decided("patches per step, of all processes together", ge=1)
    learning_rate: float = _decided("at the start", gt=0)
    momentum: float = _decided("of SGD", ge=0, lt=1)
    mirroring: bool = _decided("mirrored images too")


def fit_to_length(
    settings: TrainSettings,
    planned_batch: int,
    patch_s: float | None,
    cases: int,
    joined_batch: Callable[[int], int] = int,
) -> FittedSettings:
    """Fills in what depends on how long the run is: batch size, momentum and mirroring, unless they are given.

    ``patch_s`` is the measured time of a training step per patch, needed with a time budget. The published values are
    made for half a million patches; a run of a few thousand learns more from small batches, a momentum with a short
    memory and a higher rate to go with it, and images in the one orientation they are all brought into
    (docs/benchmarks.md). ``joined_batch`` makes a batch one that several ranks can share.
    """
    batch = settings.batch_size or planned_batch
    if settings.time_budget_s and patch_s is None:
        raise ValueError("with a time budget the time of a step must have been measured")
    if settings.time_budget_s and patch_s is not None:
        patches = settings.time_budget_s / patch_s
        if settings.batch_size is None:
            most = min(planned_batch, int(patches / FEWEST_STEPS))
            batch = max(min(SMALLEST_BATCH, planned_batch), most)
        batch = joined_batch(batch)
    else:
        batch = joined_batch(batch)
        patches = settings.epochs * (settings.steps_per_epoch or STEPS_PER_EPOCH) * batch
    momentum = momentum_for(patches / batch) if settings.momentum is None else settings.momentum
    rate = learning_rate_for(momentum) if settings.learning_rate is None else settings.learning_rate
    mirroring = patches / cases >= MIRROR_FROM_VIEWS if settings.mirroring is None else settings.mirroring
    decided = {"batch_size": batch, "momentum": momentum, "learning_rate": rate, "mirroring": mirroring}
    return FittedSettings(**vars(settings) | decided)


def extended(
    settings: SomeSettings, counters: Counters, *, epochs: int | None = None, seconds: float | None = None
) -> SomeSettings:
    """Settings of a run that goes on for so much longer from where it is; its learning rate rises anew.

    It rises to where the schedule would be, had the run been made for the new length. Raises UserError where a run that
    was made for a time is to be extended by epochs, or the reverse.
    """
    if (settings.time_budget_s is None) == (epochs is None):
        kind = "a time, such as --extend 30m" if settings.time_budget_s else "epochs, such as --extend 100"
        raise UserError(f"--extend must give {kind}: that is how this run was made")
    counters.warm_from = counters.step
    counters.cool_from = None
    counters.best_smoothed = None  # patience begins anew
    counters.best_epoch = counters.epoch
    if epochs is not None:
        return replace(settings, epochs=counters.epoch + epochs)
    return replace(settings, time_budget_s=counters.elapsed_s + (seconds or 0.0))


def momentum_for(total_steps: float) -> float:
    """Momentum whose memory is a hundredth of the run, between 0.9 and the published 0.99 (from 10 000 steps on).

    A memory of 100 steps is made for 250 000 of them: a run of a few hundred steps spends itself overshooting.
    """
    memory_steps = min(max(total_steps / 100, SHORTEST_MEMORY_STEPS), LONGEST_MEMORY_STEPS)
    return 1 - 1 / memory_steps


def learning_rate(settings: FittedSettings, counters: Counters, progress: float) -> float:
    """The rate of the next step: polynomial, or linear to zero once the run is cooling down; warm-up and rescues."""
    if counters.cool_from is None:
        rate = poly_learning_rate(progress, settings.learning_rate)
    else:
        rate = counters.cool_rate * max(0.0, 1 - (counters.step - counters.cool_from) / counters.cool_steps)
    return rate * counters.rate_factor * warm_up(counters.step - counters.warm_from, settings.momentum)


def cool_down(settings: FittedSettings, counters: Counters, progress: float) -> bool:
    """Begins to bring the rate down to zero within a share of the steps so far; False where the end is nearer anyway.

    A run that just stops leaves weights that were last moved by large steps; those of a short decay are nearly as
    good as those of a schedule that was made for this length (Hägele et al. 2024).
    """
    steps = max(1, round(COOL_DOWN_SHARE * counters.step))
    left = counters.step * (1 - progress) / max(progress, 1e-6)
    if counters.cool_from is not None or steps >= left:
        return False
    counters.cool_rate = poly_learning_rate(progress, settings.learning_rate)
    counters.cool_from = counters.step
    counters.cool_steps = steps
    return True


class Clock:
    """How far the run is: by steps, or by the time budget, of which validation and pauses are part as well."""

    def __init__(
        self, settings: TrainSettings, counters: Counters, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.counters = counters
        self.steps_per_epoch = settings.steps_per_epoch or STEPS_PER_EPOCH
        self._now_s = now_s
        now = now_s()
        self._started = now - counters.elapsed_s
        self._epoch_started = now - counters.epoch_s

    def begin_epoch(self) -> None:
        """The next epoch's time is counted from now on."""
        self._epoch_started = self._now_s()

    def elapsed_s(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self._now_s() - self._started

    def epoch_s(self) -> float:
        """Seconds of the epoch that is under way."""
        return self._now_s() - self._epoch_started

    def progress(self) -> float:
        """0 at the start, 1 when the schedule is over."""
        if self.settings.time_budget_s:
            return min(1.0, self.elapsed_s() / self.settings.time_budget_s)
        return min(1.0, self.counters.step / (self.settings.epochs * self.steps_per_epoch))

    def is_over(self) -> bool:
        """True at the end of the schedule, or of the cooling down that cut it short."""
        counters = self.counters
        is_cool = counters.cool_from is not None and counters.step >= counters.cool_from + counters.cool_steps
        return is_cool or self.progress() >= 1

    def left_s(self) -> float:
        """Seconds until the end at the pace so far."""
        counters = self.counters
        elapsed_s = self.elapsed_s()
        done = self.progress()
        left_s = elapsed_s * (1 - done) / max(done, 1e-6)
        if counters.cool_from is None:
            return left_s
        cooling_steps = counters.cool_from + counters.cool_steps - counters.step
        return min(left_s, elapsed_s / max(1, counters.step) * cooling_steps)

    def epoch_is_over(self) -> bool:
        """True after the epoch's steps or, with a time budget, its share of it."""
        if self.counters.epoch_steps >= self.steps_per_epoch or self.is_over():
            return True
        budget_s = self.settings.time_budget_s
        return budget_s is not None and self.epoch_s() > budget_s / EPOCHS_PER_BUDGET
