"""How long a training will be, told before its first step, and whether that is what anybody wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType

import torch

from segfw.base.device import device_name
from segfw.base.durations import duration_text
from segfw.base.shell_line import shell_line
from segfw.base.usable_steps import FEWEST_USABLE_STEPS
from segfw.base.words import count
from segfw.model.short_runs import EXAMPLE_BUDGET, LONG_TRAINING_S, features_that_tell, too_few_steps, usefulness
from segfw.planning.plan import Configuration
from segfw.planning.plan_for_device import training_flops
from segfw.planning.published import EPOCHS, STEPS_PER_EPOCH
from segfw.training.pace import Pace
from segfw.training.patch_stages import PatchStage, stage_shares
from segfw.training.schedule import FittedSettings, fit_to_length, stages_of, steps_within
from segfw.training.settings import TrainSettings

NOTHING_KNOWN: Mapping[str, float] = MappingProxyType({})
PROPOSED_S = 3600.0  # of training in all, on a CPU where nobody said how long


@dataclass(frozen=True, kw_only=True)
class ExpectedTraining:
    """What is known of the training of one configuration before it begins.

    ``step_s`` and, with a time budget, ``steps`` are estimated from a probe of the device; None where that is not worth
    the moment it takes, because the run is short.
    """

    name: str
    folds: int
    settings: FittedSettings
    stages: tuple[PatchStage, ...]
    device: str
    steps: int  # of a fold
    step_s: float | None
    enough_for: str  # in words

    @property
    def fold_s(self) -> float | None:
        """Seconds that a fold takes; None where that is not known."""
        if self.settings.time_budget_s:
            return self.settings.time_budget_s
        return None if self.step_s is None else self.step_s * self.steps

    @property
    def all_s(self) -> float | None:
        """Seconds of all folds, one after the other; None where that is not known."""
        return None if self.fold_s is None else self.folds * self.fold_s

    def line(self) -> str:
        """Folds, epochs, steps, patches and batch, the time where it is known, and what to expect."""
        parts = [f"{self.name}: {count(self.folds, 'fold')}"]
        if self.settings.time_budget_s:
            parts.append(f"about {self.steps:,} steps each")
        else:
            epochs = count(self.settings.epochs, "epoch")
            of = self.settings.steps_per_epoch or STEPS_PER_EPOCH
            parts.append(f"{self.steps:,} steps each ({epochs} of {of})")
        first, last = (" x ".join(map(str, stage.patch_size)) for stage in (self.stages[0], self.stages[-1]))
        growing = f"that grow from {first} to {last}" if len(self.stages) > 1 else f"of {last}"
        parts.append(f"patches {growing} voxels, {self.settings.batch_size} a step")
        if self.fold_s is not None and self.all_s is not None:
            about = "" if self.settings.time_budget_s else "about "
            in_all = f", {duration_text(self.all_s)} in all" if self.folds > 1 else ""
            parts.append(f"{about}{duration_text(self.fold_s)} a fold{in_all} on {self.device}")
        return f"{', '.join(parts)}; {self.enough_for}"


def expected_training(
    configuration: Configuration,
    settings: TrainSettings,
    folds: int,
    device: torch.device,
    *,
    keeps_patch: bool = False,
    pace: Pace | None = None,
    shares: Mapping[str, float] = NOTHING_KNOWN,
) -> ExpectedTraining:
    """What is known before. A ``pace`` is of steps that were measured; else a probe of part of a second tells it.

    ``shares`` of the cases that the structures take tell which of them so many steps are enough for.
    """
    steps_asked = settings.epochs * (settings.steps_per_epoch or STEPS_PER_EPOCH)
    if pace is None and (settings.time_budget_s or steps_asked >= FEWEST_USABLE_STEPS):
        with torch.random.fork_rng():  # the probe draws numbers, and training must draw the same without it
            planned_step_s = configuration.estimate.step_s_on(device_name(device), lambda: training_flops(device))
        voxels = prod(configuration.patch_size) * configuration.batch_size
        pace = Pace(fixed_s=0.0, voxel_s=planned_step_s / voxels)
    fitted = fit_to_length(settings, configuration, pace, cases=1, keeps_patch=keeps_patch)
    stages = stages_of(configuration, fitted.patches, fitted.patch_size, fitted.batch_size)
    if settings.time_budget_s and pace is not None:
        steps = int(steps_within(stages, settings.time_budget_s, pace))
    else:
        steps = steps_asked
    step_s = (
        None
        if pace is None
        else sum(share * pace.step_s(stage.voxels) for stage, share in zip(stages, stage_shares(stages)))
    )
    return ExpectedTraining(
        name=configuration.name,
        folds=folds,
        settings=fitted,
        stages=stages,
        device=device_name(device),
        steps=steps,
        step_s=step_s,
        enough_for=usefulness(steps, shares, features_that_tell(configuration)),
    )


def with_proposed_length(settings: TrainSettings, device: torch.device, folds: int) -> TrainSettings:
    """The settings, with a time where nobody gave a length and the published one would take weeks: on a CPU.

    Of PROPOSED_S every fold has its part.
    """
    if is_length_given(settings) or device.type != "cpu":
        return settings
    return replace(settings, time_budget_s=PROPOSED_S / folds)


def length_warnings(expected: Sequence[ExpectedTraining], example: str) -> list[str]:
    """What to say of trainings that are days longer than anybody asked for, or too short to be of use.

    ``example`` is the command with a time budget, as it can be pasted.
    """
    warnings: list[str] = []
    settings: TrainSettings = expected[0].settings if expected else TrainSettings()
    all_s = sum(each.all_s or 0 for each in expected)
    if all_s > LONG_TRAINING_S and not is_length_given(settings):
        warnings.append(
            f"warning: no length was given, so that {EPOCHS} epochs are trained, about {duration_text(all_s)} on "
            f"{expected[0].device}; to train for a time of your choice: {example}"
        )
    few = next((each.steps for each in expected if too_few_steps(each.steps)), None)
    if few is not None:
        longer = "" if settings.time_budget_s is None else f"; to train for longer: {example}"
        warnings.append(f"warning: {too_few_steps(few)}{longer}")
    return warnings


def is_length_given(settings: TrainSettings) -> bool:
    """Whether somebody chose how long the training is to be."""
    chosen = (settings.epochs, settings.steps_per_epoch, settings.time_budget_s, settings.patience)
    return chosen != (EPOCHS, None, None, None)


def told_length(expected: Sequence[ExpectedTraining], *command: str) -> list[str]:
    """What is said before the first step: a line a configuration, and warnings with an example of the ``command``."""
    example = shell_line("segfw", *command, "--time-budget", EXAMPLE_BUDGET)
    return [*(f"to train: {each.line()}" for each in expected), *length_warnings(expected, example)]
