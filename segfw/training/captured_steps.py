"""Training steps that take one launch: recorded as a CUDA graph, and replayed on every batch of the same shape.

A step is a thousand launches and more. Where patches are small the device is done with each sooner than the host asks
for the next, and waits. A replay asks for all of them at once: forward, loss, backward, the scaler's work, clipping and
the update. It computes what was recorded, at the same addresses; so batches are copied to where the recorded one lay,
and the learning rate is a number on the device. Augmentation is not recorded: it does something else in every batch.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from segfw.base.device import is_rocm
from segfw.base.resources import ran_out_of_memory
from segfw.base.words import first_line
from segfw.training.checkpoint import TrainState
from segfw.training.cuda_graph import on_stream, recorded
from segfw.training.step import Compute, free_memory, fresh_scaler, train_step, train_step_that_fits

T = TypeVar("T")
CudaGraphs = Literal["off", "auto", "on"]

# Plain steps of each shape before one is recorded: algorithms are chosen in them, and what is made once is made.
WARM_UP_STEPS = 3
# Of the time that a step takes, what the host needs to ask for it, from which on the device is taken to wait for the
# host. A guess: no card has been asked. The driver's queue holds about a thousand launches, so that a step of 1500 of
# equal length, which a slow device works off, still keeps the host for a third of its time.
LAUNCH_BOUND_SHARE = 0.8


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """What must be as it was for a step to be the recorded one."""

    image: tuple[int, ...]
    truth: tuple[int, ...]
    types: tuple[torch.dtype, torch.dtype]
    parts: int
    momenta: tuple[float, ...]

    @classmethod
    def of(cls, state: TrainState, image: Tensor, truth: Tensor) -> _Shape:
        return cls(
            image=tuple(image.shape),
            truth=tuple(truth.shape),
            types=(image.dtype, truth.dtype),
            parts=state.counters.parts,
            momenta=tuple(group["momentum"] for group in state.optimizer.param_groups),
        )


@dataclass(frozen=True, kw_only=True)
class _Captured:
    """A recorded step, the batch that it reads and the loss that it leaves."""

    graph: torch.cuda.CUDAGraph
    image: Tensor
    truth: Tensor
    loss: Tensor


def why_not_captured(
    compute: Compute, state: TrainState, *, is_own: bool = False, is_annotated_in_part: bool = False
) -> str:
    """Why the steps of a run cannot be replayed; '' where they can. ``is_own`` is a network or loss that was passed."""
    if compute.device.type != "cuda":
        return "there is no CUDA device here"
    if is_rocm(compute.device):
        return "on AMD's cards nobody has looked into them"
    if compute.ranks.count > 1:
        return "several processes exchange gradients in the middle of a step"
    if state.forward is not state.network:
        return "the network is compiled, which spares launches as well (--compile off)"
    if is_own:
        return "a network or a loss of your own may do something else in every step"
    if is_annotated_in_part:
        return "cases that are annotated in part make every step another one"
    return ""


class CapturedSteps:
    """Takes a run's training steps: plain ones and, where that is ``wanted``, replayed ones after the first few.

    With 'auto' they are replayed where the host needs most of a step's time to ask for it. Each shape of batches is
    recorded for itself, after what the one before held is free. Where recording fails, steps are plain from then on.
    """

    def __init__(self, compute: Compute, wanted: CudaGraphs, *, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._compute = compute
        self._wanted = wanted
        self._now_s = now_s
        self._stream = torch.cuda.Stream(compute.device) if wanted != "off" else None
        self._rates: list[Tensor] = []
        self._shape: _Shape | None = None
        self._warm_up_steps = 0
        self._is_plain = False  # in this shape
        self._captured: _Captured | None = None

    @property
    def is_replaying(self) -> bool:
        """Whether a recorded step is there."""
        return self._captured is not None

    def step(self, state: TrainState, image: Tensor, truth: Tensor, annotated: Tensor | None = None) -> Tensor:
        """As ``train_step_that_fits``, to the last bit but for the learning rate, which is rounded to float32."""
        if self._stream is None or self._wanted == "off" or annotated is not None:
            return train_step_that_fits(self._compute, state, image, truth, annotated)
        shape = _Shape.of(state, image, truth)
        if shape != self._shape:
            self.forget(state)
            self._shape = shape
        if self._is_plain:
            return train_step_that_fits(self._compute, state, image, truth)
        with self._rates_on_device(state.optimizer):
            if self._warm_up_steps < WARM_UP_STEPS:
                self._warm_up_steps += 1
                return self._warm_up(state, image, truth, self._stream)
            if self._captured is None:
                self._capture(state, image, truth, self._stream)
            if self._captured is not None:
                return _replayed(self._captured, image, truth)
        return train_step_that_fits(self._compute, state, image, truth)

    def forget(self, state: TrainState) -> None:
        """Frees what the recorded step holds; the next steps are plain, then one is recorded anew.

        To be called before weights or momentum are put elsewhere than where they lay.
        """
        captured = self._captured
        self._shape = None
        self._warm_up_steps = 0
        self._is_plain = False
        self._captured = None
        if captured is not None:
            torch.cuda.synchronize(self._compute.device)  # or memory would be given away that a replay still uses
            captured.graph.reset()
            del captured
            free_memory(self._compute, state)  # gradients lie in the graph's memory

    def with_room(self, state: TrainState, work: Callable[[], T]) -> T:
        """What ``work`` returns, which goes on between steps and is the same when it is done again.

        Where memory runs out in it that a recorded step holds, that is given back, and steps are plain from then on: of
        plain ones nothing is held between them.
        """
        try:
            return work()
        except Exception as error:
            if self._captured is None or not ran_out_of_memory(error):
                raise
        # Only here, where the error no longer holds on to the tensors that filled the memory.
        self.forget(state)
        self._wanted = "off"
        tqdm.write(
            f"out of {self._compute.memory_text}: what the recorded step holds is given back, going on without CUDA "
            "graphs"
        )
        return work()

    @contextlib.contextmanager
    def _rates_on_device(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """The groups' learning rates as tensors whose values are set here; numbers again after the block.

        A number would be recorded as it is. The fused update takes float32 alone.
        """
        if not self._rates:
            self._rates = [torch.zeros((), device=self._compute.device) for _ in optimizer.param_groups]
        numbers = [group["lr"] for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, self._rates):
            rate.fill_(group["lr"])
            group["lr"] = rate
        try:
            yield
        finally:
            for group, number in zip(optimizer.param_groups, numbers):
                group["lr"] = number

    def _warm_up(self, state: TrainState, image: Tensor, truth: Tensor, stream: torch.cuda.Stream) -> Tensor:
        """A plain step on the stream that is recorded later; in the last one it is decided whether that pays."""
        is_measured = self._wanted == "auto" and self._warm_up_steps == WARM_UP_STEPS

        def step() -> Tensor:
            with on_stream(stream):
                return train_step_that_fits(self._compute, state, image, truth)

        if not is_measured:
            return step()
        loss, share = with_launch_share(step, self._compute.device, self._now_s)
        if share < LAUNCH_BOUND_SHARE:
            self._is_plain = True
            free_memory(self._compute, state)  # of this stream, which the next steps do not use
            size = " x ".join(map(str, image.shape[2:]))
            tqdm.write(
                f"--cuda-graphs auto: not for patches of {size}, whose steps the host asks for in {share:.0%} of the "
                "time that they take"
            )
        return loss

    def _capture(self, state: TrainState, image: Tensor, truth: Tensor, stream: torch.cuda.Stream) -> None:
        """Records a step on a copy of this batch, or gives that up with a line; weights stay as they are."""
        state.optimizer.zero_grad(set_to_none=True)
        image = image.clone()
        truth = truth.clone()
        try:
            graph, loss = recorded(lambda: train_step(self._compute, state, image, truth), stream)
            self._captured = _Captured(graph=graph, image=image, truth=truth, loss=loss)
            return
        except Exception as error:  # it fails in too many ways to list, and training works without it
            reason = first_line(error)[:160]
        # Only here, where the error no longer holds on to the tensors of the recording.
        self._wanted = "off"
        free_memory(self._compute, state)
        state.scaler = fresh_scaler(state.scaler, self._compute.device)
        tqdm.write(f"CUDA graphs are not usable here, going on without them: {reason}")


def _replayed(captured: _Captured, image: Tensor, truth: Tensor) -> Tensor:
    """The recorded step on another batch; nothing waits for it."""
    captured.image.copy_(image, non_blocking=True)
    captured.truth.copy_(truth, non_blocking=True)
    captured.graph.replay()
    return captured.loss.clone()  # the next replay writes its own there


def with_launch_share(
    step: Callable[[], Tensor], device: torch.device, now_s: Callable[[], float] = time.perf_counter
) -> tuple[Tensor, float]:
    """What ``step`` returns, and the share of its time in which the host has asked for all of it. Waits for it.

    About 1: the device waits for the host. Little: the host is long done, and more quickly asked for would change
    nothing.
    """
    torch.cuda.synchronize(device)
    began_s = now_s()
    result = step()
    asked_s = now_s() - began_s
    torch.cuda.synchronize(device)
    return result, asked_s / (now_s() - began_s)
