"""How long both arms train, and by which settings: those of the model, for a part of its length, at half its rate."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import torch

from segfw.base.files import file_sha256
from segfw.base.options import Precision
from segfw.base.records import UserError
from segfw.base.words import first_line
from segfw.model.source import WEIGHTS_FILE, fold_folder
from segfw.model.training_record import read_run_record
from segfw.planning.plan import Configuration
from segfw.planning.published import STEPS_PER_EPOCH
from segfw.retraining.retrain_options import RetrainOptions
from segfw.retraining.retraining_record import FoldStart, Retraining
from segfw.training.foretold_pace import foretold_pace
from segfw.training.prepare import SETTINGS_FILE
from segfw.training.schedule import FittedSettings, stages_of, steps_within
from segfw.training.settings import TrainSettings

RATE_SHARE = 0.5  # of the learning rate that the model was trained with


def weights_file(work: Path, configuration: str, fold: str) -> Path:
    """A fold's weights."""
    return fold_folder(work, configuration, fold) / WEIGHTS_FILE


def precision_found(work: Path, configuration: str, fold: str) -> Precision | None:
    """What 'auto' was found to be when a fold was begun; None where that was not measured, or nothing is begun."""
    file = fold_folder(work, configuration, fold) / SETTINGS_FILE
    return FittedSettings.load(file).training_precision if file.is_file() else None


def base_settings(work: Path, configuration: str, fold: str) -> FittedSettings:
    """What a fold of the model was trained with; UserError where that is not told, as of imported ones."""
    folder = fold_folder(work, configuration, fold)
    try:
        return FittedSettings.load(folder / SETTINGS_FILE)
    except UserError as error:
        raise UserError(
            f"{folder}: does not say how it was trained ({first_line(error)}), so nothing tells how to train it on; "
            "train it with segfw train first"
        ) from None


def fold_start(
    work: Path,
    configuration: Configuration,
    fold: str,
    before: Retraining | None,
    options: RetrainOptions,
    *,
    scratch: bool,
    device: torch.device,
) -> FoldStart:
    """What both arms of a fold begin with, and for how long they train.

    ``before`` is the retraining that made the model, if one did: length and rate are shares of what was trained before
    any of them, or they would shrink from round to round.
    """
    settings = base_settings(work, configuration.name, fold)
    original_steps = _steps_of(work, configuration.name, fold)
    original_rate = settings.learning_rate
    for earlier in () if before is None else before.folds:
        if earlier.fold == fold:
            original_steps = earlier.original_steps
            original_rate = earlier.original_rate
    epochs, steps_per_epoch = _length(configuration, settings, original_steps, options, scratch=scratch, device=device)
    return FoldStart(
        fold=fold,
        weights_sha256=file_sha256(weights_file(work, configuration.name, fold)),
        original_steps=original_steps,
        original_rate=original_rate,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        learning_rate=original_rate if scratch else RATE_SHARE * original_rate,
        old_share=1.0,
    )


def _steps_of(work: Path, configuration: str, fold: str) -> int:
    folder = fold_folder(work, configuration, fold)
    record = read_run_record(folder)
    if record is None or record.end is None:
        raise UserError(
            f"{folder / 'run.json'}: does not say for how many steps the fold was trained, of which the new training "
            "is a share; train the fold to its end with segfw train first"
        )
    return record.end.steps


def _length(
    configuration: Configuration,
    settings: FittedSettings,
    original_steps: int,
    options: RetrainOptions,
    *,
    scratch: bool,
    device: torch.device,
) -> tuple[int, int]:
    """Epochs, and steps of each. A time becomes a number of steps here, once: both arms take as many."""
    if options.epochs is not None:
        return options.epochs, settings.steps_per_epoch or STEPS_PER_EPOCH
    if options.time_budget_s is not None:
        timed = replace(settings, time_budget_s=options.time_budget_s)
        pace = foretold_pace(configuration, timed, device)
        if pace is None:
            raise UserError(f"{configuration.name}: the device has no memory for a step; give another --device")
        patches = settings.patches if scratch else "constant"
        stages = stages_of(configuration, patches, settings.patch_size, settings.batch_size)
        return in_epochs(int(steps_within(stages, options.time_budget_s, pace)))
    return in_epochs(original_steps if scratch else round(options.length_share * original_steps))


def in_epochs(steps: int) -> tuple[int, int]:
    """Epochs of about the published number of steps, and the steps of each; at least one."""
    epochs = max(1, round(steps / STEPS_PER_EPOCH))
    return epochs, max(1, round(steps / epochs))


def arm_settings(
    settings: FittedSettings, start: FoldStart, seed: int, *, scratch: bool, precision: Precision | None
) -> TrainSettings:
    """The same for both arms: but for length, rate and seed as the model was trained.

    Its last patches are taken from the first step on: growing ones teach a new network where structures are.
    ``precision`` is what the other arm computes in, where that was found when it began: found anew, it might differ.
    """
    values = {each.name: getattr(settings, each.name) for each in fields(TrainSettings)}
    changes = {
        "epochs": start.epochs,
        "steps_per_epoch": start.steps_per_epoch,
        "time_budget_s": None,
        "learning_rate": start.learning_rate,
        "seed": seed,
        "patches": settings.patches if scratch else "constant",
        "patience": None,
        "training_precision": precision,
    }
    return TrainSettings(**values | changes)
