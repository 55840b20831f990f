"""Training of one fold: from a plan and preprocessed cases to weights, resumed exactly, rescued from divergence."""

from __future__ import annotations

from pathlib import Path

from segfw.base.device import held_to_memory, keep_freed_pages
from segfw.base.durations import duration_text
from segfw.base.records import UserError
from segfw.base.words import count, first_line
from segfw.model.short_runs import too_few_steps
from segfw.model.source import WEIGHTS_FILE
from segfw.model.training_record import TrainingEnd
from segfw.model.weights import save_weights
from segfw.training.checkpoint import CHECKPOINT_FILE, GOOD_FILE, Counters, TrainState, load_checkpoint
from segfw.training.epochs import Diverged, train_epochs
from segfw.training.metrics_log import keep_metrics_before
from segfw.training.prepare import (
    SETTINGS_FILE,
    fresh_or_resumed,
    limit_of_tensors_gb,
    prepare_run,
    settings_of_begun_run,
    training_device,
)
from segfw.training.progress_page import Ending, finished
from segfw.training.run_record import note_end
from segfw.training.schedule import Clock
from segfw.training.step import TooLittleMemory, memory_errors_named
from segfw.training.stop_file import Stopped
from segfw.training.train_request import TrainRequest
from segfw.training.train_run import TrainRun

RESCUE_FACTOR = 0.5  # on the learning rate after a divergence
MOST_RESCUES = 4
FORGOTTEN_EPOCHS = 50  # after which a rescue no longer counts


def train(request: TrainRequest) -> None:
    """Trains one fold and leaves ``weights.safetensors`` in the request's folder.

    A run that is resumed goes on from its last checkpoint: on the CPU and with a fixed number of epochs, bit for bit
    as if it had not been interrupted.

    Raises UserError if there is nothing to resume, if the loss stays no number after several attempts at lower
    learning rates, or if the data hold values that are no numbers.
    """
    started_s = request.now_s()
    keep_freed_pages()
    request.folder.mkdir(parents=True, exist_ok=True)
    device = training_device(request.device)
    begun_with = settings_of_begun_run(request)
    settings = begun_with or request.settings
    try:
        with held_to_memory(device, limit_of_tensors_gb(settings)):
            state = fresh_or_resumed(request, settings, device)
            run = prepare_run(request, begun_with, device, state)
            state.counters.elapsed_s += request.now_s() - started_s
            train_run(run, state)
    except TooLittleMemory:
        if begun_with is None and state.counters.step == 0 and request.ranks.is_first:
            forget_run(request.folder)  # or the remedy, other settings, would be refused: it is begun with these
        raise


def forget_run(folder: Path) -> None:
    """Removes what makes a run one that goes on as it was begun, before its first step."""
    for name in (CHECKPOINT_FILE, GOOD_FILE, SETTINGS_FILE):
        (folder / name).unlink(missing_ok=True)


def train_run(run: TrainRun, state: TrainState) -> None:
    """Trains to the end, and writes the weights and the last picture of the progress."""
    is_finished = False
    try:
        with memory_errors_named(run.folder, run.compute, run.settings.batch_size):
            _train_with_rescues(run, state)
        is_finished = True
    except BaseException as error:
        run.page.end(_ending_of(error, "segfw train with --resume" if run.lesson is None else "the same command"))
        raise
    finally:
        for writer in run.writers:
            writer.close(is_finished)
        run.checkpoints.close()
    if run.ranks.is_first:
        _say_end(run, state.counters)
        # The last file but the pages, because it says that the run is over; the pages are mended where it is there.
        save_weights(
            run.folder / WEIGHTS_FILE,
            state.network.state_dict(),
            epoch=state.counters.epoch,
            mirror_axes=run.mirror_axes,
            patch_size=run.patch_size,
        )
    ending = finished(run.configuration)
    if run.lesson is not None:
        ending = Ending(state="finished", sentence=run.lesson.afterwards)
    run.page.end(ending)
    run.ranks.wait()


def _ending_of(error: BaseException, remedy: str) -> Ending:
    """What the page says of a run that did not come to its end, and which command goes on."""
    if isinstance(error, Stopped):
        return Ending(state="stopped", sentence=f"It was stopped as asked; {remedy} goes on from there.")
    reason = "" if isinstance(error, KeyboardInterrupt) else f" by an error ({first_line(error)})"
    return Ending(state="interrupted", sentence=f"It was interrupted{reason}; {remedy} goes on from there.")


def _say_end(run: TrainRun, counters: Counters) -> None:
    """How much was trained, on the console and in run.json, and whether that is too little to be of use."""
    end = TrainingEnd(
        steps=counters.step,
        epochs=counters.epoch,
        seconds=round(counters.elapsed_s, 1),
        warning=too_few_steps(counters.step) if run.lesson is None else "",
    )
    note_end(run.folder, end)
    length = f"{end.steps:,} steps in {count(end.epochs, 'epoch')}"
    print(f"{run.folder}: trained {length}, {duration_text(end.seconds)}")
    if end.warning:
        print(f"warning: {end.warning}")


def _train_with_rescues(run: TrainRun, state: TrainState) -> None:
    """Trains to the end; after a divergence from the last good checkpoint, at a lower rate."""
    is_new = state.counters.step == 0
    is_just_extended = "extended" in state.counters.events
    if is_new or is_just_extended or not (run.folder / GOOD_FILE).is_file():
        run.checkpoints.save(state, is_good=True)  # so that there is one to go back to from the first step on
    while True:
        clock = Clock(run.settings, state.counters, run.now_s)
        try:
            train_epochs(run, state, clock)
            return
        except Diverged as error:
            reason = str(error)
        _go_back(run, state, clock.elapsed_s(), reason)


def _go_back(run: TrainRun, state: TrainState, elapsed_s: float, reason: str) -> None:
    """To the last good checkpoint, with a lower learning rate. Raises UserError after too many attempts."""
    before = state.counters
    is_forgotten = before.epoch - before.rescued_epoch > FORGOTTEN_EPOCHS
    rescues = 1 if is_forgotten else before.rescues + 1
    if rescues > MOST_RESCUES:
        raise UserError(
            f"{run.folder}: {reason} in epoch {before.epoch + 1}, and again after {MOST_RESCUES} "
            "attempts at lower learning rates; run segfw check on the data, or train with --precision fp32"
        )
    event = f"{reason} in epoch {before.epoch + 1}: going on from the last good checkpoint"
    print(event)
    run.checkpoints.finish()
    run.ranks.wait()  # the first one alone knows when it is written
    run.steps.forget(state)  # momentum is put elsewhere
    load_checkpoint(run.folder / GOOD_FILE, state)
    _remember_rescue(state.counters, before, event)
    state.counters.elapsed_s = elapsed_s
    state.counters.rescues = rescues
    if run.ranks.is_first:
        keep_metrics_before(run.folder, state.counters.epoch)
    print(f"  at step {state.counters.step}, with {state.counters.rate_factor:g} times the learning rate")


def _remember_rescue(counters: Counters, before: Counters, event: str) -> None:
    """What the counters of the good checkpoint take over from those of the run that diverged."""
    counters.rate_factor = before.rate_factor * RESCUE_FACTOR
    counters.rescued_epoch = before.epoch
    counters.best_dice = before.best_dice  # of the weights in BEST_FILE
    counters.warm_from = counters.step
    counters.prepared_s = before.prepared_s
    counters.events["rescued"] = event
