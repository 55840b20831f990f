"""What is done to each sample, drawn on the host from the sample's own generator; ``augment`` applies it.

Drawing (NumPy, cheap) is apart from applying (torch, batched), so that any batch can be made again, the box that a warp
needs is known before it is read, and another implementation can be given the same parameters. Probabilities and ranges:
Isensee et al. 2021, supplement, as nnU-Net v2 has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from segfw.images.geometry import Shape, as_shape
from segfw.planning.patch_shape import is_in_plane, largest_angle

ELASTIC_CHANCE = 0.2  # where elastic deformation is wanted at all
# Cubic B-splines with control points this share of the patch apart, which is as smooth as white noise blurred with a
# sigma of 0.58 of that: about 0.06 to 0.25 of the patch, as in batchgenerators' augment_spatial_2.
ELASTIC_SPACING = (0.1, 0.43)
# Largest move of a control point in spacings of them. Up to 0.4 such a field never folds (Choi & Lee 2000).
ELASTIC_REACH = (0.1, 0.4)


@dataclass(frozen=True, kw_only=True)
class SpatialParams:
    """Which voxel of the image each voxel of the patch shows, as offsets from the patch's centre (z, y, x) in voxels.

    The patch is mirrored, then ``matrix`` maps its offsets to the image's, then ``control`` moves them.
    """

    matrix: np.ndarray | None = None  # (3, 3); None: neither turned nor scaled
    mirrored: tuple[int, ...] = ()
    control: np.ndarray | None = None  # (3, Z, Y, X) moves in voxels of a B-spline's control points; None: not bent

    @property
    def is_warped(self) -> bool:
        """True if voxels must be interpolated."""
        return self.matrix is not None or self.control is not None


@dataclass(frozen=True, kw_only=True)
class IntensityParams:
    """Parameters of one sample, one entry per channel; the neutral value means that nothing is done."""

    noise_std: float
    blur_sigma: np.ndarray  # (C, 3) in voxels, 0 = none
    brightness: np.ndarray  # (C,) factor, 1 = none
    contrast: np.ndarray  # (C,) factor, 1 = none
    zoom: np.ndarray  # (C,) share of the resolution that is kept, 1 = all
    gamma_inverted: np.ndarray  # (C,) exponent on the inverted image, 1 = none
    gamma: np.ndarray  # (C,) exponent, 1 = none


def draw_spatial(
    rng: np.random.Generator, patch_size: Shape, mirror_axes: tuple[int, ...], elastic: bool = False
) -> SpatialParams:
    """Rotation (p 0.2), scaling 0.7-1.4 (p 0.2), mirroring (p 0.5 per axis), and elastic deformation if wanted."""
    in_plane = is_in_plane(patch_size)
    matrix = np.eye(3)
    is_rotated = rng.random() < 0.2
    is_scaled = rng.random() < 0.2
    limit = largest_angle(patch_size)
    angles = rng.uniform(-limit, limit, 3)
    if is_rotated:
        for axis in (0,) if in_plane else (0, 1, 2):
            matrix = matrix @ _rotation(axis, angles[axis])
    scale = rng.uniform(0.7, 1.4)
    if is_scaled:
        matrix = matrix @ np.diag([1.0 if in_plane else scale, scale, scale])
    flips = rng.random(3) < 0.5
    return SpatialParams(
        matrix=matrix if is_rotated or is_scaled else None,
        mirrored=tuple(axis for axis in mirror_axes if flips[axis]),
        control=_draw_control(rng, patch_size) if elastic and rng.random() < ELASTIC_CHANCE else None,
    )


def _rotation(axis: int, angle: float) -> np.ndarray:
    first, second = (other for other in range(3) if other != axis)
    matrix = np.eye(3)
    matrix[first, first] = np.cos(angle)
    matrix[first, second] = -np.sin(angle)
    matrix[second, first] = np.sin(angle)
    matrix[second, second] = np.cos(angle)
    return matrix


def _draw_control(rng: np.random.Generator, patch_size: Shape) -> np.ndarray:
    """Moves of the control points: as many apart, in shares of the patch, along every axis; none out of a plane."""
    in_plane = is_in_plane(patch_size)
    spacing = rng.uniform(*ELASTIC_SPACING)
    around = ceil(1 / spacing) + 3  # a cubic spline is made of four control points everywhere
    moves = rng.uniform(-1, 1, (3, 1 if in_plane else around, around, around))
    reach = rng.uniform(*ELASTIC_REACH) * np.asarray(patch_size) / (around - 3)
    if in_plane:
        reach[0] = 0
    return moves * reach[:, None, None, None]


def draw_intensity(rng: np.random.Generator, channels: int) -> IntensityParams:
    """Noise 0.1, blur 0.2, brightness 0.15, contrast 0.15, low resolution 0.25, inverted gamma 0.1, gamma 0.3."""

    def around_one(p: float, low: float, high: float) -> np.ndarray:
        """Per channel below or above 1 with equal chance, for the whole sample with probability ``p``."""
        is_low = rng.random(channels) < 0.5
        below = rng.uniform(low, 1, channels)
        above = rng.uniform(1, high, channels)
        is_changed = rng.random() < p
        return np.where(is_low, below, above) if is_changed else np.ones(channels)

    noise_std = float(rng.uniform(0, 0.1)) if rng.random() < 0.1 else 0.0
    blurred = (rng.random() < 0.2) & (rng.random(channels) < 0.5)
    blur_sigma = rng.uniform(0.5, 1.0, (channels, 3)) * blurred[:, None]
    brightness = around_one(0.15, 0.75, 1.25)
    contrast = around_one(0.15, 0.75, 1.25)
    coarser = (rng.random() < 0.25) & (rng.random(channels) < 0.5)
    zoom = np.where(coarser, rng.uniform(0.5, 1.0, channels), 1.0)
    gamma_inverted = around_one(0.1, 0.7, 1.5)
    gamma = around_one(0.3, 0.7, 1.5)
    return IntensityParams(
        noise_std=noise_std,
        blur_sigma=blur_sigma,
        brightness=brightness,
        contrast=contrast,
        zoom=zoom,
        gamma_inverted=gamma_inverted,
        gamma=gamma,
    )


def source_size(patch_size: Shape, params: SpatialParams) -> Shape:
    """Voxels that must be read around the patch centre so that the warped patch finds all its neighbours."""
    half = (np.asarray(patch_size) - 1) / 2
    reach = half if params.matrix is None else np.abs(params.matrix) @ half
    if params.control is not None:
        reach = reach + np.abs(params.control).max((1, 2, 3))  # a spline stays within its control points
    # Grown alike on both sides, so that both centres stay the same point. A turn's rounding is no reason to read more.
    margins = [ceil(max(0.0, far - near - 1e-6)) for far, near in zip(reach, half)]
    return as_shape(patch + 2 * margin for patch, margin in zip(patch_size, margins))
