"""The recipe's rules as pure functions (Isensee et al. 2021; nnU-Net v2 where the code says more than the paper)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod

import numpy as np

from segfw.grid.resample import ANISOTROPY_LIMIT, resampled_shape
from segfw.images.geometry import Shape, Spacing, as_spacing

MASK_CROP_RATIO = 0.75  # below this share of voxels left after the crop, statistics are taken inside the mask
LARGEST_DATASET_SHARE = 0.05  # of all training voxels in one batch
SMALLEST_BATCH = 2
REFERENCE_BATCH_3D = 2  # for which the published budgets hold
REFERENCE_BATCH_2D = 12
# Beyond this a larger batch costs time in proportion and hardly makes the gradient better: our limit, not the recipe's.
MOST_PATCHES_3D = 32
MOST_PATCHES_2D = 64
VOLUME_EDGE = 256  # of the isotropic patch, in voxels, that planning starts from
AREA_EDGE = 2048  # of the same in two dimensions
LOWRES_STEP = 1.03
LOWRES_COVERAGE = 0.25  # a patch that sees less of the median case wants a lower resolution beside it
LOWRES_WORTH = 2.0  # the low resolution must have this many times fewer voxels
FIRST_FEATURES = 32
MOST_FEATURES_3D = 320
MOST_FEATURES_2D = 512


def target_spacing(spacings_mm: Sequence[Spacing], shapes: Sequence[Shape]) -> Spacing:
    """Median spacing; along a far coarser and shorter axis its 10th percentile, but no finer than the other axes.

    The finer spacing keeps the few slices of thick-slice data sets from being thinned out further.
    """
    target = np.median(np.asarray(spacings_mm, dtype=float), axis=0)
    size = np.median(np.asarray(shapes, dtype=float), axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    coarse = target[worst] > ANISOTROPY_LIMIT * target[others].max()
    short = size[worst] * ANISOTROPY_LIMIT < size[others].min()
    if coarse and short:
        fine = np.percentile([spacing[worst] for spacing in spacings_mm], 10)
        finest_other = target[others].max()
        target[worst] = fine if fine >= finest_other else finest_other + 1e-5
    return as_spacing(target)


def axis_order(
    target_mm: Spacing, median_shape: Sequence[float] | None = None, *, never_first: Collection[int] = ()
) -> tuple[int, int, int]:
    """The coarsest axis first, the others in their order; with ``median_shape`` the axis of single slices first.

    Axes that are ``never_first`` are so only where nothing else is left.
    """
    single = [axis for axis in range(3) if median_shape is not None and median_shape[axis] == 1]
    allowed = [axis for axis in range(3) if axis not in never_first] or list(range(3))
    first = single[0] if single else max(allowed, key=lambda axis: target_mm[axis])
    second, third = (axis for axis in range(3) if axis != first)
    return first, second, third


def median_resampled_shape(
    shapes: Sequence[Shape], spacings_mm: Sequence[Spacing], target_mm: Spacing
) -> tuple[float, float, float]:
    """Median over cases of the shape at the target spacing; halves are kept, as in the reference."""
    resampled = [resampled_shape(shape, spacing, target_mm) for shape, spacing in zip(shapes, spacings_mm)]
    return as_spacing(np.median(resampled, axis=0))


def first_patch(spacing_mm: Sequence[float], median_shape: Sequence[float]) -> tuple[float, ...]:
    """Patch of 256^3 voxels (2-D: 2048^2) that is as long in mm along each axis, clipped to the median shape."""
    return patch_of_edge(VOLUME_EDGE if len(spacing_mm) == 3 else AREA_EDGE, spacing_mm, median_shape)


def patch_of_edge(edge: int, spacing_mm: Sequence[float], median_shape: Sequence[float]) -> tuple[float, ...]:
    """Patch of as many voxels as one with that edge, as long in mm along each axis, clipped to the median shape."""
    shares = 1 / np.asarray(spacing_mm)
    scale = (edge ** len(spacing_mm) / prod(shares)) ** (1 / len(spacing_mm))
    return tuple(min(round(share * scale), size) for share, size in zip(shares, median_shape))


def features_per_stage(stages: int, is_2d: bool) -> tuple[int, ...]:
    """32 features, doubled with every stage up to 320 (3-D) or 512 (2-D)."""
    most = MOST_FEATURES_2D if is_2d else MOST_FEATURES_3D
    return tuple(min(FIRST_FEATURES * 2**stage, most) for stage in range(stages))


def axis_to_shrink(patch_size: Sequence[int], median_shape: Sequence[float]) -> int:
    """The axis along which the patch covers most of the median case; the last one on a tie."""
    shares = [patch / size for patch, size in zip(patch_size, median_shape)]
    return max(range(len(shares)), key=lambda axis: (shares[axis], axis))


def coarser_spacing(spacing_mm: Spacing) -> Spacing:
    """One step of the search for a low resolution: 3 % coarser, first along axes finer than half the coarsest."""
    fine = [max(spacing_mm) / value > 2 for value in spacing_mm]
    if not any(fine):
        fine = [True] * 3
    return as_spacing(value * LOWRES_STEP if is_fine else value for value, is_fine in zip(spacing_mm, fine))
