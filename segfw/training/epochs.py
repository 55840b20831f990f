"""The epochs of a run: steps, checks, checkpoints by time, validation, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from segfw.base.records import GIGABYTE, UserError
from segfw.base.words import count
from segfw.model.source import BEST_FILE
from segfw.model.training_record import EpochRow, Events, TrainFigures, WholeCaseFigures
from segfw.model.weights import save_weights
from segfw.training.batches import CutBatch
from segfw.training.checkpoint import TrainState
from segfw.training.feeding import Feeder
from segfw.training.kept_weights import keep_weights
from segfw.training.lesson import Judged
from segfw.training.metrics_log import append_metrics, epoch_line
from segfw.training.patch_stages import stage_at
from segfw.training.patch_validation import validate_patches
from segfw.training.refiner_batches import RefinerBatches
from segfw.training.refiner_validation import answer_of, validate_refiner
from segfw.training.schedule import Clock, cool_down, learning_rate
from segfw.training.step import is_finite
from segfw.training.step_progress import StepProgress
from segfw.training.stop_file import COOL_DOWN, GO_ON, STOP_NOW, Stopped
from segfw.training.train_run import TrainRun

CHECK_EVERY_STEPS = 20  # steps between looks at the loss: each look waits for the device
VALIDATION_SHARE = 0.2  # validation batches per training batch, as published (50 to 250)
SMOOTHING = 0.9  # of the moving average of the validation Dice
LEARNED_DICE = 0.1  # a network that had reached this and predicts nothing has collapsed


class Diverged(Exception):
    """The loss or a weight is no longer a number, or the network predicts background only."""


def train_epochs(run: TrainRun, state: TrainState, clock: Clock) -> None:
    """Trains until the clock says that it is over. Raises Diverged, or Stopped."""
    feeder = Feeder(_cut(run, state), state.counters.step, device=run.compute.device)
    shown = StepProgress(clock, state.counters, run.page, is_first=run.ranks.is_first)
    try:
        with shown.lines():
            while not _is_over(run, state, clock):
                _obey_between_epochs(run, state, clock)
                _train_and_validate(run, state, clock, feeder, shown)
                if run.checkpoints.is_good_due():
                    run.checkpoints.save(state, is_good=True)
    finally:
        feeder.close()
    run.checkpoints.save(state, is_good=True)


def _is_over(run: TrainRun, state: TrainState, clock: Clock) -> bool:
    """True at the end, on all ranks alike. A budget that was spent on compiling still gets one epoch."""
    (is_over,) = run.ranks.from_first(clock.is_over() and state.counters.epoch > 0)
    return bool(is_over)


def _train_and_validate(run: TrainRun, state: TrainState, clock: Clock, feeder: Feeder, shown: StepProgress) -> None:
    """One epoch, and what is written of it."""
    with shown.epoch():
        trained = _train_epoch(run, state, clock, feeder, shown)
    steps = max(1, round(VALIDATION_SHARE * trained["steps"]))
    judged = run.steps.with_room(state, lambda: _judged(run, state, steps))
    _note_score(run, state, judged, clock)
    row: EpochRow = {**trained, **judged.figures, **_validate_whole_cases(run, state, clock)}
    is_best = _is_best(run, state, row)
    _finish_epoch(run, state, row, clock, shown)
    if is_best and run.ranks.is_first:
        weights = state.network.state_dict()
        save_weights(
            run.folder / BEST_FILE,
            weights,
            epoch=state.counters.epoch,
            mirror_axes=run.mirror_axes,
            patch_size=run.patch_size,
        )


def _judged(run: TrainRun, state: TrainState, steps: int) -> Judged:
    """How good the network is on the patches of so many validation steps."""
    if run.lesson is not None:
        return run.lesson.judge(run.compute, state, run.val_batches, steps)
    if isinstance(run.val_batches, RefinerBatches):
        figures, predicted_voxels = validate_refiner(run.compute, state, run.val_batches, steps)
    else:
        figures, predicted_voxels = validate_patches(
            run.compute, state, run.val_batches, steps, batch_dice=run.configuration.batch_dice, target=run.target
        )
    return Judged(figures=figures, score=figures["val_dice"], predicts_nothing=predicted_voxels == 0)


def _train_epoch(run: TrainRun, state: TrainState, clock: Clock, feeder: Feeder, shown: StepProgress) -> TrainFigures:
    """The steps that are left of an epoch. Raises Diverged, or Stopped."""
    counters = state.counters
    stalled_before_s = feeder.stalled_s
    losses: list[Tensor] = []
    rate = 0.0
    answer = answer_of(run.compute, state)
    state.network.train()
    for cut in feeder:
        clock.begin_steps()
        (rate,) = run.ranks.from_first(learning_rate(run.settings, counters, clock.progress()))
        _set_rate(state, rate, run.settings.momentum)
        with run.augmentation_timer:
            finish = partial(run.stage_batches[counters.stage].finish, cut, run.compute.device, answer)
            image, classes = run.steps.with_room(state, finish)
        annotated = run.stage_batches[counters.stage].annotated_in(cut)
        losses.append(run.steps.step(state, image, classes, annotated))
        run.workspace.release_once(image.shape, counters.parts)
        counters.step += 1
        counters.seen_voxels += run.stages[counters.stage].voxels
        counters.epoch_steps += 1
        due = _what_is_due(run, clock, counters.stage, is_cooling=counters.cool_from is not None)
        if due.is_anything or len(losses) >= CHECK_EVERY_STEPS:
            shown.loss = _add_up(run, state, losses)
            losses = []
        shown.step()
        if run.keep_at:
            keep_weights(run, state, clock.progress())
        if due.stage is not None:
            _enter_stage(run, state, due.stage)
            feeder.go_on_with(_cut(run, state), counters.step)
        if due.is_epoch_over:
            break
        _act_within_epoch(run, state, clock, due)
    return {
        "train_loss": counters.epoch_loss / counters.epoch_steps,
        "learning_rate": rate,
        "steps": counters.epoch_steps,
        "epoch_s": clock.epoch_s(),
        "augment_share": run.augmentation_timer.read_s() / clock.epoch_s(),
        "stalled_share": (feeder.stalled_s - stalled_before_s) / clock.epoch_s(),
    }


def _cut(run: TrainRun, state: TrainState) -> Callable[[int], CutBatch]:
    """Cuts this rank's part of a step's batch, of the stage that the run is in now."""
    stage = state.counters.stage
    share = run.ranks.samples(run.stages[stage].batch_size)
    return lambda step: run.stage_batches[stage].cut(step, share)


def _enter_stage(run: TrainRun, state: TrainState, stage: int) -> None:
    """From now on patches are of that stage."""
    state.counters.stage = stage
    size = " x ".join(map(str, run.stages[stage].patch_size))
    event = f"{size} voxels, {run.stages[stage].batch_size} a step, from step {state.counters.step + 1} on"
    state.counters.events["patches"] = event
    tqdm.write(f"patches of {event}")


def _set_rate(state: TrainState, rate: float, momentum: float) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]
        group["momentum"] = momentum


@dataclass(frozen=True, kw_only=True)
class _Due:
    """What has to be done after a step, on all ranks alike."""

    is_epoch_over: bool
    is_checkpoint_due: bool
    asked: int  # by the file STOP
    stage: int | None = None  # of growing patches, that begins now

    @property
    def is_anything(self) -> bool:
        return self.is_epoch_over or self.is_checkpoint_due or self.asked != GO_ON or self.stage is not None


def _what_is_due(run: TrainRun, clock: Clock, now: int, *, is_cooling: bool) -> _Due:
    """``now`` is the stage that the run is in; one that cools down to an early end does so on the last patches."""
    is_epoch_over, is_checkpoint_due, asked, stage = run.ranks.from_first(
        clock.epoch_is_over(),
        run.checkpoints.is_due(),
        run.stop_file.asked(),
        len(run.stages) - 1 if is_cooling else stage_at(run.stages, clock.progress()),
    )
    return _Due(
        is_epoch_over=bool(is_epoch_over),
        is_checkpoint_due=bool(is_checkpoint_due),
        asked=int(asked),
        stage=int(stage) if stage > now else None,  # there is no way back to smaller patches
    )


def _act_within_epoch(run: TrainRun, state: TrainState, clock: Clock, due: _Due) -> None:
    """A checkpoint where one is due, and what the file STOP asks for. Raises Stopped."""
    if due.asked == COOL_DOWN:
        _cool_down(run, state, clock, f"{run.stop_file.path} was found")
    if due.is_checkpoint_due or due.asked != GO_ON:
        state.counters.epoch_s = clock.epoch_s()
        state.counters.elapsed_s = clock.elapsed_s()
        run.checkpoints.save(state)
    if due.asked == STOP_NOW:
        run.checkpoints.finish()  # or an error of the disk, while STOP is still there
    if due.asked != GO_ON and run.ranks.is_first:
        run.stop_file.done()
    if due.asked == STOP_NOW:
        print(f"{run.folder}: stopped at step {state.counters.step} as asked; go on with --resume")
        raise Stopped


def _obey_between_epochs(run: TrainRun, state: TrainState, clock: Clock) -> None:
    """What the file STOP asks for, if it was found in an epoch's last step, which ends the epoch first."""
    (asked,) = run.ranks.from_first(run.stop_file.asked())
    if asked != GO_ON:
        _act_within_epoch(run, state, clock, _Due(is_epoch_over=False, is_checkpoint_due=False, asked=int(asked)))


def _add_up(run: TrainRun, state: TrainState, losses: list[Tensor]) -> float:
    """The mean of the losses since the last look. Raises Diverged, or UserError that names a case of broken values."""
    counters = state.counters
    total = float(run.ranks.sum(torch.stack(losses).sum())) / run.ranks.count
    counters.epoch_loss += total
    if math.isfinite(total) and is_finite(state.network):
        return total / len(losses)
    for step in range(counters.step - len(losses), counters.step):
        for patch in run.stage_batches[counters.stage].cut(step).patches:
            if not bool(torch.isfinite(patch.image_czyx).all()):
                case_id = run.train_ids[patch.case]
                raise UserError(f"{run.folder}: {case_id} holds intensities that are no numbers; run segfw check")
    raise Diverged(f"the training loss became {total}" if not math.isfinite(total) else "a weight is no number")


def _note_score(run: TrainRun, state: TrainState, judged: Judged, clock: Clock) -> None:
    """Updates the moving average of the score; ends a run that is on a plateau. Raises Diverged after a collapse."""
    counters = state.counters
    before = counters.smoothed_dice
    score = judged.score
    if judged.predicts_nothing and before is not None and before > LEARNED_DICE:
        raise Diverged("the network fell back to predicting background only")
    counters.smoothed_dice = score if before is None else SMOOTHING * before + (1 - SMOOTHING) * score
    if counters.best_smoothed is None or counters.smoothed_dice > counters.best_smoothed + run.fewest_gain:
        counters.best_smoothed = counters.smoothed_dice
        counters.best_epoch = counters.epoch
    waited = counters.epoch - counters.best_epoch
    if run.settings.patience and waited >= run.settings.patience:
        _cool_down(run, state, clock, f"no progress for {count(waited, 'epoch')}")


def _cool_down(run: TrainRun, state: TrainState, clock: Clock, reason: str) -> None:
    (done,) = run.ranks.from_first(clock.progress())
    if cool_down(run.settings, state.counters, done):
        steps = state.counters.cool_steps
        event = f"{reason}: the learning rate falls to zero within {count(steps, 'step')}, then it ends"
        state.counters.events["cooling"] = event
        print(event)


def _validate_whole_cases(run: TrainRun, state: TrainState, clock: Clock) -> WholeCaseFigures:
    """Dice of whole cases where their turn has come; nothing else."""
    if run.whole_cases is None:
        return {}
    (elapsed_s,) = run.ranks.from_first(clock.elapsed_s())
    if not run.whole_cases.is_due(state.counters, elapsed_s, run.settings.time_budget_s):
        return {}
    state.counters.whole_tiles += run.whole_cases.tiles
    return run.whole_cases.validate(state.network)


def _is_best(run: TrainRun, state: TrainState, row: EpochRow) -> bool:
    """True if the weights are the best so far: by whole cases or, where none validates, by the smoothed score."""
    counters = state.counters
    dice = counters.smoothed_dice if run.whole_cases is None else row.get("whole_case_dice")
    if dice is None or (counters.best_dice is not None and dice <= counters.best_dice):
        return False
    counters.best_dice = dice
    return True


def _finish_epoch(run: TrainRun, state: TrainState, row: EpochRow, clock: Clock, shown: StepProgress) -> None:
    """Writes the epoch down and begins the next."""
    counters = state.counters
    device = run.compute.device
    counters.elapsed_s = clock.elapsed_s()
    row["epoch"] = counters.epoch
    row["elapsed_s"] = counters.elapsed_s
    row.update(counters.events)
    counters.events = Events()
    if device.type == "cuda":
        row["gpu_memory_gb"] = torch.cuda.max_memory_reserved(device) / GIGABYTE
        row["gpu_tensors_gb"] = torch.cuda.max_memory_allocated(device) / GIGABYTE
    if run.ranks.is_first:
        append_metrics(run.folder, row)
    for writer in run.writers:
        writer.write(row)
    total = "" if run.settings.time_budget_s else f"/{run.settings.epochs}"
    tqdm.write(epoch_line(row, run.label_names, total, clock.left_s()))
    counters.epoch += 1
    counters.epoch_steps = 0
    counters.epoch_loss = 0.0
    counters.epoch_s = 0.0
    clock.begin_epoch()
    shown.epoch_was_told()
