"""One optimiser step: forward, loss, backward, clipped update; whole or in parts, compiled where that works."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from segfw.base.device import autocast
from segfw.base.ranks import Ranks
from segfw.base.records import UserError
from segfw.base.words import first_line
from segfw.networks.losses import Loss, Target
from segfw.planning.plan import Configuration
from segfw.training.checkpoint import TrainState
from segfw.training.settings import TrainSettings

Outputs = Sequence[Tensor]  # logits of all decoder stages, finest first


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
    loss: Loss
    ranks: Ranks
    forward: Callable[[Tensor], Outputs]
    without_averaging: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext


def train_step(run: Run, state: TrainState, image_bczyx: Tensor, classes_bzyx: Tensor) -> Tensor:
    """One optimiser step; returns the loss, still on the device so that the step does not wait for it.

    A batch that does not fit in the device's memory is computed in twice as many parts from then on: the same
    gradient but for the Dice of the batch, which becomes the mean over parts.
    """
    batch, counters = image_bczyx.shape[0], state.counters
    while True:
        try:
            return _step_in_parts(run, state, image_bczyx, classes_bzyx)
        except torch.OutOfMemoryError:
            # Ranks cannot know what befell one of them.
            if run.ranks.count > 1 or counters.parts >= batch:
                raise
        # Only here, where the error no longer holds on to the tensors that filled the memory.
        counters.parts = min(2 * counters.parts, batch)
        _free_memory(run, state)
        print(f"out of memory: the batch of {batch} is computed in {counters.parts} parts from now on")


def _step_in_parts(run: Run, state: TrainState, image_bczyx: Tensor, classes_bzyx: Tensor) -> Tensor:
    state.optimizer.zero_grad(set_to_none=True)
    images, classes = (tensor.chunk(state.counters.parts) for tensor in (image_bczyx, classes_bzyx))
    total = 0.0
    for number, (image, truth) in enumerate(zip(images, classes), 1):
        is_last = number == len(images)
        with contextlib.nullcontext() if is_last else run.without_averaging():
            with autocast(run.device, run.precision):
                outputs = run.forward(image)
            loss = run.loss(outputs, truth) * (image.shape[0] / image_bczyx.shape[0])
            state.scaler.scale(loss).backward()
        total = total + loss.detach()
    state.scaler.unscale_(state.optimizer)
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), run.settings.gradient_clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return total


def prepared_forward(run: Run, state: TrainState) -> Run:
    """The run with its network averaged over ranks, and compiled where that is wanted and works.

    Raises UserError where it does not work on one of several ranks, which must all compute alike.
    """
    parallel = run.ranks.parallel(state.network, run.device)
    if run.ranks.count > 1:
        run = replace(run, forward=parallel, without_averaging=parallel.no_sync)
    if not run.settings.compile:
        return run
    compiled = replace(run, forward=torch.compile(parallel))
    batch = run.settings.batch_size // run.ranks.count
    try:
        while not _fits(compiled, state, -(-batch // state.counters.parts)):
            state.counters.parts = min(2 * state.counters.parts, batch)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the compiler fails in too many ways to list, and training works without it
        reason = first_line(error)
        if run.ranks.count > 1:
            raise UserError(f"torch.compile is not usable here ({reason[:160]}); train with --compile off") from None
        print(f"torch.compile is not usable here, going on without it: {reason[:160]}")
        state.optimizer.zero_grad(set_to_none=True)
        return run
    torch._dynamo.config.suppress_errors = True  # what compiles for training but not for validation runs as it is
    return compiled


def _fits(run: Run, state: TrainState, batch: int) -> bool:
    """Tries forward and backward of a batch; False if the device has no memory for it, but may have for half of it."""
    try:
        empty_step(run, state, batch)
        return True
    except torch.OutOfMemoryError:
        if run.ranks.count > 1 or batch == 1:
            raise
    # Only here, where the error no longer holds on to the tensors that filled the memory.
    _free_memory(run, state)
    return False


def _free_memory(run: Run, state: TrainState) -> None:
    state.optimizer.zero_grad(set_to_none=True)
    if run.device.type == "cuda":
        torch.cuda.empty_cache()


def empty_step(run: Run, state: TrainState, batch: int) -> None:
    """Forward and backward on empty patches; weights and optimiser stay as they are. Returns when it is done."""
    shape, channels = run.configuration.patch_size, run.configuration.network.in_channels
    image = torch.zeros(batch, channels, *shape, device=run.device)
    classes = torch.zeros(batch, *shape, dtype=torch.long, device=run.device)
    buffers = {name: buffer.clone() for name, buffer in state.network.named_buffers()}  # such as running means
    with autocast(run.device, run.precision):
        outputs = run.forward(image)
    loss = run.loss(outputs, classes)
    loss.backward()
    float(loss.detach())  # reading a value waits for the device
    state.optimizer.zero_grad(set_to_none=True)
    for name, buffer in state.network.named_buffers():
        buffer.copy_(buffers[name])


def seconds_per_patch(run: Run, state: TrainState, most: int = 8) -> float:
    """Time of forward and backward per patch, on this rank."""
    batch = max(1, min(run.settings.batch_size or run.configuration.batch_size, most) // state.counters.parts)
    while not _fits(run, state, batch):  # the first one also allocates memory and picks algorithms
        batch //= 2
    started = time.monotonic()
    empty_step(run, state, batch)
    return (time.monotonic() - started) / batch


@contextlib.contextmanager
def memory_errors_named(run: Run) -> Iterator[None]:
    """Turns running out of memory, where even a single patch does not fit, into a UserError."""
    try:
        yield
    except torch.OutOfMemoryError:
        size = f"batch {run.settings.batch_size}" if run.settings.batch_size else "a patch"
        advice = "--accumulate 2" if run.ranks.count > 1 else "a smaller --batch-size"
        raise UserError(
            f"{run.folder}: {run.device} ran out of memory with {size}; train with {advice}, or plan again with a "
            "smaller --gpu-memory-gb"
        ) from None


def is_finite(network: nn.Module) -> bool:
    """True if every weight is a number; waits for the device once."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in network.state_dict().values()]).all())
