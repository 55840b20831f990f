"""Training of one fold: the step, the epoch, the schedule, and checkpoints that resume exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from segfw.data.parallel import progress
from segfw.device import autocast, keep_freed_pages, pick_device, pick_precision
from segfw.model import WEIGHTS_FILE, save_tensors
from segfw.networks import build_network, fastest_layout
from segfw.networks.losses import LABELS, Target, deep_supervision_loss, dice_ce_loss, overlap_counts
from segfw.planning.plan import Configuration
from segfw.planning.splits import Fold
from segfw.records import UserError
from segfw.training.batches import Batches
from segfw.training.checkpoint import TrainState, load_checkpoint, require_checkpoint, save_checkpoint
from segfw.training.feeding import Feeder, open_cases
from segfw.training.runlog import append_metrics, epoch_line, keep_metrics_before
from segfw.training.sampling import TRAINING_STREAM, VALIDATION_STREAM
from segfw.training.schedule import Clock, fit_to_length, poly_learning_rate, warm_up
from segfw.training.settings import TrainSettings

BEST_FILE, SETTINGS_FILE = "best.safetensors", "settings.json"
CHECKPOINT_EVERY_S = 60.0
VALIDATION_SHARE = 0.2  # validation batches per training batch, as published (50 to 250)
BEST_MEMORY = 0.9  # of the moving average of the validation Dice that picks the best checkpoint

BuildNetwork = Callable[..., nn.Module]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What stays the same while one fold is trained."""

    folder: Path
    configuration: Configuration
    settings: TrainSettings
    device: torch.device
    precision: torch.dtype
    label_names: list[str]
    target: Target
    forward: Callable[[Tensor], list[Tensor] | Tensor]


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
    build: BuildNetwork = build_network,
) -> None:
    """Trains one fold and leaves ``weights.safetensors`` in ``folder``.

    ``preprocessed`` is the configuration's folder of stored cases; ``target`` says what the network's outputs mean, and
    ``label_names`` are the names of all but the background. ``previous`` is, for the second stage of a cascade, the
    folder of what the first one found. With ``resume`` the run goes on from its last
    checkpoint with the settings it was started with: on the CPU and with a fixed number of epochs, bit for bit as if
    it had not been interrupted. Raises UserError if there is nothing to resume, or if the loss stops being a number.
    """
    keep_freed_pages()
    folder.mkdir(parents=True, exist_ok=True)
    chosen_device = pick_device(device)
    started = time.monotonic()
    if resume:
        require_checkpoint(folder)
        settings = TrainSettings.load(folder / SETTINGS_FILE)
    torch.manual_seed(settings.seed)
    state = _new_state(configuration, settings, chosen_device, build)
    run = Run(
        folder=folder,
        configuration=configuration,
        settings=settings,
        device=chosen_device,
        precision=pick_precision(settings.precision, chosen_device),
        label_names=label_names,
        target=target,
        forward=state.network,
    )
    if resume:
        load_checkpoint(folder, state)
    else:
        patch_s = _seconds_per_patch(run, state) if settings.time_budget_s else None
        settings = fit_to_length(settings, configuration.batch_size, patch_s, len(fold.train))
    run = _compiled(replace(run, settings=settings), state)
    keep_metrics_before(folder, state.epoch)
    settings.save(folder / SETTINGS_FILE)
    mirroring = "mirroring" if settings.mirroring else "no mirroring"
    print(f"batch {settings.batch_size}, momentum {settings.momentum:.3f}, {mirroring}, {str(run.precision)[6:]}")
    state.elapsed_s += time.monotonic() - started
    try:
        _run_epochs(run, state, preprocessed, previous, fold)
    except torch.OutOfMemoryError:
        raise UserError(
            f"{folder}: {chosen_device} ran out of memory with batch {settings.batch_size}; train with a smaller "
            "--batch-size, or plan again with a smaller --gpu-memory-gb"
        ) from None
    axes = ",".join(str(axis) for axis in _mirror_axes(run))
    save_tensors(folder / WEIGHTS_FILE, state.network.state_dict(), {"epoch": str(state.epoch), "mirror_axes": axes})


def _mirror_axes(run: Run) -> tuple[int, ...]:
    return run.configuration.mirror_axes if run.settings.mirroring else ()


def _new_state(
    configuration: Configuration, settings: TrainSettings, device: torch.device, build: BuildNetwork
) -> TrainState:
    network = fastest_layout(build(configuration.network).to(device), configuration.network)
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


def _compiled(run: Run, state: TrainState) -> Run:
    """The run with its network compiled where that pays, tried on one batch; as it was where compiling fails."""
    wanted = run.device.type == "cuda" if run.settings.compile is None else run.settings.compile
    if not wanted:
        return run
    compiled = replace(run, forward=torch.compile(state.network))
    try:
        _empty_step(compiled, state, run.settings.batch_size)
    except Exception as error:  # the compiler fails in too many ways to list, and training works without it
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        print(f"torch.compile is not usable here, going on without it: {reason[:160]}")
        return run
    return compiled


def _empty_step(run: Run, state: TrainState, batch: int) -> None:
    """Forward and backward on empty patches; weights and optimiser stay as they are. Returns when it is done."""
    shape, channels = run.configuration.patch_size, run.configuration.network.in_channels
    image = torch.zeros(batch, channels, *shape, device=run.device)
    classes = torch.zeros(batch, *shape, dtype=torch.long, device=run.device)
    with autocast(run.device, run.precision):
        outputs = run.forward(image)
    loss = deep_supervision_loss(outputs, classes, run.configuration.batch_dice, run.target)
    loss.backward()
    float(loss.detach())  # reading a value waits for the device
    state.optimizer.zero_grad(set_to_none=True)


def _seconds_per_patch(run: Run, state: TrainState, most: int = 8) -> float:
    """Time of forward and backward per patch."""
    batch = min(run.settings.batch_size or run.configuration.batch_size, most)
    _empty_step(run, state, batch)  # the first one also allocates memory and picks algorithms
    started = time.monotonic()
    _empty_step(run, state, batch)
    return (time.monotonic() - started) / batch


def train_step(run: Run, state: TrainState, image_bczyx: Tensor, classes_bzyx: Tensor) -> Tensor:
    """One optimiser step; returns the loss, still on the device so that the step does not wait for it."""
    state.optimizer.zero_grad(set_to_none=True)
    with autocast(run.device, run.precision):
        outputs = run.forward(image_bczyx)
    loss = deep_supervision_loss(outputs, classes_bzyx, run.configuration.batch_dice, run.target)
    state.scaler.scale(loss).backward()
    state.scaler.unscale_(state.optimizer)
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), run.settings.gradient_clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return loss.detach()


def _run_epochs(run: Run, state: TrainState, preprocessed: Path, previous: Path | None, fold: Fold) -> None:
    clock = Clock(run.settings, state)
    how = run.configuration.preprocessing
    train_batches = _batches(run, open_cases(preprocessed, fold.train, how, previous=previous), TRAINING_STREAM)
    held_out = fold.validation or fold.train
    val_batches = _batches(run, open_cases(preprocessed, held_out, how, previous=previous), VALIDATION_STREAM)
    feeder = Feeder(train_batches.cut, state.step)
    saved_at = time.monotonic()
    try:
        while clock.progress() < 1 or state.epoch == 0:  # a budget spent on compiling still gets one epoch
            row = _train_epoch(run, state, clock, feeder, train_batches)
            steps = max(1, round(VALIDATION_SHARE * row["steps"]))
            row |= _validate_patches(run, state, val_batches, steps)
            state.elapsed_s = clock.elapsed_s()
            row["elapsed_s"] = state.elapsed_s
            is_best = _note_dice(state, row["val_dice"])
            row["epoch"] = state.epoch
            state.epoch += 1
            append_metrics(run.folder, row)
            total = "" if run.settings.time_budget_s else f"/{run.settings.epochs}"
            tqdm.write(epoch_line(row, run.label_names, total, clock.left_s()))
            if is_best:
                save_tensors(run.folder / BEST_FILE, state.network.state_dict(), {"epoch": str(state.epoch)})
            if time.monotonic() - saved_at > CHECKPOINT_EVERY_S or clock.progress() >= 1:
                save_checkpoint(run.folder, state)
                saved_at = time.monotonic()
    finally:
        feeder.close()


def _batches(run: Run, cases: list, stream: int) -> Batches:
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
        previous_classes=run.configuration.previous_classes,
        zero_outside=tuple(index for index, rule in enumerate(channels) if rule.inside_mask),
    )


def _train_epoch(run: Run, state: TrainState, clock: Clock, feeder: Feeder, batches: Batches) -> dict:
    state.network.train()
    clock.epoch_started = started = time.monotonic()
    settings, stalled_before, losses = run.settings, feeder.stalled_s, []
    with progress(f"epoch {state.epoch + 1}", total=clock.steps_per_epoch, unit="step") as bar:
        for cut in feeder:
            rate, momentum = poly_learning_rate(clock.progress(), settings.learning_rate), settings.momentum
            for group in state.optimizer.param_groups:
                group["lr"], group["momentum"] = rate * warm_up(state.step, momentum), momentum
            losses.append(train_step(run, state, *batches.finish(cut, run.device)))
            state.step += 1
            bar.update()
            if clock.epoch_is_over(len(losses)):
                break
    loss = float(torch.stack(losses).mean())
    if not math.isfinite(loss):
        raise UserError(
            f"{run.folder}: the training loss became {loss} in epoch {state.epoch + 1}; look for broken intensities "
            "in the images, or train with --precision fp32"
        )
    seconds = time.monotonic() - started
    return {
        "train_loss": loss,
        "learning_rate": rate,
        "steps": len(losses),
        "epoch_s": seconds,
        "stalled_share": (feeder.stalled_s - stalled_before) / seconds,
    }


@torch.no_grad()
def _validate_patches(run: Run, state: TrainState, batches: Batches, steps: int) -> dict:
    """Loss and pooled Dice on the same patches in every epoch: quick, and comparable between epochs only.

    The network stays in training mode, in which instance norm computes the same.
    """
    loss, counts = 0.0, 0
    for step in range(steps):
        image, classes = batches.finish(batches.cut(step), run.device)
        with autocast(run.device, run.precision):
            logits = run.forward(image)[0]
        loss = loss + dice_ce_loss(logits, classes, run.configuration.batch_dice, run.target)
        counts = counts + overlap_counts(logits.float(), classes, run.target)
    true_positive, false_positive, false_negative = counts.cpu().double()
    total = 2 * true_positive + false_positive + false_negative
    dice = torch.where(total > 0, 2 * true_positive / total.clamp_min(1), torch.nan)
    seen = dice[~dice.isnan()]
    return {
        "val_loss": float(loss) / steps,
        "val_dice": float(seen.mean()) if len(seen) else 0.0,
        "val_dice_per_label": [0.0 if math.isnan(value) else value for value in dice.tolist()],
    }


def _note_dice(state: TrainState, dice: float) -> bool:
    """Updates the moving average; True if it is the best so far."""
    before = state.smoothed_dice
    state.smoothed_dice = dice if before is None else BEST_MEMORY * before + (1 - BEST_MEMORY) * dice
    if state.best_dice is None or state.smoothed_dice > state.best_dice:
        state.best_dice = state.smoothed_dice
        return True
    return False
