"""How much of the host's memory a prediction may take, and in what its sums are kept so that this is enough."""

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
class SumStorage:
    """Data type of the sums, and whether they lie in a file that is mapped into memory."""

    dtype: torch.dtype
    on_disk: bool = False


FLOAT32 = SumStorage(dtype=torch.float32)
FLOAT16 = SumStorage(dtype=torch.float16)
ON_DISK = SumStorage(dtype=torch.float16, on_disk=True)


@dataclass(kw_only=True)
class LearnedLimits:
    """What was found to fit into memory, remembered from case to case, and which notes were printed of it."""

    copies: int | None = None  # of tiles in one call of a network; None until something did not fit
    sums_on_host: bool = False  # the sums do not fit on the device beside the network
    scratch: Path | None = None  # folder for sums on disk; None: the system's for temporary files
    least_room_bytes: float = LEAST_ROOM_BYTES
    say: Callable[[str], None] = print
    printed: set[str] = field(default_factory=set)

    def say_once(self, note: str) -> None:
        """Prints a note that has not been printed before."""
        if note not in self.printed:
            self.printed.add(note)
            self.say(f"note: {note}")

    def keep_sums_on_host(self) -> None:
        """Remembers that sums do not fit on the device."""
        self.sums_on_host = True
        self.say_once("the device has no memory for the sums beside the network; they are kept on the host")


def host_room_bytes(max_memory_gb: float | None) -> float:
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


def choose_storage(values: int, room_bytes: float, least_room_bytes: float = LEAST_ROOM_BYTES) -> SumStorage:
    """In what ``values`` sums are kept in ``room_bytes`` of memory.

    Float32 in memory, else float16 in memory, else float16 in a file, whose pages the system takes back when it needs
    them. Raises UserError, which says how much more would do, if there is not even room for some of those pages, which
    take ``least_room_bytes``.
    """
    for storage in (FLOAT32, FLOAT16):
        if values * storage.dtype.itemsize <= room_bytes:
            return storage
    if room_bytes >= least_room_bytes:
        return ON_DISK
    missing = (least_room_bytes - room_bytes) / GIGABYTE
    raise UserError(
        f"the prediction needs {missing:.2f} GB of memory more than it may take, even with its sums on disk; give a "
        "larger --max-memory-gb, or free memory"
    )


def storage_note(storage: SumStorage, values: int, room_bytes: float, folder: Path) -> str:
    """One line on a choice that is not the first; '' for that one."""
    if storage == FLOAT32:
        return ""
    wanted_gb = values * FLOAT32.dtype.itemsize / GIGABYTE
    room_gb = max(0, room_bytes) / GIGABYTE
    reason = f"float32 would take {wanted_gb:.1f} GB, and there is room for {room_gb:.1f}"
    if not storage.on_disk:
        return f"sums are kept in float16: {reason}"
    file_gb = values * storage.dtype.itemsize / GIGABYTE
    return f"sums are kept in a file of {file_gb:.1f} GB in {folder}, which is slower: {reason}"


def allocate(storage: SumStorage, shape: tuple[int, ...], device: torch.device, folder: Path | None = None) -> Tensor:
    """Zeros; on disk in a file without a name, which is gone with the tensor. Raises UserError if the disk is full."""
    if not storage.on_disk:
        return torch.zeros(shape, dtype=storage.dtype, device=device)
    size = prod(shape) * storage.dtype.itemsize
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
