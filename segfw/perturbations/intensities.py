"""Changes of intensities alone: grid and anatomy stay as they are.

Results are float32. Integer images keep to the range of their type, as a scanner's file would. Padding (see
``intensity_scale``) is what no scanner measured, and keeps its value where a change would give it another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np

from segfw.images.volume import Volume
from segfw.perturbations.intensity_scale import IntensityScale, intensity_scale

# Voxels (Z, Y, X) as float32 and their scale to voxels of the same shape
ChannelChange = Callable[[np.ndarray, IntensityScale], np.ndarray]
HIGHEST_ORDER = 3  # of the polynomials that shading is drawn from; a coil's field has no finer structure


def with_changed_channels(volume: Volume, change: ChannelChange) -> Volume:
    """Every channel changed by itself, then kept to its type's range, and its padding as it was."""
    changed = np.empty(volume.array.shape, dtype=np.float32)
    for channel, voxels in enumerate(volume.array):
        scale = intensity_scale(voxels)
        new = change(voxels.astype(np.float32), scale)
        if scale.is_padded:
            new = np.where(voxels == scale.floor, np.float32(scale.floor), new)
        changed[channel] = new
    if volume.array.dtype.kind in "iu":
        limits = np.iinfo(volume.array.dtype)
        np.clip(changed, limits.min, limits.max, out=changed)
    return replace(volume, array=changed)


def noisy(volume: Volume, sd_of_foreground: float, rng: np.random.Generator) -> Volume:
    """White Gaussian noise whose standard deviation is a multiple of that of the foreground, each channel by itself."""

    def change(voxels: np.ndarray, scale: IntensityScale) -> np.ndarray:
        noise = rng.standard_normal(voxels.shape, dtype=np.float32)
        return voxels + np.float32(sd_of_foreground * scale.sd) * noise

    return with_changed_channels(volume, change)


def with_gamma(volume: Volume, exponent: float) -> Volume:
    """Intensities between the foreground's percentiles raised to ``exponent``; the rest goes on in a straight line."""

    def change(voxels: np.ndarray, scale: IntensityScale) -> np.ndarray:
        width = scale.high - scale.low
        if width <= 0:
            return voxels
        inside = ((voxels - scale.low) / width).clip(0, 1)
        beyond = voxels - voxels.clip(scale.low, scale.high)
        return (scale.low + width * inside**exponent + beyond).astype(np.float32)

    return with_changed_channels(volume, change)


def inverted(volume: Volume) -> Volume:
    """Contrast turned over: what was bright is dark, within the foreground's percentiles; padding stays."""

    def change(voxels: np.ndarray, scale: IntensityScale) -> np.ndarray:
        return np.float32(scale.low + scale.high) - voxels.clip(scale.low, scale.high)

    return with_changed_channels(volume, change)


def shaded(volume: Volume, field_zyx: np.ndarray) -> Volume:
    """What is above the darkest measured value multiplied by a positive field (Z, Y, X), one for all channels."""

    def change(voxels: np.ndarray, scale: IntensityScale) -> np.ndarray:
        darkest = np.float32(scale.low)
        return darkest + (voxels - darkest) * field_zyx

    return with_changed_channels(volume, change)


def linear_field(shape: tuple[int, int, int], axis: int, share: float) -> np.ndarray:
    """A field (Z, Y, X) that goes from 1 - ``share`` / 2 to 1 + ``share`` / 2 along an axis; 1 where that is flat."""
    if shape[axis] == 1:
        return np.ones(shape, dtype=np.float32)
    along = np.linspace(1 - share / 2, 1 + share / 2, shape[axis], dtype=np.float32)
    sizes = [1, 1, 1]
    sizes[axis] = shape[axis]
    return np.broadcast_to(along.reshape(sizes), shape)


def drawn_field(shape: tuple[int, int, int], share: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth field (Z, Y, X) such as a coil's: the exponential of a drawn polynomial of third order.

    Its logarithm goes from -log(1 + share) to log(1 + share).
    """
    axes = [np.linspace(-1, 1, size, dtype=np.float32) if size > 1 else np.zeros(1, np.float32) for size in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    logarithm = np.zeros(shape, dtype=np.float32)
    for i, j, k in product(range(HIGHEST_ORDER + 1), repeat=3):
        if 0 < i + j + k <= HIGHEST_ORDER:
            logarithm += np.float32(rng.standard_normal()) * z**i * y**j * x**k
    logarithm -= (logarithm.max() + logarithm.min()) / 2
    largest = float(np.abs(logarithm).max())
    if largest > 0:
        logarithm *= np.log1p(share) / largest
    return np.exp(logarithm)
