"""Batches for the trainer: drawn and cut in threads, finished (warped, augmented) on the training device.

Threads, not worker processes: decompression and copies release the interpreter, so there is no worker to die, hang or
fill shared memory.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segfw.data.geometry import Shape
from segfw.data.parallel import free_memory_bytes
from segfw.data.preprocess import Preprocessing
from segfw.data.store import CaseArrays, load_stored, open_case, stored_bytes
from segfw.records import UserError
from segfw.training.augment import (
    IntensityParams,
    SpatialParams,
    augment_intensity,
    draw_intensity,
    draw_spatial,
    source_size,
    warp,
)
from segfw.training.sampling import draw_sample, generator, is_forced_foreground

MEMORY_SHARE = 0.4  # of the free memory that a data set may fill to be kept whole
BATCHES_AHEAD = 3


@dataclass(frozen=True, kw_only=True)
class CutPatch:
    """The box read for one sample, still on the host, and what is to be done to it."""

    image_czyx: Tensor
    classes_zyx: Tensor
    present: tuple[int, ...]
    spatial: SpatialParams | None
    intensity: IntensityParams | None


@dataclass(frozen=True, kw_only=True)
class CutBatch:
    """All samples of one step."""

    step: int
    patches: tuple[CutPatch, ...]


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Makes batches from preprocessed cases. The same (seed, stream, step) always gives the same batch."""

    cases: Sequence[CaseArrays]
    patch_size: Shape
    batch_size: int
    seed: int
    stream: int
    augment: bool
    mirror_axes: tuple[int, ...]
    foreground_share: float

    @cached_property
    def _shapes(self) -> list[Shape]:
        return [case.classes.shape for case in self.cases]

    @cached_property
    def _foregrounds(self) -> list[dict[int, np.ndarray]]:
        return [case.foreground for case in self.cases]

    @cached_property
    def _annotated(self) -> list[np.ndarray | None]:
        return [case.annotated for case in self.cases]

    def cut(self, step: int) -> CutBatch:
        """Draws and reads the samples of one step, on the host."""
        return CutBatch(step=step, patches=tuple(self._cut_patch(step, index) for index in range(self.batch_size)))

    def _cut_patch(self, step: int, index: int) -> CutPatch:
        rng = generator(self.seed, self.stream, step, index)
        forced = is_forced_foreground(index, self.batch_size, self.foreground_share)
        sample = draw_sample(rng, self._shapes, self._foregrounds, self.patch_size, forced, self._annotated)
        case = self.cases[sample.case]
        spatial = intensity = None
        if self.augment:
            spatial = draw_spatial(rng, self.patch_size, self.mirror_axes)
            intensity = draw_intensity(rng, case.image.shape[0])
        size = source_size(self.patch_size, spatial.matrix if spatial else None)
        start = tuple(first - (n - p) // 2 for first, n, p in zip(sample.start, size, self.patch_size))
        classes = cut_padded(case.classes, start, size)
        return CutPatch(
            image_czyx=torch.from_numpy(cut_padded(case.image, start, size)),
            classes_zyx=torch.from_numpy(classes.astype(np.int16)),
            present=tuple(int(value) for value in np.unique(classes)),
            spatial=spatial,
            intensity=intensity,
        )

    def finish(self, batch: CutBatch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Image (B, C, Z, Y, X) float32 and classes (B, Z, Y, X) int64 on ``device``, augmented."""
        images, classes = [], []
        for patch in batch.patches:
            image = _to_device(patch.image_czyx, device).float()
            labels = _to_device(patch.classes_zyx, device)
            if patch.spatial is not None:
                image, labels = warp(image, labels, patch.present, patch.spatial, self.patch_size)
            images.append(image)
            classes.append(labels)
        image_bczyx, classes_bzyx = torch.stack(images), torch.stack(classes).long()
        if self.augment:
            params = [patch.intensity for patch in batch.patches]
            noise_seed = int(generator(self.seed, self.stream, batch.step, self.batch_size).integers(2**62))
            image_bczyx = augment_intensity(image_bczyx, params, self.patch_size, noise_seed)
        return image_bczyx, classes_bzyx


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def cut_padded(array: np.ndarray, start: Shape, size: Shape) -> np.ndarray:
    """Box of the last three axes, which may hang over the array's border; what lies outside is 0."""
    shape = array.shape[-3:]
    inside = [(max(0, first), min(edge, first + n)) for first, n, edge in zip(start, size, shape)]
    leading = (slice(None),) * (array.ndim - 3)
    part = array[(*leading, *(slice(low, max(low, high)) for low, high in inside))]
    if part.shape[-3:] == tuple(size):
        return np.ascontiguousarray(part)
    result = np.zeros((*array.shape[:-3], *size), dtype=array.dtype)
    target = tuple(slice(low - first, max(low, high) - first) for (low, high), first in zip(inside, start))
    result[(*leading, *target)] = part
    return result


def open_cases(folder: Path, case_ids: Sequence[str], how: Preprocessing) -> list[CaseArrays]:
    """Opens preprocessed cases, wholly in memory if they take less than MEMORY_SHARE of what is free.

    Raises UserError if a case is not preprocessed, or was for another plan.
    """
    for case_id in case_ids:
        if load_stored(folder, case_id).preprocessing != how:
            raise UserError(
                f"{folder}: {case_id} was preprocessed for another plan; run segfw plan-and-preprocess again"
            )
    fits = sum(stored_bytes(folder, list(case_ids))) < MEMORY_SHARE * free_memory_bytes()
    return [open_case(folder, case_id, in_memory=fits) for case_id in case_ids]


class Feeder:
    """Runs ``cut`` for the next steps in threads, a few ahead; ``stalled_s`` is how long the trainer had to wait."""

    def __init__(self, cut: Callable[[int], CutBatch], first_step: int, workers: int = 2) -> None:
        self.stalled_s = 0.0
        self._cut = cut
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self._next_step = first_step
        self._coming: deque = deque()

    def __iter__(self) -> Iterator[CutBatch]:
        while True:
            while len(self._coming) < BATCHES_AHEAD:
                self._coming.append(self._pool.submit(self._cut, self._next_step))
                self._next_step += 1
            asked = time.perf_counter()
            batch = self._coming.popleft().result()
            self.stalled_s += time.perf_counter() - asked
            yield batch

    def close(self) -> None:
        """Ends the threads; batches that were cut ahead are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
