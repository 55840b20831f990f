"""What each sample of each batch is, drawn from (seed, step, sample) alone: any batch can be made again by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segfw.images.geometry import Shape, as_shape

TRAINING_STREAM = 0
VALIDATION_STREAM = 1


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A patch to cut: which case and the voxel where its first corner lies (negative or beyond where it overhangs)."""

    case: int
    start: Shape


def generator(seed: int, stream: int, step: int, sample: int) -> np.random.Generator:
    """A counter-based generator that belongs to one sample of one step."""
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, sample, step]))


def is_forced_foreground(sample: int, batch_size: int, share: float) -> bool:
    """True for the last ``share`` of a batch: at least one of two, as in the recipe."""
    return sample >= round(batch_size * (1 - share))


def draw_sample(
    rng: np.random.Generator,
    shapes: Sequence[Shape],
    foregrounds: Sequence[Mapping[int, np.ndarray]],
    patch_size: Shape,
    force_foreground: bool,
    annotated: Sequence[np.ndarray | None] = (),
    weights: Sequence[float] = (),
) -> Sample:
    """Draws a case, then a patch: anywhere, or around a voxel of a structure drawn among those in the case.

    Cases are drawn uniformly or, with ``weights``, so often in relation to each other.

    ``annotated`` lists, for cases that are not annotated everywhere, voxels that are: one of them is then the centre
    instead of anywhere.
    """
    case = draw_weighted(rng, weights) if len(weights) else int(rng.integers(len(shapes)))
    shape = shapes[case]
    limits = [start_limits(size, patch) for size, patch in zip(shape, patch_size)]

    # Voxels one of which shall be the centre; None for a patch anywhere
    voxels = annotated[case] if annotated else None
    foreground = foregrounds[case]
    if force_foreground and foreground:
        structure = list(foreground)[int(rng.integers(len(foreground)))]
        voxels = foreground[structure]

    if voxels is None or len(voxels) == 0:
        start = as_shape(int(rng.integers(low, high + 1)) for low, high in limits)
    else:
        start = patch_around(int(voxels[int(rng.integers(len(voxels)))]), shape, patch_size)
    return Sample(case=case, start=start)


def patch_around(voxel: int, shape: Shape, patch_size: Shape) -> Shape:
    """The start of the patch with that voxel, a flat index, in its middle, as far as it stays inside the image.

    On both sides; the reference lets patches hang over the far border.
    """
    limits = [start_limits(size, patch) for size, patch in zip(shape, patch_size)]
    wanted = [int(at) - patch // 2 for at, patch in zip(np.unravel_index(voxel, shape), patch_size)]
    return as_shape(min(max(first, low), high) for first, (low, high) in zip(wanted, limits))


def draw_weighted(rng: np.random.Generator, weights: Sequence[float]) -> int:
    """An index, each as often as its weight says in relation to the others."""
    ends = np.cumsum(weights)
    return int(np.searchsorted(ends[:-1], rng.random() * ends[-1], side="right"))


def start_limits(size: int, patch: int) -> tuple[int, int]:
    """First and last start along an axis; a patch longer than the image is centred on it."""
    if size >= patch:
        return 0, size - patch
    start = -((patch - size) // 2)
    return start, start
