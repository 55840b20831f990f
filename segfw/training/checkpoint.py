"""The state of a training run, and its checkpoint: one file, whole or absent, from which a run resumes exactly."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from segfw.base.file_names import CHECKPOINT_FILE as CHECKPOINT_FILE
from segfw.base.files import whole_file
from segfw.base.records import UserError
from segfw.base.words import first_line
from segfw.base.written_by_people import parse_json
from segfw.model.training_record import Events
from segfw.model.weights import load_tensors, require_usable, save_tensors

GOOD_FILE = "good.safetensors"
CHECKPOINT_EVERY_S = 60.0

Forward = Callable[[Tensor], Sequence[Tensor]]  # image (B, C, Z, Y, X) -> logits of all decoder stages, finest first


@dataclass(kw_only=True)
class Counters:
    """All that a run counts and remembers besides its weights."""

    epoch: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    prepared_s: float = 0.0  # of it, before the first step
    stage: int = 0  # of growing patches
    seen_voxels: int = 0  # of all patches so far
    epoch_steps: int = 0  # of the epoch that is under way
    epoch_loss: float = 0.0  # their sum
    epoch_s: float = 0.0
    smoothed_dice: float | None = None  # of patches, or what else their score is
    best_smoothed: float | None = None
    best_epoch: int = 0  # in which it was reached
    best_dice: float | None = None  # of the weights kept as best: whole cases, or patches where none validates
    whole_tiles: int = 0  # that whole cases were predicted in, for validation
    warm_from: int = 0  # step from which the learning rate last rose
    cool_from: int | None = None  # step from which it falls to an early end, by ``cool_steps``
    cool_steps: int = 0
    cool_rate: float = 0.0
    rate_factor: float = 1.0  # below 1 after the run diverged
    rescues: int = 0
    rescued_epoch: int = 0  # in which the last one was
    parts: int = 1  # that a batch is computed in
    kept: list[float] = field(default_factory=list)  # parts of the schedule after which the weights were kept
    events: Events = field(default_factory=Events)  # what befell the epoch that is under way, for its row


@dataclass(kw_only=True)
class TrainState:
    """All that changes while training; weights, momentum, scale and counters are saved and restored together."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    forward: Forward  # the network, or what is made of it: compiled, or with its gradients averaged over ranks
    without_averaging: Callable[[], AbstractContextManager[None]] = nullcontext  # of gradients, over ranks
    counters: Counters = field(default_factory=Counters)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that a checkpoint holds, apart from the state that goes on changing.

    ``copied`` is the end of its copies from a CUDA device, None where there was nothing to wait for.
    """

    tensors: dict[str, Tensor]
    text: str
    copied: torch.cuda.Event | None


class Snapshots:
    """Takes snapshots into the same memory of the host again and again, so that one may be in use at a time.

    Of a CUDA device they are copied into pinned memory, between two steps on the stream of the training, which the host
    does not wait for.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(self, state: TrainState) -> Snapshot:
        """Weights, momentum and counters as they are now."""
        tensors = _tensors_of(state)
        is_on_cuda = any(tensor.is_cuda for tensor in tensors.values())
        for name, tensor in tensors.items():
            if name not in self._kept or not _is_alike(self._kept[name], tensor):
                self._kept[name] = torch.empty_like(tensor, device="cpu", pin_memory=is_on_cuda)
            self._kept[name].copy_(tensor, non_blocking=is_on_cuda)
        text = json.dumps({"counters": asdict(state.counters), "scaler": state.scaler.state_dict()})
        copied = torch.cuda.current_stream().record_event() if is_on_cuda else None
        return Snapshot(tensors={name: self._kept[name] for name in tensors}, text=text, copied=copied)


def _is_alike(kept: Tensor, tensor: Tensor) -> bool:
    return (kept.shape, kept.dtype, kept.stride()) == (tensor.shape, tensor.dtype, tensor.stride())


def _tensors_of(state: TrainState) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in state.network.named_parameters()}
    tensors = {f"weights/{name}": tensor for name, tensor in state.network.state_dict().items()}
    for parameter, kept in state.optimizer.state.items():
        tensors[f"momentum/{names[id(parameter)]}"] = kept["momentum_buffer"]
    return {name: tensor.detach() for name, tensor in tensors.items()}


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Writes weights, momentum and counters to one file, atomically."""
    if snapshot.copied is not None:
        snapshot.copied.synchronize()
    save_tensors(path, snapshot.tensors, {"state": snapshot.text})


def save_checkpoint(path: Path, state: TrainState) -> None:
    """Writes weights, momentum and counters as they are now to one file, atomically."""
    write_snapshot(path, Snapshots().take(state))


class Checkpoints:
    """Writes checkpoints into ``folder`` when ``every_s`` have passed since the last; only the first rank does.

    There are two: the last one, to resume from, and the last one that validation has found good, to go back to after a
    divergence. A network can have diverged for a while before that is seen.

    A step waits for a copy of the state in memory alone; a thread writes it, one checkpoint at a time. What went wrong
    there is raised when the next one is to be written, or by ``finish``, after which all of them are on disk.
    """

    def __init__(
        self,
        folder: Path,
        is_first: bool,
        every_s: float = CHECKPOINT_EVERY_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.is_first = is_first
        self._every_s = every_s
        self._now_s = now_s
        self._saved_at = now_s()
        self._good_at = self._saved_at
        self._snapshots = Snapshots()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def is_due(self) -> bool:
        """True if the last one is old."""
        return self._now_s() - self._saved_at > self._every_s

    def is_good_due(self) -> bool:
        """True if the last good one is old."""
        return self._now_s() - self._good_at > self._every_s

    def save(self, state: TrainState, *, is_good: bool = False) -> None:
        """Takes a copy of the state now, which becomes a checkpoint; both if it is good.

        Raises what the writing of the one before has met, such as a full disk.
        """
        if self.is_first:
            self.finish()
            snapshot = self._snapshots.take(state)
            self._writing = self._writer.submit(self._write, snapshot, is_good)
        self._saved_at = self._now_s()
        if is_good:
            self._good_at = self._saved_at

    def finish(self) -> None:
        """Returns when what was saved is on disk; raises what its writing has met."""
        writing = self._writing
        self._writing = None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Ends the thread, once what was saved is on disk; raises what its writing has met."""
        self._writer.shutdown(wait=True)
        self.finish()

    def _write(self, snapshot: Snapshot, is_good: bool) -> None:
        write_snapshot(self.folder / CHECKPOINT_FILE, snapshot)
        if is_good:
            with whole_file(self.folder / GOOD_FILE) as partial:
                _same_file(self.folder / CHECKPOINT_FILE, partial)


def _same_file(path: Path, other: Path) -> None:
    """Gives a file a second name, or where the disk knows no such names a copy: neither is changed, only replaced."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def require_checkpoint(folder: Path) -> Path:
    """The checkpoint's path; raises UserError if there is none."""
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        raise UserError(f"{path}: there is no checkpoint to resume from; train without --resume")
    return path


def load_checkpoint(path: Path, state: TrainState) -> None:
    """Restores what ``save_checkpoint`` wrote; raises UserError if there is none or it is of another network."""
    tensors, metadata = load_tensors(path)
    weights = {name.removeprefix("weights/"): t for name, t in tensors.items() if name.startswith("weights/")}
    require_usable(weights, path)
    try:
        state.network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path}: is of another network ({first_line(error)}); train without --resume") from None
    for name, parameter in state.network.named_parameters():
        if f"momentum/{name}" in tensors:
            buffer = torch.empty_like(parameter).copy_(tensors[f"momentum/{name}"])
            state.optimizer.state[parameter]["momentum_buffer"] = buffer
    kept = parse_json(metadata.get("state", ""), path, finite=False)
    try:
        if kept.get("scaler"):  # empty where the arithmetic needs no scaling
            state.scaler.load_state_dict(kept["scaler"])
        # A checkpoint of an older version has its few counters beside the scaler.
        known = {each.name for each in fields(Counters)}
        counters = kept.get("counters", kept)
        state.counters = Counters(**{name: value for name, value in counters.items() if name in known})
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: does not say where the run stands ({error}); train anew with --overwrite") from None
