"""The length of a run and what depends on it: learning rate, batch, momentum, mirroring, and when an epoch ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal, TypeVar

from segfw.base.options import METADATA_KEY, OptionText
from segfw.base.records import UserError
from segfw.base.usable_steps import FEWEST_USABLE_STEPS
from segfw.images.geometry import Shape
from segfw.planning.plan import Configuration
from segfw.planning.published import STEPS_PER_EPOCH
from segfw.training.checkpoint import Counters
from segfw.training.pace import Pace
from segfw.training.patch_stages import PatchStage, constant_stage, growing_stages, smaller_patches, stage_shares
from segfw.training.settings import TrainSettings

LONGEST_MEMORY_STEPS = 100  # of SGD's momentum: 0.99, as published
SHORTEST_MEMORY_STEPS = 10  # momentum 0.9
PUBLISHED_RATE = 0.01
FEWEST_STEPS = 1000  # a time budget is rather spent on this many small batches than on fewer large ones
SMALLEST_BATCH = 2
FEWEST_LAST_STEPS = 50  # on patches of the size that prediction takes
MIRROR_FROM_VIEWS = 100  # patches per training case; in a time budget, as many voxels as it has
COOL_DOWN_SHARE = 0.15  # of the steps so far
EPOCHS_PER_BUDGET = 20  # with a time budget an epoch is at most this share of it
FEWEST_GAIN = 1e-3  # of the smoothed Dice; less is no progress
LEAST_SHARE_FOR_STEPS = 0.5  # of a time budget; where getting ready takes more, the training ends later

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


def long_warm_up(progress: float, share: float) -> float:
    """Factor on the rate that rises evenly to 1 within a share of the run: weights that know something stay."""
    return min(1.0, progress / share) if share > 0 else 1.0


def poly_learning_rate(progress: float, initial: float, power: float = 0.9) -> float:
    """Polynomial decay from ``initial`` at progress 0 to zero at progress 1 (Isensee et al. 2021)."""
    return initial * max(0.0, 1 - progress) ** power


def _decided(help: str, **limits: float) -> Any:
    """A field that has no default, because a run that is under way has a value for it."""
    return field(metadata={METADATA_KEY: OptionText(help=help, name=None, limits=limits)})


@dataclass(frozen=True, kw_only=True)
class FittedSettings(TrainSettings):
    """Settings of a run that is under way: nothing that a step needs is left to be decided.

    In the settings of earlier versions ``patch_size`` is None, which is the planned one.
    """

    batch_size: int = _decided("patches per step, of all processes together; of the last stage where they grow", ge=1)
    learning_rate: float = _decided("at the start", gt=0)
    momentum: float = _decided("of SGD", ge=0, lt=1)
    mirroring: bool = _decided("mirrored images too")


def fit_to_length(
    settings: TrainSettings,
    configuration: Configuration,
    pace: Pace | None,
    cases: int,
    joined_batch: Callable[[int], int] = int,
    *,
    keeps_patch: bool = False,
) -> FittedSettings:
    """Fills in what depends on how long the run is: patch, batch, momentum and mirroring, unless they are given.

    ``pace`` is what steps take, needed with a time budget. The published values are made for half a million patches; a
    run of a few thousand learns more from small batches, a momentum with a short memory and a higher rate to go with
    it, and images in the one orientation they are all brought into (docs/benchmarks.md). Where not even small batches
    give enough steps, the patch is smaller than planned, unless the run ``keeps_patch``. ``joined_batch`` makes a batch
    one that several ranks can share.
    """
    if settings.time_budget_s is not None and pace is None:
        raise ValueError("with a time budget the time of a step must have been measured")
    patches = settings.patches or ("constant" if settings.time_budget_s is None else "grow")
    decided = replace(settings, patches=patches)
    if settings.time_budget_s is None or pace is None:
        batch = joined_batch(settings.batch_size or configuration.batch_size)
        patch = settings.patch_size or configuration.patch_size
        steps: float = settings.epochs * (settings.steps_per_epoch or STEPS_PER_EPOCH)
    else:
        sizes = [settings.patch_size or configuration.patch_size]
        if settings.patch_size is None and not keeps_patch:
            sizes += smaller_patches(configuration.patch_size, configuration.network.downsampling)
        for patch in sizes:
            batch = joined_batch(_batch_for(settings, configuration, patch, pace))
            stages = stages_of(configuration, patches, patch, batch, joined_batch)
            steps = steps_within(stages, settings.time_budget_s, pace)
            last_s = stage_shares(stages)[-1] * settings.time_budget_s
            last_steps = last_s / pace.step_s(stages[-1].voxels)
            if steps >= FEWEST_USABLE_STEPS and last_steps >= FEWEST_LAST_STEPS:
                break
    momentum = momentum_for(steps) if settings.momentum is None else settings.momentum
    rate = learning_rate_for(momentum) if settings.learning_rate is None else settings.learning_rate
    views = steps * batch / cases
    if settings.time_budget_s is not None and pace is not None:  # a slice, or an early patch, is a small part of a case
        seen_voxels = voxels_within(stages, settings.time_budget_s, pace)
        views = seen_voxels / prod(configuration.median_shape) / cases
    mirroring = views >= MIRROR_FROM_VIEWS if settings.mirroring is None else settings.mirroring
    more = {"batch_size": batch, "patch_size": patch, "momentum": momentum, "learning_rate": rate}
    return FittedSettings(**vars(decided) | more | {"mirroring": mirroring})


def _batch_for(settings: TrainSettings, configuration: Configuration, patch: Shape, pace: Pace) -> int:
    """The given batch, or as many patches, of those planned, as leave FEWEST_STEPS steps in the time."""
    if settings.batch_size is not None or settings.time_budget_s is None:
        return settings.batch_size or configuration.batch_size
    planned = configuration.batch_size
    within = int(settings.time_budget_s / FEWEST_STEPS / pace.step_s(prod(patch)))
    return max(min(SMALLEST_BATCH, planned), min(planned, within))


def stages_of(
    configuration: Configuration,
    patches: Literal["grow", "constant"] | None,
    patch_size: Shape | None,
    batch_size: int,
    joined_batch: Callable[[int], int] = int,
) -> tuple[PatchStage, ...]:
    """The stages of a run on ``patch_size``, which is the planned one if None; a single one where patches are alike."""
    patch = patch_size or configuration.patch_size
    if patches != "grow":
        return constant_stage(patch, batch_size)
    return growing_stages(patch, configuration.network.downsampling, batch_size, joined_batch=joined_batch)


def voxels_within(stages: Sequence[PatchStage], seconds: float, pace: Pace) -> float:
    """Voxels of all patches of the steps that fit into so many seconds."""
    shares = zip(stages, stage_shares(stages))
    return sum(stage.voxels * share * seconds / pace.step_s(stage.voxels) for stage, share in shares)


def steps_within(stages: Sequence[PatchStage], seconds: float, pace: Pace) -> float:
    """Steps that fit into so many seconds, of which every stage has its share."""
    return sum(share * seconds / pace.step_s(stage.voxels) for stage, share in zip(stages, stage_shares(stages)))


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
    rate *= long_warm_up(progress, settings.warm_up_share)
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

    def begin_steps(self) -> None:
        """Called before a step: the schedule of a time budget begins with the first one.

        Before it cases are opened and networks compiled. A schedule that had begun with those would take the first
        steps, or all of a short run, at rates that are meant for its end.
        """
        if self.counters.step == 0:
            self.counters.prepared_s = self.elapsed_s()

    def progress(self) -> float:
        """0 at the first step, 1 when the schedule is over."""
        budget_s = self.settings.time_budget_s
        if budget_s:
            return min(1.0, max(0.0, self.elapsed_s() - self.counters.prepared_s) / self._for_steps_s(budget_s))
        return min(1.0, self.counters.step / (self.settings.epochs * self.steps_per_epoch))

    def _for_steps_s(self, budget_s: float) -> float:
        """What a time budget has for steps, all that is done between them included."""
        return max(budget_s - self.counters.prepared_s, LEAST_SHARE_FOR_STEPS * budget_s)

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
        budget_s = self.settings.time_budget_s
        left_s = (1 - done) * self._for_steps_s(budget_s) if budget_s else elapsed_s * (1 - done) / max(done, 1e-6)
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
