"""How deep the U-Net is and where it pools: nnU-Net's rule (Isensee et al. 2021, Methods, 'network topology')."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

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
    spacing, size = list(spacing_mm), list(patch_size)
    dimensions = range(len(spacing))
    kernel = [1] * len(spacing)
    strides, kernels, multiple_of = [tuple(kernel)], [], [1] * len(spacing)
    while True:
        long_enough = [axis for axis in dimensions if size[axis] >= 2 * SMALLEST_FEATURE_EDGE]
        if not long_enough:
            break
        finest = min(spacing[axis] for axis in long_enough)
        pooled = [axis for axis in long_enough if spacing[axis] / finest < SAME_SCALE]
        if len(pooled) == 1 and size[pooled[0]] < 3 * SMALLEST_FEATURE_EDGE:
            break
        finest_of_all = min(spacing)
        kernel = [3 if size_3 == 3 or s / finest_of_all < SAME_SCALE else 1 for size_3, s in zip(kernel, spacing)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in pooled else 1 for axis in dimensions))
        for axis in pooled:
            spacing[axis] *= 2
            size[axis] = ceil(size[axis] / 2)
            multiple_of[axis] *= 2
    kernels.append((3,) * len(spacing))
    padded = tuple(ceil(length / step) * step for length, step in zip(patch_size, multiple_of))
    return Topology(strides=tuple(strides), kernels=tuple(kernels), patch_size=padded, multiple_of=tuple(multiple_of))
