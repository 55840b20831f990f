"""Training of one fold: from a plan and preprocessed cases to weights, resumed exactly, rescued from divergence."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil, prod
from pathlib import Path

import torch
from torch import nn

from segfw.base.device import compiling_pays, keep_freed_pages, pick_precision
from segfw.base.ranks import ALONE, Ranks, local_device
from segfw.base.records import UserError
from segfw.grid.store import CaseArrays
from segfw.model.source import WEIGHTS_FILE
from segfw.model.weights import save_weights
from segfw.networks import BuildNetwork, build_network, fastest_layout
from segfw.networks.losses import LABELS, LOSSES, Loss, Target
from segfw.planning.plan import Configuration
from segfw.planning.published import STEPS_PER_EPOCH
from segfw.planning.splits import Fold
from segfw.training.batches import Augment, Batches
from segfw.training.checkpoint import (
    CHECKPOINT_FILE,
    GOOD_FILE,
    Checkpoints,
    TrainState,
    load_checkpoint,
    require_checkpoint,
)
from segfw.training.epochs import Diverged, Job, train_epochs
from segfw.training.feeding import Stopwatch, open_cases
from segfw.training.metrics_log import keep_metrics_before, read_metrics
from segfw.training.patch_validation import CountWholeCase, WholeCases, fixed_subset
from segfw.training.progress_page import draw_progress
from segfw.training.run_record import note_session
from segfw.training.sampling import TRAINING_STREAM, VALIDATION_STREAM
from segfw.training.schedule import Clock, extended, fit_to_length
from segfw.training.settings import TrainSettings
from segfw.training.step import Run, memory_errors_named, prepared_forward, seconds_per_patch
from segfw.training.stop_file import StopFile
from segfw.training.writers import Writer, open_writers

SETTINGS_FILE = "settings.json"
RESCUE_FACTOR, MOST_RESCUES = 0.5, 4  # on the learning rate after a divergence
FORGOTTEN_EPOCHS = 50  # after which a rescue no longer counts

BuildLoss = Callable[[Configuration, Target], Loss]


def train(
    folder: Path,
    preprocessed: Path,
    configuration: Configuration,
    fold: Fold,
    settings: TrainSettings,
    *,
    label_names: list[str],
    target: Target = LABELS,
    previous: Path | None = None,
    device: str = "auto",
    resume: bool = False,
    extend_epochs: int | None = None,
    extend_s: float | None = None,
    build: BuildNetwork = build_network,
    build_loss: BuildLoss | None = None,
    augment: Augment | None = None,
    start: Callable[[nn.Module], None] | None = None,
    count_whole_case: CountWholeCase | None = None,
    log: Sequence[str] = (),
    ranks: Ranks = ALONE,
) -> None:
    """Trains one fold and leaves ``weights.safetensors`` in ``folder``.

    ``preprocessed`` is the configuration's folder of stored cases; ``target`` says what the network's outputs mean, and
    ``label_names`` are the names of all but the background. With ``resume`` the run goes on from its last
    checkpoint with the settings it was started with: on the CPU and with a fixed number of epochs, bit for bit as if
    it had not been interrupted; with ``extend_epochs`` or ``extend_s`` as well, for so much longer than it was to
    last. ``previous`` is, for the second stage of a cascade, the folder of what the first one found.

    ``build``, ``build_loss`` and ``augment`` take the place of the network, the loss and the augmentation; ``start``
    may change the new network's weights. ``count_whole_case`` predicts a validation case as a whole. ``log`` names
    further writers of the figures (``writers.WRITERS``).

    Raises UserError if there is nothing to resume, if the loss stays no number after several attempts at lower
    learning rates, or if the data hold values that are no numbers.
    """
    started = time.monotonic()
    keep_freed_pages()
    folder.mkdir(parents=True, exist_ok=True)
    on = local_device(device)
    if on.type == "cuda":
        torch.cuda.set_device(on)  # or pinning memory would also occupy the first card
        torch.backends.cudnn.benchmark = True  # all patches have one size
    if resume:
        require_checkpoint(folder)
        settings = TrainSettings.load(folder / SETTINGS_FILE)
    torch.manual_seed(settings.seed)
    state = _new_state(configuration, settings, on, build)
    run = Run(
        folder=folder,
        configuration=configuration,
        settings=settings,
        device=on,
        precision=pick_precision(settings.precision, on),
        label_names=label_names,
        target=target,
        loss=_loss(build_loss, settings, configuration, target, ranks),
        ranks=ranks,
        forward=state.network,
    )
    if not resume:
        if start is not None:
            start(state.network)
        with memory_errors_named(run):
            settings = _fitted(run, state, len(fold.train))
    else:
        load_checkpoint(folder / CHECKPOINT_FILE, state)
        if settings.batch_size % ranks.count:
            raise UserError(
                f"{folder}: was begun with a batch of {settings.batch_size}, which {ranks.count} processes cannot "
                "share; go on with as many as before"
            )
        if extend_epochs or extend_s:
            settings = extended(settings, state.counters, epochs=extend_epochs, seconds=extend_s)
            more = f"{extend_epochs} epochs" if extend_epochs else f"{extend_s:.0f} s"
            state.counters.events["extended"] = f"extended by {more} after epoch {state.counters.epoch}"
    run = replace(run, settings=settings)
    with memory_errors_named(run):
        run = prepared_forward(run, state)
    mirroring = "mirroring" if settings.mirroring else "no mirroring"
    print(f"batch {settings.batch_size}, momentum {settings.momentum:.3f}, {mirroring}, {_precision_text(run)}")
    step_gb = configuration.estimate.training_memory_gb * settings.batch_size / configuration.batch_size
    opening = {"device": on, "step_gb": step_gb, "previous": previous, "sharers": ranks.on_host}
    train_cases = val_cases = open_cases(preprocessed, fold.train, configuration.preprocessing, **opening)
    if fold.validation:
        val_cases = open_cases(preprocessed, fold.validation, configuration.preprocessing, **opening)
    writers: list[Writer] = []
    if ranks.is_first:
        keep_metrics_before(folder, state.counters.epoch)
        settings.save(folder / SETTINGS_FILE)
        record = note_session(
            folder,
            how="extended" if extend_epochs or extend_s else "resumed" if resume else "started",
            first_epoch=state.counters.epoch + 1,
            settings=settings,
            device=on,
            precision=run.precision,
            label_names=label_names,
            preprocessed=preprocessed,
            training_ids=fold.train,
            processes=ranks.count,
        )
        writers = open_writers(log, folder, record)
    job = Job(
        run=run,
        fold=fold,
        train_batches=_batches(run, train_cases, TRAINING_STREAM, augment),
        val_batches=_batches(run, val_cases, VALIDATION_STREAM),
        whole_cases=_whole_cases(run, dict(zip(fold.validation, val_cases)), count_whole_case),
        checkpoints=Checkpoints(folder, ranks.is_first),
        stop_file=StopFile(folder),
        augmenting=Stopwatch(on),
        writers=writers,
    )
    state.counters.elapsed_s += time.monotonic() - started
    _train_and_save(job, state)


def _train_and_save(job: Job, state: TrainState) -> None:
    run, is_finished = job.run, False
    try:
        with memory_errors_named(run):
            _train_with_rescues(job, state)
        is_finished = True
    finally:
        for writer in job.writers:
            writer.close(is_finished)
    if run.ranks.is_first:
        weights, epoch = state.network.state_dict(), state.counters.epoch
        save_weights(run.folder / WEIGHTS_FILE, weights, epoch=epoch, mirror_axes=_mirror_axes(run))
        draw_progress(run.folder, read_metrics(run.folder), run.label_names, is_last=True)
    run.ranks.wait()


def _fitted(run: Run, state: TrainState, cases: int) -> TrainSettings:
    """Settings of a new run, with what depends on its length and on the device."""
    settings, ranks, patch_s = run.settings, run.ranks, None
    state.counters.parts = settings.accumulate
    if settings.time_budget_s:
        (patch_s,) = ranks.from_first(seconds_per_patch(run, state) / ranks.count)
    fitted = fit_to_length(settings, run.configuration.batch_size, patch_s, cases, ranks.joined_batch)
    if settings.compile is not None:
        return fitted
    # Kept with the settings, so that a resumed run does the same.
    steps = settings.epochs * (settings.steps_per_epoch or STEPS_PER_EPOCH)
    pays = compiling_pays(run.device, seconds=settings.time_budget_s, steps=steps)
    return replace(fitted, compile=pays)


def _loss(
    build: BuildLoss | None, settings: TrainSettings, configuration: Configuration, target: Target, ranks: Ranks
) -> Loss:
    """The loss that was passed or, by its name in the settings, one that is joined over ranks."""
    if build is not None:
        return build(configuration, target)
    return LOSSES[settings.loss](configuration, target, ranks.sum_with_gradient)


def _precision_text(run: Run) -> str:
    is_broken = run.configuration.network.breaks_bf16_on_the_cpu(run.configuration.patch_size)
    if run.device.type == "cpu" and run.precision != torch.float32 and is_broken:
        return "float32 (in 16 bit PyTorch's gradients of two slices are wrong on the CPU)"
    return str(run.precision).removeprefix("torch.")


def _mirror_axes(run: Run) -> tuple[int, ...]:
    return run.configuration.mirror_axes if run.settings.mirroring else ()


def _new_state(
    configuration: Configuration, settings: TrainSettings, device: torch.device, build: BuildNetwork
) -> TrainState:
    network = fastest_layout(build(configuration.network).to(device))
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=0.01,  # rate and momentum are set anew in every step
        momentum=0.9,
        nesterov=True,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    for parameter in network.parameters():
        # Zeros give the same first step, and a first fp16 step that overflows leaves no uninitialised momentum behind.
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    needs_scaling = pick_precision(settings.precision, device) == torch.float16
    return TrainState(
        network=network, optimizer=optimizer, scaler=torch.amp.GradScaler(device.type, enabled=needs_scaling)
    )


def _batches(run: Run, cases: list, stream: int, augment: Augment | None = None) -> Batches:
    is_training, channels = stream == TRAINING_STREAM, run.configuration.preprocessing.normalization
    return Batches(
        cases=cases,
        patch_size=run.configuration.patch_size,
        batch_size=run.settings.batch_size,
        seed=run.settings.seed,
        stream=stream,
        augmentation=run.settings.augmentation if is_training else "none",
        mirror_axes=_mirror_axes(run),
        foreground_share=run.settings.foreground_share,
        elastic=is_training and run.settings.elastic,
        augment=augment,
        swapped=run.configuration.swapped_pairs,
        previous_classes=run.configuration.previous_classes,
        zero_outside=tuple(index for index, rule in enumerate(channels) if rule.inside_mask),
    )


def _whole_cases(run: Run, cases: Mapping[str, CaseArrays], count: CountWholeCase | None) -> WholeCases | None:
    if count is None or not cases:
        return None
    ids = fixed_subset(list(cases))
    # Tiles overlap by half: about two per tile's length along every axis.
    shares = [[ceil(2 * n / p) for n, p in zip(cases[i].classes.shape, run.configuration.patch_size)] for i in ids]
    tiles = sum(prod(along) for along in shares)
    return WholeCases(case_ids=ids, count=count, tiles=tiles, structures=len(run.label_names), ranks=run.ranks)


def _train_with_rescues(job: Job, state: TrainState) -> None:
    """Trains to the end; after a divergence from the last good checkpoint, at a lower rate."""
    run = job.run
    if state.counters.step == 0 or "extended" in state.counters.events or not (run.folder / GOOD_FILE).is_file():
        job.checkpoints.save(state, is_good=True)  # so that there is one to go back to from the first step on
    while True:
        clock = Clock(run.settings, state.counters)
        try:
            return train_epochs(job, state, clock)
        except Diverged as reason:
            before, elapsed_s = state.counters, clock.elapsed_s()
            is_forgotten = before.epoch - before.rescued_epoch > FORGOTTEN_EPOCHS
            rescues, factor = 1 if is_forgotten else before.rescues + 1, before.rate_factor * RESCUE_FACTOR
            if rescues > MOST_RESCUES:
                raise UserError(
                    f"{run.folder}: {reason} in epoch {state.counters.epoch + 1}, and again after {MOST_RESCUES} "
                    "attempts at lower learning rates; run segfw check on the data, or train with --precision fp32"
                ) from None
            event = f"{reason} in epoch {state.counters.epoch + 1}: going on from the last good checkpoint"
            print(event)
        load_checkpoint(run.folder / GOOD_FILE, state)
        counters = state.counters
        counters.elapsed_s, counters.rescues, counters.rate_factor = elapsed_s, rescues, factor
        counters.rescued_epoch, counters.best_dice = before.epoch, before.best_dice  # of the weights in BEST_FILE
        counters.warm_from, counters.events = counters.step, counters.events | {"rescued": event}
        if run.ranks.is_first:
            keep_metrics_before(run.folder, counters.epoch)
        print(f"  at step {counters.step}, with {factor:g} times the learning rate")
