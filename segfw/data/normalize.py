"""Intensity normalisation, one function per kind of channel, applied before resampling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import model_validator

from segfw.records import Record


class IntensityStats(Record):
    """Intensities of foreground voxels over all training cases, each case counted alike."""

    mean: float
    std: float
    minimum: float
    maximum: float
    median: float
    percentile_00_5: float
    percentile_99_5: float


class Normalization(Record):
    """How one channel is normalised: a key of NORMALIZERS, and what that function needs to know."""

    kind: str
    inside_mask: bool = False  # statistics from, and values at, non-zero voxels only; the rest becomes 0
    stats: IntensityStats | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Normalization:
        if self.kind == "ct" and self.stats is None:
            raise ValueError("normalisation 'ct' needs the data set's statistics")
        return self


def clip_and_standardize(image_zyx: np.ndarray, how: Normalization, mask_zyx: np.ndarray | None) -> np.ndarray:
    """CT: clipped to the data set's 0.5 and 99.5 percentile of the foreground, then its mean and deviation removed."""
    stats = how.stats
    clipped = np.clip(image_zyx, stats.percentile_00_5, stats.percentile_99_5)
    return (clipped - np.float32(stats.mean)) / np.float32(max(stats.std, 1e-8))


def standardize(image_zyx: np.ndarray, how: Normalization, mask_zyx: np.ndarray | None) -> np.ndarray:
    """Mean 0 and deviation 1 per image, over the mask if there is one; voxels outside the mask become 0."""
    voxels = image_zyx if mask_zyx is None else image_zyx[mask_zyx]
    # Float64 sums: intensities may reach millions, where float32 loses the deviation.
    mean, std = voxels.mean(dtype=np.float64), voxels.std(dtype=np.float64)
    result = (image_zyx - np.float32(mean)) / np.float32(max(std, 1e-8))
    return result if mask_zyx is None else np.where(mask_zyx, result, np.float32(0))


def rescale_to_unit(image_zyx: np.ndarray, how: Normalization, mask_zyx: np.ndarray | None) -> np.ndarray:
    """Smallest value 0, largest 1, per image."""
    low, high = float(image_zyx.min()), float(image_zyx.max())
    return (image_zyx - np.float32(low)) / np.float32(max(high - low, 1e-8))


def divide_by_255(image_zyx: np.ndarray, how: Normalization, mask_zyx: np.ndarray | None) -> np.ndarray:
    """Eight-bit colour to 0..1."""
    return image_zyx / np.float32(255)


def keep(image_zyx: np.ndarray, how: Normalization, mask_zyx: np.ndarray | None) -> np.ndarray:
    """As it is."""
    return image_zyx


Normalizer = Callable[[np.ndarray, Normalization, np.ndarray | None], np.ndarray]
NORMALIZERS: dict[str, Normalizer] = {
    "ct": clip_and_standardize,
    "zscore": standardize,
    "rescale": rescale_to_unit,
    "rgb": divide_by_255,
    "none": keep,
}

# What nnU-Net's dataset.json may call a channel, lower case; every other name is z-scored.
KIND_OF_CHANNEL = {"ct": "ct", "nonorm": "none", "rescale_to_0_1": "rescale", "rgb_to_0_1": "rgb"}


def normalization_kind(channel_name: str) -> str:
    """Key of NORMALIZERS for a channel: 'ct' for CT, 'zscore' for everything without a rule of its own."""
    return KIND_OF_CHANNEL.get(channel_name.casefold(), "zscore")


def normalize(image_zyx: np.ndarray, how: Normalization, mask_zyx: np.ndarray | None) -> np.ndarray:
    """Float32 (Z, Y, X) normalised by the rule ``how``; raises ValueError if there is no such rule."""
    if how.kind not in NORMALIZERS:
        raise ValueError(f"unknown normalisation {how.kind!r}; choose from {sorted(NORMALIZERS)}")
    mask = mask_zyx if how.inside_mask else None
    return NORMALIZERS[how.kind](image_zyx.astype(np.float32, copy=False), how, mask).astype(np.float32, copy=False)
