"""In what the accumulators of a case are kept, so that the memory asked for is enough."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from segfw.base.records import GIGABYTE, UserError
from segfw.base.resources import free_memory_bytes
from segfw.images.geometry import Shape
from segfw.networks.spec import NetworkSpec

FREE_SHARE = 0.8  # of the free memory that a prediction may take where nobody says how much
LEAST_ROOM_BYTES = GIGABYTE // 8  # pages of a file that are at work at a time


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Data type of the accumulators, and whether they lie in a file that is mapped into memory."""

    dtype: torch.dtype
    on_disk: bool = False


FLOAT32, FLOAT16 = Keeping(dtype=torch.float32), Keeping(dtype=torch.float16)
ON_DISK = Keeping(dtype=torch.float16, on_disk=True)


@dataclass(kw_only=True)
class Limits:
    """What was found to fit, remembered from case to case, and what has been said of it."""

    copies: int | None = None  # tiles in one call of a network; None until something did not fit
    on_host: bool = False  # accumulators do not fit on the device beside the network
    folder: Path | None = None  # for accumulators on disk; None: the system's for temporary files
    say: Callable[[str], None] = print
    said: set[str] = field(default_factory=set)

    def say_once(self, note: str) -> None:
        """Prints a note that has not been printed before."""
        if note not in self.said:
            self.said.add(note)
            self.say(f"note: {note}")


def room_bytes(max_memory_gb: float | None) -> float:
    """What this process may still take of the host's memory, now that its models are loaded.

    By default a share of what is free. Raises UserError if ``max_memory_gb`` is taken already.
    """
    if max_memory_gb is None:
        return FREE_SHARE * free_memory_bytes()
    taken = psutil.Process().memory_info().rss
    if max_memory_gb * GIGABYTE <= taken:
        raise UserError(
            f"--max-memory-gb is {max_memory_gb:g}, but the program and its networks alone take "
            f"{taken / GIGABYTE:.2f} GB; give more"
        )
    return max_memory_gb * GIGABYTE - taken


def choose_keeping(values: int, room_bytes: float) -> Keeping:
    """How to keep ``values`` accumulators in ``room_bytes`` of memory.

    Float32 in memory, else float16 in memory, else float16 in a file, whose pages the system takes back when it needs
    them. Raises UserError, which says how much more would do, if there is not even room for some of those pages.
    """
    for keeping in (FLOAT32, FLOAT16):
        if values * keeping.dtype.itemsize <= room_bytes:
            return keeping
    if room_bytes >= LEAST_ROOM_BYTES:
        return ON_DISK
    missing = (LEAST_ROOM_BYTES - room_bytes) / GIGABYTE
    raise UserError(
        f"the prediction needs {missing:.2f} GB of memory more than it may take, even with its sums on disk; give a "
        "larger --max-memory-gb, or free memory"
    )


def describe(keeping: Keeping, values: int, room_bytes: float, folder: Path) -> str:
    """One line on a choice that is not the first; '' for that one."""
    if keeping == FLOAT32:
        return ""
    full, given = values * FLOAT32.dtype.itemsize / GIGABYTE, max(0, room_bytes) / GIGABYTE
    room = f"float32 would take {full:.1f} GB, and there is room for {given:.1f}"
    if not keeping.on_disk:
        return f"sums are kept in float16: {room}"
    return f"sums are kept in a file of {values * 2 / GIGABYTE:.1f} GB in {folder}, which is slower: {room}"


def allocate(keeping: Keeping, shape: tuple[int, ...], device: torch.device, folder: Path | None = None) -> Tensor:
    """Zeros; on disk in a file without a name, which is gone with the tensor. Raises UserError if the disk is full."""
    if not keeping.on_disk:
        return torch.zeros(shape, dtype=keeping.dtype, device=device)
    size = prod(shape) * keeping.dtype.itemsize
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            # Taken now: a disk that is full when a page of the mapping is written would kill the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            where = folder or tempfile.gettempdir()
            raise UserError(
                f"{where}: no room for a file of {size / GIGABYTE:.1f} GB ({error.strerror}); allow more with "
                "--max-memory-gb or set TMPDIR to a larger disk"
            ) from None
        return torch.from_numpy(np.memmap(file, dtype=np.float16, mode="r+", shape=shape))


def activation_bytes(spec: NetworkSpec, patch_size: Shape, copies: int, itemsize: int) -> int:
    """Bytes of a U-Net's tensors at the peak of a forward pass, where the finest stage of the decoder begins.

    There the skip and what was scaled up are joined (twice the features), convolved and normalised (once each), with
    the kernel's working copy of the largest. Of other architectures this is a guess.
    """
    voxels = [prod(shape) for shape in spec.stage_shapes(patch_size)]
    finest = 6 * spec.features[0] * voxels[0]
    coarser = 2 * sum(features * count for features, count in zip(spec.features[1:], voxels[1:]))
    return copies * itemsize * (finest + coarser)
