"""Several processes that train one network: who each of them is, and how they agree.

``torchrun`` starts the processes and says in the environment who is who; without it there is one rank, and nothing
here communicates.
"""

from __future__ import annotations

import contextlib
import io
import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

# At the top and not where it is used: its functions keep the group of the moment of their import as a default, and a
# group that is kept outlives destroy_process_group. Its threads then meet the end of the interpreter, which aborts.
if torch.distributed.is_available():
    import torch.distributed.nn.functional

from segfw.base.device import pick_device

Item = TypeVar("Item")
PATIENCE = timedelta(hours=12)  # one rank may validate or write for long while the others wait


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those that train together. The default is a process alone."""

    rank: int = 0
    count: int = 1
    on_host: int = 1  # how many of them share this machine's memory

    @property
    def is_first(self) -> bool:
        """True in the one process that writes and reports."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's part: every ``count``-th item, so that no rank gets all the large ones of a sorted list."""
        return items[self.rank :: self.count]

    def samples(self, batch_size: int) -> range:
        """This rank's samples of the joined batch, which ``joined_batch`` made a multiple of the ranks."""
        part = batch_size // self.count
        return range(self.rank * part, (self.rank + 1) * part)

    def joined_batch(self, batch_size: int) -> int:
        """The batch of all ranks together: ``batch_size`` where it can be shared out, else the next multiple."""
        return -(-batch_size // self.count) * self.count

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks, on every rank."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def sum_with_gradient(self, tensor: Tensor) -> Tensor:
        """Sum over ranks through which gradients flow back to each of them."""
        if self.count == 1:
            return tensor
        return torch.distributed.nn.functional.all_reduce(tensor, group=torch.distributed.group.WORLD)

    def from_first(self, *values: float) -> tuple[float, ...]:
        """What the first rank holds, so that all do the same in the same step. Does not touch a GPU."""
        if self.count == 1:
            return values
        message = torch.tensor(values, dtype=torch.float64)
        torch.distributed.broadcast(message, 0)
        return tuple(message.tolist())

    def wait(self) -> None:
        """Returns when all ranks have come here."""
        if self.count > 1:
            torch.distributed.all_reduce(torch.zeros(1))

    def averaging(self, network: nn.Module, device: torch.device) -> nn.parallel.DistributedDataParallel:
        """The network with its gradients averaged over ranks; for several of them."""
        return nn.parallel.DistributedDataParallel(
            network,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,  # or all gradients would be there twice
        )


ALONE = Ranks()


def launched_ranks() -> Ranks:
    """Who this process is according to ``torchrun``; ALONE without it."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return ALONE
    return Ranks(rank=int(os.environ["RANK"]), count=count, on_host=int(os.environ.get("LOCAL_WORLD_SIZE", count)))


def local_device(name: str) -> torch.device:
    """The device of this rank: under ``torchrun`` 'auto' and 'cuda' are the GPU with this rank's number on its host."""
    device = pick_device(name)
    if device.type == "cuda" and device.index is None:
        return pick_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return device


@contextlib.contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Connects the ranks while the block runs; only the first one prints.

    At its end no thread of the group lives, if the caller keeps neither a network of ``Ranks.averaging`` nor a loss
    that was summed. Such a thread aborts the process if it waits for the interpreter's lock when Python ends; and
    whoever drops the last thing that holds the group waits for it for ever if it waits for that lock meanwhile.
    """
    if ranks.count == 1:
        yield
        return
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        with contextlib.nullcontext() if ranks.is_first else contextlib.redirect_stdout(io.StringIO()):
            yield
    except BaseException as error:
        _forget_variables(error)
        raise
    finally:
        torch.distributed.destroy_process_group()


def _forget_variables(error: BaseException | None) -> None:
    """Empties the frames that an error has left and still holds: networks and losses in them hold the group."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
