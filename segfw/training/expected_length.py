"""How long a training will be, told before its first step, and whether that is what anybody wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from segfw.base.device import device_name
from segfw.base.durations import duration_text
from segfw.base.shell_line import shell_line
from segfw.base.words import count
from segfw.images.geometry import Shape
from segfw.model.short_runs import EXAMPLE_BUDGET, FEWEST_USABLE_STEPS, LONG_TRAINING_S, too_few_steps
from segfw.planning.measure import training_flops
from segfw.planning.plan import Configuration
from segfw.planning.published import EPOCHS, STEPS_PER_EPOCH
from segfw.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class ExpectedTraining:
    """What is known of the training of one configuration before it begins.

    ``step_s`` is estimated from a probe of the device; None where that is not worth the moment it takes, because the
    run is short, and where a time is given instead of a number of epochs.
    """

    name: str
    folds: int
    settings: TrainSettings
    patch_size: Shape
    batch_size: int
    device: str
    step_s: float | None

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.settings.steps_per_epoch or STEPS_PER_EPOCH

    @property
    def steps(self) -> int | None:
        """Steps of a fold; None where the clock ends it."""
        return None if self.settings.time_budget_s else self.settings.epochs * self.steps_per_epoch

    @property
    def fold_s(self) -> float | None:
        """Seconds that a fold takes; None where that is not known."""
        if self.settings.time_budget_s:
            return self.settings.time_budget_s
        return None if self.step_s is None or self.steps is None else self.step_s * self.steps

    @property
    def all_s(self) -> float | None:
        """Seconds of all folds, one after the other; None where that is not known."""
        return None if self.fold_s is None else self.folds * self.fold_s

    def line(self) -> str:
        """Folds, epochs, steps, patch and batch, and the time where it is known."""
        parts = [f"{self.name}: {count(self.folds, 'fold')}"]
        if self.steps is not None:
            epochs = count(self.settings.epochs, "epoch")
            parts.append(f"{self.steps:,} steps each ({epochs} of {self.steps_per_epoch})")
        patch = " x ".join(map(str, self.patch_size))
        parts.append(f"patches of {patch} voxels, {self.batch_size} a step")
        if self.fold_s is not None and self.all_s is not None:
            about = "" if self.settings.time_budget_s else "about "
            in_all = f", {duration_text(self.all_s)} in all" if self.folds > 1 else ""
            parts.append(f"{about}{duration_text(self.fold_s)} a fold{in_all} on {self.device}")
        return ", ".join(parts)


def expected_training(
    configuration: Configuration, settings: TrainSettings, folds: int, device: torch.device
) -> ExpectedTraining:
    """What is known before; a probe of part of a second tells the pace of ``device``."""
    batch = settings.batch_size or configuration.batch_size
    steps = settings.epochs * (settings.steps_per_epoch or STEPS_PER_EPOCH)
    step_s = None
    if not settings.time_budget_s and steps >= FEWEST_USABLE_STEPS:
        with torch.random.fork_rng():  # the probe draws numbers, and training must draw the same without it
            flops = training_flops(device)
        step_s = configuration.estimate.step_s(flops) * batch / configuration.batch_size
    return ExpectedTraining(
        name=configuration.name,
        folds=folds,
        settings=settings,
        patch_size=configuration.patch_size,
        batch_size=batch,
        device=device_name(device),
        step_s=step_s,
    )


def length_warnings(expected: Sequence[ExpectedTraining], example: str) -> list[str]:
    """What to say of trainings that are days longer than anybody asked for, or too short to be of use.

    ``example`` is the command with a time budget, as it can be pasted.
    """
    warnings: list[str] = []
    settings = expected[0].settings if expected else TrainSettings()
    all_s = sum(each.all_s or 0 for each in expected)
    if all_s > LONG_TRAINING_S and not is_length_given(settings):
        warnings.append(
            f"warning: no length was given, so that {EPOCHS} epochs are trained, about {duration_text(all_s)} on "
            f"{expected[0].device}; to train for a time of your choice: {example}"
        )
    few = next((each.steps for each in expected if each.steps is not None and too_few_steps(each.steps)), None)
    if few is not None:
        warnings.append(f"warning: {too_few_steps(few)}")
    return warnings


def is_length_given(settings: TrainSettings) -> bool:
    """Whether somebody chose how long the training is to be."""
    chosen = (settings.epochs, settings.steps_per_epoch, settings.time_budget_s, settings.patience)
    return chosen != (EPOCHS, None, None, None)


def told_length(expected: Sequence[ExpectedTraining], *command: str) -> list[str]:
    """What is said before the first step: a line a configuration, and warnings with an example of the ``command``."""
    example = shell_line("segfw", *command, "--time-budget", EXAMPLE_BUDGET)
    return [*(f"to train: {each.line()}" for each in expected), *length_warnings(expected, example)]
