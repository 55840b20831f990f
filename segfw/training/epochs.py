"""The epochs of a run: steps, checks, checkpoints by time, validation, and what follows from it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from segfw.base.progress import progress_bar
from segfw.base.records import GIGABYTE, UserError
from segfw.model.source import BEST_FILE
from segfw.model.weights import save_weights
from segfw.planning.splits import Fold
from segfw.training.batches import Batches
from segfw.training.checkpoint import Checkpoints, TrainState
from segfw.training.feeding import Feeder, Stopwatch
from segfw.training.metrics_log import append_metrics, epoch_line, read_metrics
from segfw.training.patch_validation import STEP_PER_TILE, WHOLE_CASES_SHARE, WholeCases, validate_patches
from segfw.training.progress_page import draw_progress
from segfw.training.schedule import Clock, cool_down, learning_rate
from segfw.training.step import Run, is_finite, train_step
from segfw.training.stop_file import COOL_DOWN, FEWEST_GAIN, GO_ON, STOP_NOW, StopFile, Stopped
from segfw.training.writers import Writer

CHECK_EVERY_STEPS = 20  # steps between looks at the loss: each look waits for the device
VALIDATION_SHARE = 0.2  # validation batches per training batch, as published (50 to 250)
SMOOTHING = 0.9  # of the moving average of the validation Dice
LEARNED_DICE = 0.1  # a network that had reached this and predicts nothing has collapsed


class Diverged(Exception):
    """The loss or a weight is no longer a number, or the network predicts background only."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run with the data it works on."""

    run: Run
    fold: Fold
    train_batches: Batches
    val_batches: Batches
    whole_cases: WholeCases | None
    checkpoints: Checkpoints
    stop_file: StopFile
    augmenting: Stopwatch
    writers: Sequence[Writer]  # of the first rank


def train_epochs(job: Job, state: TrainState, clock: Clock) -> None:
    """Trains until the clock says that it is over. Raises Diverged, or Stopped."""
    run, counters = job.run, state.counters
    share = run.ranks.samples(run.settings.batch_size)
    feeder = Feeder(lambda step: job.train_batches.cut(step, share), counters.step, device=run.device)
    try:
        # A budget that was spent on compiling still gets one epoch.
        while not run.ranks.from_first(clock.is_over() and counters.epoch > 0)[0]:
            row = _train_epoch(job, state, clock, feeder)
            steps = max(1, round(VALIDATION_SHARE * row["steps"]))
            row |= validate_patches(run, state, job.val_batches, steps)
            _note_patches(run, state, row, clock)
            row |= _validate_whole_cases(job, state, clock)
            is_best = _is_best(job, state, row)
            _finish_epoch(job, state, row, clock)
            if is_best and run.ranks.is_first:
                weights, axes = state.network.state_dict(), job.train_batches.mirror_axes
                save_weights(run.folder / BEST_FILE, weights, epoch=counters.epoch, mirror_axes=axes)
            if job.checkpoints.is_good_due():
                job.checkpoints.save(state, is_good=True)
    finally:
        feeder.close()
    job.checkpoints.save(state, is_good=True)


def _train_epoch(job: Job, state: TrainState, clock: Clock, feeder: Feeder) -> dict:
    """The steps that are left of an epoch. Raises Diverged, or Stopped."""
    run, ranks, counters, settings = job.run, job.run.ranks, state.counters, job.run.settings
    state.network.train()
    stalled_before, losses = feeder.stalled_s, []
    with progress_bar(f"epoch {counters.epoch + 1}", total=clock.steps_per_epoch, unit="step") as bar:
        bar.update(counters.epoch_steps)
        for cut in feeder:
            (rate,) = ranks.from_first(learning_rate(settings, counters, clock.progress()))
            for group in state.optimizer.param_groups:
                group["lr"], group["momentum"] = rate, settings.momentum
            with job.augmenting:
                image, classes = job.train_batches.finish(cut, run.device)
            losses.append(train_step(run, state, image, classes))
            counters.step += 1
            counters.epoch_steps += 1
            bar.update()
            is_over, is_due, asked = ranks.from_first(
                clock.epoch_is_over(), job.checkpoints.is_due(), job.stop_file.asked()
            )
            if is_over or is_due or asked != GO_ON or len(losses) >= CHECK_EVERY_STEPS:
                _add_up(job, state, losses)
                losses = []
            if is_over:
                break
            if asked == COOL_DOWN:
                _cool_down(run, state, clock, f"{job.stop_file.path} was found")
            if is_due or asked != GO_ON:
                counters.epoch_s, counters.elapsed_s = clock.epoch_s(), clock.elapsed_s()
                job.checkpoints.save(state)
            if asked != GO_ON and ranks.is_first:
                job.stop_file.done()
            if asked == STOP_NOW:
                print(f"{run.folder}: stopped at step {counters.step} as asked; go on with --resume")
                raise Stopped
    return {
        "train_loss": counters.epoch_loss / counters.epoch_steps,
        "learning_rate": rate,
        "steps": counters.epoch_steps,
        "epoch_s": clock.epoch_s(),
        "augment_share": job.augmenting.read_s() / clock.epoch_s(),
        "stalled_share": (feeder.stalled_s - stalled_before) / clock.epoch_s(),
    }


def _add_up(job: Job, state: TrainState, losses: list[Tensor]) -> None:
    """Reads the losses since the last look. Raises Diverged, or UserError that names a case of broken values."""
    ranks, counters = job.run.ranks, state.counters
    total = float(ranks.sum(torch.stack(losses).sum())) / ranks.count
    counters.epoch_loss += total
    if math.isfinite(total) and is_finite(state.network):
        return
    for step in range(counters.step - len(losses), counters.step):
        for patch in job.train_batches.cut(step).patches:
            if not bool(torch.isfinite(patch.image_czyx).all()):
                case = job.fold.train[patch.case]
                raise UserError(f"{job.run.folder}: {case} holds intensities that are no numbers; run segfw check")
    raise Diverged(f"the training loss became {total}" if not math.isfinite(total) else "a weight is no number")


def _note_patches(run: Run, state: TrainState, row: dict, clock: Clock) -> None:
    """Updates the moving average of the Dice; ends a run that is on a plateau. Raises Diverged after a collapse."""
    counters, before = state.counters, state.counters.smoothed_dice
    if row.pop("val_predicted") == 0 and before is not None and before > LEARNED_DICE:
        raise Diverged("the network fell back to predicting background only")
    dice = row["val_dice"]
    counters.smoothed_dice = dice if before is None else SMOOTHING * before + (1 - SMOOTHING) * dice
    if counters.best_smoothed is None or counters.smoothed_dice > counters.best_smoothed + FEWEST_GAIN:
        counters.best_smoothed, counters.best_epoch = counters.smoothed_dice, counters.epoch
    waited = counters.epoch - counters.best_epoch
    if run.settings.patience and waited >= run.settings.patience:
        _cool_down(run, state, clock, f"no progress for {waited} epochs")


def _cool_down(run: Run, state: TrainState, clock: Clock, reason: str) -> None:
    (done,) = run.ranks.from_first(clock.progress())
    if cool_down(run.settings, state.counters, done):
        said = f"{reason}: the learning rate falls to zero within {state.counters.cool_steps} steps, then it ends"
        state.counters.events["cooling"] = said
        print(said)


def _validate_whole_cases(job: Job, state: TrainState, clock: Clock) -> dict:
    """Dice of whole cases where it takes no more than its share of the work and fits in the time budget.

    Work is counted in tiles and patches, not in seconds, so that a resumed run keeps the same weights as its best.
    """
    if job.whole_cases is None:
        return {}
    counters, settings, tiles = state.counters, job.run.settings, job.whole_cases.tiles
    tiles_trained = STEP_PER_TILE * counters.step * settings.batch_size
    (elapsed_s,) = job.run.ranks.from_first(clock.elapsed_s())
    end_s = elapsed_s * (1 + tiles / tiles_trained)
    if counters.whole_tiles + tiles > WHOLE_CASES_SHARE * tiles_trained or end_s > (settings.time_budget_s or math.inf):
        return {}
    counters.whole_tiles += tiles
    return job.whole_cases.validate(state.network)


def _is_best(job: Job, state: TrainState, row: dict) -> bool:
    """True if the weights are the best so far: by whole cases or, where none validates, by the smoothed patch Dice."""
    counters = state.counters
    dice = counters.smoothed_dice if job.whole_cases is None else row.get("whole_case_dice")
    if dice is None or (counters.best_dice is not None and dice <= counters.best_dice):
        return False
    counters.best_dice = dice
    return True


def _finish_epoch(job: Job, state: TrainState, row: dict, clock: Clock) -> None:
    """Writes the epoch down and begins the next."""
    run, counters = job.run, state.counters
    counters.elapsed_s = clock.elapsed_s()
    row |= {"epoch": counters.epoch, "elapsed_s": counters.elapsed_s} | counters.events
    counters.events = {}
    if run.device.type == "cuda":
        row["gpu_memory_gb"] = torch.cuda.max_memory_reserved(run.device) / GIGABYTE
    if run.ranks.is_first:
        append_metrics(run.folder, row)
        draw_progress(run.folder, read_metrics(run.folder), run.label_names, left_s=clock.left_s())
    for writer in job.writers:
        writer.write(row)
    total = "" if run.settings.time_budget_s else f"/{run.settings.epochs}"
    tqdm.write(epoch_line(row, run.label_names, total, clock.left_s()))
    counters.epoch += 1
    counters.epoch_steps, counters.epoch_loss, counters.epoch_s = 0, 0.0, 0.0
    clock.epoch_started = time.monotonic()
