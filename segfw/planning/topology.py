"""How deep the U-Net is and where it pools: nnU-Net's rule (Isensee et al. 2021, Methods, 'network topology')."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, prod

SMALLEST_FEATURE_EDGE = 4  # voxels along an axis at the bottom of the U-Net
SAME_SCALE = 2.0  # axes whose spacings differ by less than this are treated alike


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Strides and kernels per stage, finest first, the patch padded to fit, and what it must be a multiple of."""

    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    patch_size: tuple[int, ...]
    multiple_of: tuple[int, ...]

    @property
    def is_2d(self) -> bool:
        """True if it is made for slices."""
        return len(self.patch_size) == 2


def unet_topology(spacing_mm: Sequence[float], patch_size: Sequence[float]) -> Topology:
    """Pools axes while they are long enough, the finest first, until the voxels are isotropic.

    An axis is pooled together with those whose spacing is within a factor of two of the finest one that can still be
    pooled, and has kernel 3 from the stage on where its spacing is within a factor of two of the finest of all.
    """
    spacing = list(spacing_mm)
    size = list(patch_size)
    dimensions = range(len(spacing))
    kernel = [1] * len(spacing)
    strides = [tuple(kernel)]
    kernels = []
    multiple_of = [1] * len(spacing)
    while True:
        long_enough = [axis for axis in dimensions if size[axis] >= 2 * SMALLEST_FEATURE_EDGE]
        if not long_enough:
            break
        finest = min(spacing[axis] for axis in long_enough)
        pooled = [axis for axis in long_enough if spacing[axis] / finest < SAME_SCALE]
        if len(pooled) == 1 and size[pooled[0]] < 3 * SMALLEST_FEATURE_EDGE:
            break
        finest_of_all = min(spacing)
        kernel = [3 if edge == 3 or s / finest_of_all < SAME_SCALE else 1 for edge, s in zip(kernel, spacing)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in pooled else 1 for axis in dimensions))
        for axis in pooled:
            spacing[axis] *= 2
            size[axis] = ceil(size[axis] / 2)
            multiple_of[axis] *= 2
    kernels.append((3,) * len(spacing))
    padded = tuple(ceil(length / step) * step for length, step in zip(patch_size, multiple_of))
    return Topology(strides=tuple(strides), kernels=tuple(kernels), patch_size=padded, multiple_of=tuple(multiple_of))


def catching_up_topology(spacing_mm: Sequence[float], patch_size: Sequence[float], *, most_stages: int) -> Topology:
    """Finer axes are halved alone until the voxels are isotropic to a factor of two, then all: MONAI's SegResNet.

    As many stages as the U-Net would have, at least two and at most ``most_stages``. An axis that waits has kernel 1.
    """
    stages = _stages_within(spacing_mm, patch_size, most_stages)
    # Halvings by which each axis is finer than the coarsest; having made them, it waits until all axes are as coarse.
    finer = [min(floor(log2(max(spacing_mm) / spacing)), stages - 1) for spacing in spacing_mm]
    halved = []
    for stage in range(stages):
        halved.append(tuple(1 if halvings <= stage < max(finer) else 2 for halvings in finer))
    kernels = tuple(tuple(3 if step == 2 else 1 for step in steps) for steps in halved)
    return _padded(((1,) * len(spacing_mm), *halved[:-1]), kernels, patch_size)


def even_topology(
    spacing_mm: Sequence[float], patch_size: Sequence[float], *, most_stages: int, fixed: bool = False
) -> Topology:
    """All axes are halved alike, whatever their spacing, with kernels of 3: MONAI's MedNeXt and Swin UNETR.

    As many stages as the U-Net would have, at least two and at most ``most_stages``; always that many if ``fixed``.
    """
    stages = most_stages if fixed else _stages_within(spacing_mm, patch_size, most_stages)
    dimensions = len(spacing_mm)
    strides = ((1,) * dimensions, *((2,) * dimensions,) * (stages - 1))
    kernels = ((3,) * dimensions,) * stages
    return _padded(strides, kernels, patch_size)


def _stages_within(spacing_mm: Sequence[float], patch_size: Sequence[float], most: int) -> int:
    return min(most, max(2, len(unet_topology(spacing_mm, patch_size).strides)))


def _padded(
    strides: tuple[tuple[int, ...], ...], kernels: tuple[tuple[int, ...], ...], patch_size: Sequence[float]
) -> Topology:
    """The topology with the patch padded to what it must be a multiple of."""
    multiple_of = tuple(prod(steps) for steps in zip(*strides))
    edges = [ceil(length / step) for length, step in zip(patch_size, multiple_of)]
    if prod(edges) == 1:
        edges[-1] = 2  # a norm over a single voxel is no norm
    padded = tuple(edge * step for edge, step in zip(edges, multiple_of))
    return Topology(strides=strides, kernels=kernels, patch_size=padded, multiple_of=multiple_of)
