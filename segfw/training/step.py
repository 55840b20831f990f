"""One optimiser step: forward, loss, backward, clipped update; whole or in parts, compiled where that works."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from segfw.base.device import autocast, release_workspace
from segfw.base.ranks import Ranks
from segfw.base.records import UserError
from segfw.base.resources import ran_out_of_memory
from segfw.base.words import first_line
from segfw.images.geometry import Shape
from segfw.networks.losses import Loss
from segfw.training.checkpoint import TrainState

# B batch, C channel, Z Y X space
# Compilations that one shape of patches may need: of the whole batch, and of parts each time that memory ran out.
COMPILED_BATCHES = 4


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and how a training step is computed, and what it makes smaller."""

    device: torch.device
    precision: torch.dtype
    loss: Loss
    ranks: Ranks
    gradient_clip: float
    in_channels: int  # of what the network takes
    patch_size: Shape  # of the last patches
    truth_channels: int | None = None  # of what is right; None for a class of each voxel
    limit_gb: float | None = None  # of the device's memory; None is all of it

    @property
    def memory_text(self) -> str:
        """What runs out."""
        return "memory" if self.limit_gb is None else f"the {self.limit_gb:g} GB of --gpu-limit-gb"


class TooLittleMemory(UserError):
    """Not even a single patch fits on the device."""


class TriedWorkspace:
    """Memory of a device that was taken to try out algorithms: given back once for each size of batches and parts."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tried: set[tuple[int, ...]] = set()

    def release_once(self, shape: Sequence[int], parts: int) -> None:
        """Called after a step on a batch of ``shape`` in so many parts; waits for the device in the first of each."""
        tried = (*shape, parts)
        if tried not in self._tried:
            self._tried.add(tried)
            release_workspace(self._device)


def train_step(
    compute: Compute,
    state: TrainState,
    image_BCZYX: Tensor,
    classes_BZYX: Tensor,
    annotated_BK: Tensor | None = None,
) -> Tensor:
    """One optimiser step; returns the loss, still on the device so that the step does not wait for it.

    ``annotated_BK``, on the CPU, says which outputs are annotated in each sample; None where all are in every case.
    """
    state.optimizer.zero_grad(set_to_none=True)
    loss = _loss_and_gradients(compute, state, image_BCZYX, classes_BZYX, annotated_BK)
    state.scaler.unscale_(state.optimizer)
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), compute.gradient_clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return loss


def _loss_and_gradients(
    compute: Compute,
    state: TrainState,
    image_BCZYX: Tensor,
    classes_BZYX: Tensor,
    annotated_BK: Tensor | None,
) -> Tensor:
    """Loss of the batch, computed in ``parts`` one after the other, whose gradients add up."""
    parts = equal_parts(len(image_BCZYX), state.counters.parts)
    images = image_BCZYX.chunk(parts)
    truths = classes_BZYX.chunk(parts)
    annotated: Sequence[Tensor | None] = [None] * len(images) if annotated_BK is None else annotated_BK.chunk(parts)
    total = torch.zeros((), device=image_BCZYX.device)
    for number, (image, truth, known) in enumerate(zip(images, truths, annotated), 1):
        is_last = number == len(images)
        # Ranks average the gradients once, with those of the last part.
        with contextlib.nullcontext() if is_last else state.without_averaging():
            with autocast(compute.device, compute.precision):
                outputs = state.forward(image)
            loss = _loss_of_part(compute, outputs, truth, known) * (image.shape[0] / image_BCZYX.shape[0])
            state.scaler.scale(loss).backward()
        total = total + loss.detach()
    return total


def _loss_of_part(compute: Compute, outputs: Sequence[Tensor], truth: Tensor, annotated: Tensor | None) -> Tensor:
    """A loss that somebody passed need not know of ``annotated`` where all is."""
    return compute.loss(outputs, truth) if annotated is None else compute.loss(outputs, truth, annotated=annotated)


def train_step_that_fits(
    compute: Compute,
    state: TrainState,
    image_BCZYX: Tensor,
    classes_BZYX: Tensor,
    annotated_BK: Tensor | None = None,
) -> Tensor:
    """``train_step``; a batch that does not fit is computed in twice as many parts from then on.

    That is the same gradient but for the Dice of the batch, which becomes the mean over parts. Where a single patch
    does not fit the device's error goes on to the caller.
    """
    batch = image_BCZYX.shape[0]
    while True:
        try:
            return train_step(compute, state, image_BCZYX, classes_BZYX, annotated_BK)
        except Exception as error:
            # Ranks cannot know what befell one of them.
            if not ran_out_of_memory(error) or compute.ranks.count > 1 or state.counters.parts >= batch:
                raise
        # Only here, where the error no longer holds on to the tensors that filled the memory.
        state.counters.parts = min(2 * state.counters.parts, batch)
        free_memory(compute, state)
        state.scaler = fresh_scaler(state.scaler, compute.device)
        parts = state.counters.parts
        print(f"out of {compute.memory_text}: the batch of {batch} is computed in {parts} parts from now on")


def equal_parts(batch: int, fewest: int) -> int:
    """In how many parts a batch is computed, none larger than in ``fewest``: of one size, if half of that will do.

    Parts of two sizes would be two programs for a compiler, and two searches for the fastest algorithms. Nine patches
    that do not fit are three times three, not five and four.
    """
    largest = -(-batch // fewest)
    size = next((size for size in range(largest, largest // 2, -1) if batch % size == 0), largest)
    return -(-batch // size)


def fresh_scaler(scaler: torch.amp.GradScaler, device: torch.device) -> torch.amp.GradScaler:
    """The same scale in the middle of no step: one that ended after ``unscale_`` would refuse to be told so again."""
    fresh = torch.amp.GradScaler(device.type, enabled=scaler.is_enabled())
    fresh.load_state_dict(scaler.state_dict())
    return fresh


def prepare_forward(
    compute: Compute, state: TrainState, batch_size: int, *, shapes: int = 1, is_compiled: bool
) -> None:
    """Has gradients averaged over ranks and, where that ``is_compiled`` and works, the network compiled.

    ``batch_size`` is that of all ranks together, ``shapes`` the number of sizes that patches will have. Raises
    UserError where compiling does not work on one of several ranks, which must all compute alike.
    """
    ranks = compute.ranks
    if ranks.count > 1:
        averaging = ranks.averaging(state.network, compute.device)
        state.forward = averaging
        state.without_averaging = averaging.no_sync
    if is_compiled:
        _compile_forward(compute, state, batch_size // ranks.count, shapes)


def _compile_forward(compute: Compute, state: TrainState, batch: int, shapes: int) -> None:
    """Compiles the forward pass, unless that fails; in as many parts of this rank's ``batch`` as fit.

    Each of several ``shapes`` of patches, and each size of parts, is compiled for itself when its turn comes: code for
    any shape is slower.
    """
    eager = state.forward
    limit = COMPILED_BATCHES * shapes
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, limit)
    state.forward = torch.compile(eager, dynamic=False)
    try:
        while not step_fits(compute, state, -(-batch // equal_parts(batch, state.counters.parts))):
            state.counters.parts = min(2 * state.counters.parts, batch)
    except Exception as error:  # the compiler fails in too many ways to list, and training works without it
        if ran_out_of_memory(error):
            raise
        reason = first_line(error)[:160]
        if compute.ranks.count > 1:
            raise UserError(f"torch.compile is not usable here ({reason}); train with --compile off") from None
        print(f"torch.compile is not usable here, going on without it: {reason}")
        state.forward = eager
        state.optimizer.zero_grad(set_to_none=True)
        return
    torch._dynamo.config.suppress_errors = True  # what compiles for these patches but not for others runs as it is


def step_fits(compute: Compute, state: TrainState, batch: int, patch_size: Shape | None = None) -> bool:
    """Tries forward and backward of a batch; False if the device has no memory for it, but may have for half of it.

    Of the last patches, or of others where a ``patch_size`` is given. Where a single patch does not fit the device's
    error goes on to the caller.
    """
    try:
        empty_step(compute, state, batch, patch_size)
        return True
    except Exception as error:
        if not ran_out_of_memory(error) or compute.ranks.count > 1 or batch == 1:
            raise
    # Only here, where the error no longer holds on to the tensors that filled the memory.
    free_memory(compute, state)
    return False


def free_memory(compute: Compute, state: TrainState) -> None:
    """Gives back what gradients and freed tensors hold of the device."""
    state.optimizer.zero_grad(set_to_none=True)
    if compute.device.type == "cuda":
        torch.cuda.empty_cache()


def empty_step(compute: Compute, state: TrainState, batch: int, patch_size: Shape | None = None) -> None:
    """Forward and backward on empty patches; weights and optimiser stay as they are. Returns when it is done."""
    patch = patch_size or compute.patch_size
    image = torch.zeros(batch, compute.in_channels, *patch, device=compute.device)
    truth = torch.zeros(batch, *patch, dtype=torch.long, device=compute.device)
    if compute.truth_channels is not None:
        truth = torch.zeros(batch, compute.truth_channels, *patch, device=compute.device)
    buffers = {name: buffer.clone() for name, buffer in state.network.named_buffers()}  # such as running means
    with autocast(compute.device, compute.precision):
        outputs = state.forward(image)
    loss = compute.loss(outputs, truth)
    loss.backward()
    float(loss.detach())  # reading a value waits for the device
    state.optimizer.zero_grad(set_to_none=True)
    for name, buffer in state.network.named_buffers():
        buffer.copy_(buffers[name])


@contextlib.contextmanager
def memory_errors_named(folder: Path, compute: Compute, batch_size: int | None) -> Iterator[None]:
    """Turns running out of memory, where even a single patch does not fit, into TooLittleMemory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        size = f"batch {batch_size}" if batch_size else "a patch"
        advice = "--accumulate 2" if compute.ranks.count > 1 else "a smaller --batch-size"
        raise TooLittleMemory(
            f"{folder}: {compute.device} ran out of {compute.memory_text} with {size}; train with {advice}, or plan "
            "again with a smaller --gpu-memory-gb"
        ) from None


def is_finite(network: nn.Module) -> bool:
    """True if every weight is a number; waits for the device once."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in network.state_dict().values()]).all())
