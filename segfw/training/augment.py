"""The recipe's augmentation, drawn per sample and applied on the training device.

Drawing (NumPy, cheap) is apart from applying (torch, batched), so that any batch can be made again and the same
parameters can be applied by another implementation. Probabilities and ranges: Isensee et al. 2021, supplement, as
nnU-Net v2 has them (planning-rules 2.8).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, pi

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.data.geometry import Shape

# B batch, C channel, K class, Z Y X space, R rows: single-channel images picked from the batch
ANISOTROPIC_PATCH = 3.0  # a patch this much shorter along its first axis is rotated and scaled in plane only
MOST_LINEAR_CLASSES = 8  # masks with more labels in a patch are warped by nearest neighbour


@dataclass(frozen=True, kw_only=True)
class SpatialParams:
    """Map from output to input voxel offsets around the patch centre (z, y, x), and the axes that are mirrored."""

    matrix: np.ndarray | None  # (3, 3); None where nothing but mirroring was drawn
    mirrored: tuple[int, ...]


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


def is_in_plane(patch_size: Shape) -> bool:
    """True if the patch is so flat that rotating it out of its plane would tear it apart."""
    return max(patch_size) / patch_size[0] > ANISOTROPIC_PATCH


def draw_spatial(rng: np.random.Generator, patch_size: Shape, mirror_axes: tuple[int, ...]) -> SpatialParams:
    """Rotation (p 0.2), scaling 0.7-1.4 (p 0.2), mirroring (p 0.5 per axis)."""
    in_plane = is_in_plane(patch_size)
    matrix = np.eye(3)
    is_rotated, is_scaled = rng.random() < 0.2, rng.random() < 0.2
    limit = pi if in_plane else pi / 6
    if patch_size[0] == 1 and max(patch_size[1:]) / min(patch_size[1:]) > 1.5:
        limit = pi / 12  # a long 2-D patch turned further would mostly show what lies outside of it
    angles = rng.uniform(-limit, limit, 3)
    if is_rotated:
        for axis in (0,) if in_plane else (0, 1, 2):
            matrix = matrix @ _rotation(axis, angles[axis])
    scale = rng.uniform(0.7, 1.4)
    if is_scaled:
        matrix = matrix @ np.diag([1.0 if in_plane else scale, scale, scale])
    flips = rng.random(3) < 0.5
    mirrored = tuple(axis for axis in mirror_axes if flips[axis])
    return SpatialParams(matrix=matrix if is_rotated or is_scaled else None, mirrored=mirrored)


def _rotation(axis: int, angle: float) -> np.ndarray:
    first, second = (other for other in range(3) if other != axis)
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def draw_intensity(rng: np.random.Generator, channels: int) -> IntensityParams:
    """Noise 0.1, blur 0.2, brightness 0.15, contrast 0.15, low resolution 0.25, inverted gamma 0.1, gamma 0.3."""

    def around_one(p: float, low: float, high: float) -> np.ndarray:
        """Per channel below or above 1 with equal chance, for the whole sample with probability ``p``."""
        is_low, below, above = rng.random(channels) < 0.5, rng.uniform(low, 1, channels), rng.uniform(1, high, channels)
        return np.where(is_low, below, above) if rng.random() < p else np.ones(channels)

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


def source_size(patch_size: Shape, matrix: np.ndarray | None) -> Shape:
    """Voxels that must be read around the patch centre so that the warped patch finds all its neighbours."""
    if matrix is None:
        return patch_size
    half = (np.asarray(patch_size) - 1) / 2
    reach = np.abs(matrix) @ half
    # Grown alike on both sides, so that both centres stay the same point.
    return tuple(patch + 2 * ceil(max(0.0, r - h)) for patch, r, h in zip(patch_size, reach, half))


def warp(
    image_CZYX: Tensor, classes_ZYX: Tensor, present: tuple[int, ...], params: SpatialParams, patch_size: Shape
) -> tuple[Tensor, Tensor]:
    """One patch from the box that was read for it: linear for the image, for the mask each label linearly.

    A label's weight must beat those before it, so that the mask stays within the image's edges to a fraction of a
    voxel without a one-hot copy. Outside of the box the image is 0 and the mask background. ``present`` lists the
    classes in the box: known where it was read, so that the device need not be asked.
    """
    if params.matrix is not None:
        grid = _grid(params.matrix, patch_size, tuple(image_CZYX.shape[1:]), image_CZYX.device)
        image_CZYX = _sample(image_CZYX, grid, "bilinear")
        classes_ZYX = _warp_classes(classes_ZYX, present, grid)
    if params.mirrored:
        image_CZYX = image_CZYX.flip([axis + 1 for axis in params.mirrored])
        classes_ZYX = classes_ZYX.flip(params.mirrored)
    return image_CZYX, classes_ZYX


def _grid(matrix: np.ndarray, patch_size: Shape, source: Shape, device: torch.device) -> Tensor:
    """Sampling grid (1, Z, Y, X, 3) for ``grid_sample``, whose coordinates run x, y, z from -1 to 1."""
    # Offsets in voxels -> normalised: an axis of n voxels spans n units of 2 / n (align_corners=False).
    to_unit = np.diag(2.0 / np.asarray(source)) @ matrix @ np.diag(np.asarray(patch_size) / 2.0)
    theta = torch.from_numpy(np.ascontiguousarray(to_unit[::-1, ::-1])).float().to(device, non_blocking=True)
    theta = torch.cat((theta, torch.zeros(3, 1, device=device)), 1)
    return F.affine_grid(theta[None], [1, 1, *patch_size], align_corners=False)


def _sample(image_CZYX: Tensor, grid: Tensor, mode: str) -> Tensor:
    return F.grid_sample(image_CZYX[None], grid, mode=mode, padding_mode="zeros", align_corners=False)[0]


def _warp_classes(classes_ZYX: Tensor, present: tuple[int, ...], grid: Tensor) -> Tensor:
    if len(present) > MOST_LINEAR_CLASSES:
        return _sample(classes_ZYX[None].float(), grid, "nearest")[0].to(classes_ZYX.dtype)
    foreground = [value for value in present if value != 0]
    result = torch.zeros(grid.shape[1:4], dtype=classes_ZYX.dtype, device=grid.device)
    best = remaining = None
    for value in foreground:
        weight = _sample((classes_ZYX == value)[None].float(), grid, "bilinear")[0]
        if best is None:
            best, remaining, result = weight, 1 - weight, torch.full_like(result, value)
            continue
        remaining = remaining - weight
        result = torch.where(weight > best, torch.full_like(result, value), result)
        best = torch.maximum(best, weight)
    return result if best is None else result.masked_fill(remaining > best, 0)


def augment_intensity(image_BCZYX: Tensor, params: list[IntensityParams], patch_size: Shape, noise_seed: int) -> Tensor:
    """Applies each sample's intensity changes in the recipe's order; one batched operation per kind of change."""
    shape = image_BCZYX.shape
    rows = image_BCZYX.flatten(0, 1)  # (R, Z, Y, X)
    stacked = {name: np.concatenate([getattr(p, name) for p in params]) for name in ROW_FIELDS}
    noise = np.array([p.noise_std for p in params])
    if noise.any():
        rows = _add_noise(rows.view(shape), noise, noise_seed).flatten(0, 1)
    keep_z = is_in_plane(patch_size)
    blur, gamma, inverted = stacked["blur_sigma"], stacked["gamma"], stacked["gamma_inverted"]
    rows = _on_rows(rows, blur.any(1), blur, _blur)
    rows = _on_rows(rows, stacked["brightness"] != 1, stacked["brightness"], lambda r, by: r * _column(by, r))
    rows = _on_rows(rows, stacked["contrast"] != 1, stacked["contrast"], _contrast)
    rows = _on_rows(rows, stacked["zoom"] != 1, stacked["zoom"], lambda r, zoom: _low_resolution(r, zoom, keep_z))
    rows = _on_rows(rows, inverted != 1, inverted, lambda r, exponent: -_gamma(-r, exponent))
    rows = _on_rows(rows, gamma != 1, gamma, _gamma)
    return rows.view(shape)


ROW_FIELDS = ("blur_sigma", "brightness", "contrast", "zoom", "gamma_inverted", "gamma")


def _on_rows(
    rows: Tensor, chosen: np.ndarray, values: np.ndarray, apply: Callable[[Tensor, np.ndarray], Tensor]
) -> Tensor:
    """``rows`` with ``apply(chosen rows, their values)`` in place of the chosen ones."""
    if not chosen.any():
        return rows
    index = torch.from_numpy(np.flatnonzero(chosen)).to(rows.device, non_blocking=True)
    return rows.index_copy(0, index, apply(rows.index_select(0, index), values[chosen]))


def _column(values: np.ndarray, rows: Tensor) -> Tensor:
    """One value per row, shaped to broadcast over Z Y X."""
    return torch.from_numpy(values).float().to(rows.device, non_blocking=True)[:, None, None, None]


def _add_noise(image_BCZYX: Tensor, std: np.ndarray, seed: int) -> Tensor:
    """Gaussian noise, the same in all channels of a sample, as in the reference."""
    batch, _, *space = image_BCZYX.shape
    rng = torch.Generator(image_BCZYX.device).manual_seed(seed)
    noise = torch.randn((batch, 1, *space), generator=rng, device=image_BCZYX.device)
    factor = torch.from_numpy(std).float().to(image_BCZYX.device, non_blocking=True)
    return image_BCZYX + noise * factor[:, None, None, None, None]


def _blur(rows_RZYX: Tensor, sigma_R3: np.ndarray) -> Tensor:
    """Gaussian blur with a sigma per axis in voxels; edges are repeated."""
    radius = 4  # four times the largest sigma of the recipe
    offsets = np.arange(-radius, radius + 1)
    count = rows_RZYX.shape[0]
    result = rows_RZYX[None]
    for axis in range(3):
        if rows_RZYX.shape[axis + 1] == 1:
            continue
        weights = np.exp(-0.5 * (offsets / sigma_R3[:, axis, None]) ** 2)
        weights = torch.from_numpy(weights / weights.sum(1, keepdims=True)).float()
        weights = weights.to(rows_RZYX.device, non_blocking=True)
        shape, padding = [1, 1, 1], [0] * 6
        shape[axis], padding[2 * (2 - axis)], padding[2 * (2 - axis) + 1] = 2 * radius + 1, radius, radius
        padded = F.pad(result, padding, mode="replicate")
        result = F.conv3d(padded, weights.view(count, 1, *shape), groups=count)
    return result[0]


def _contrast(rows_RZYX: Tensor, factor: np.ndarray) -> Tensor:
    """Distances from the mean times ``factor``, within the range the image had."""
    mean = rows_RZYX.mean((1, 2, 3), keepdim=True)
    low, high = rows_RZYX.amin((1, 2, 3), keepdim=True), rows_RZYX.amax((1, 2, 3), keepdim=True)
    return torch.clamp((rows_RZYX - mean) * _column(factor, rows_RZYX) + mean, low, high)


def _low_resolution(rows_RZYX: Tensor, zoom: np.ndarray, keep_z: bool) -> Tensor:
    """Fewer voxels by nearest neighbour and back by linear interpolation, as a coarser scan would look."""
    size = rows_RZYX.shape[1:]
    results = []
    for row, share in zip(rows_RZYX, zoom.tolist()):
        small = [max(1, round(edge * share)) for edge in size]
        if keep_z:
            small[0] = size[0]
        coarse = F.interpolate(row[None, None], small, mode="nearest-exact")
        results.append(F.interpolate(coarse, size, mode="trilinear", align_corners=False)[0, 0])
    return torch.stack(results)


def _gamma(rows_RZYX: Tensor, exponent: np.ndarray) -> Tensor:
    """Power law on the image scaled to its range; mean and deviation are kept."""
    axes = (1, 2, 3)
    mean, std = rows_RZYX.mean(axes, keepdim=True), rows_RZYX.std(axes, keepdim=True, correction=0)
    low = rows_RZYX.amin(axes, keepdim=True)
    extent = (rows_RZYX.amax(axes, keepdim=True) - low).clamp_min(1e-7)
    bent = ((rows_RZYX - low) / extent) ** _column(exponent, rows_RZYX) * extent + low
    bent_std = bent.std(axes, keepdim=True, correction=0).clamp_min(1e-8)
    return (bent - bent.mean(axes, keepdim=True)) / bent_std * std + mean
