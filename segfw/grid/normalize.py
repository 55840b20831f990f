"""Intensity normalisation, one function per kind of channel, applied before resampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import model_validator

from segfw.base.records import Record

PART_VOXELS = 1 << 20
NEEDS_STATISTICS = "normalisation 'ct' needs the data set's statistics"


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
            raise ValueError(NEEDS_STATISTICS)
        return self


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """A channel's normalisation with everything measured: clip, subtract, divide; voxels outside a mask become 0."""

    subtract: float = 0.0
    divide: float = 1.0
    lowest: float | None = None
    highest: float | None = None

    def __call__(self, voxels: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """A new float32 array, C-contiguous."""
        result = np.array(voxels, dtype=np.float32, order="C")
        if self.lowest is not None:
            np.clip(result, np.float32(self.lowest), np.float32(self.highest), out=result)
        if self.subtract:
            result -= np.float32(self.subtract)
        if self.divide != 1:
            result /= np.float32(self.divide)
        if mask is not None:
            result[~mask] = 0
        return result


def clip_and_standardize(voxels: np.ndarray, rule: Normalization) -> Scaling:
    """CT: clipped to the data set's 0.5 and 99.5 percentile of the foreground, then its mean and deviation removed."""
    stats = rule.stats
    if stats is None:
        raise ValueError(NEEDS_STATISTICS)
    return Scaling(
        subtract=stats.mean,
        divide=max(stats.std, 1e-8),
        lowest=stats.percentile_00_5,
        highest=stats.percentile_99_5,
    )


def standardize(voxels: np.ndarray, rule: Normalization) -> Scaling:
    """Mean 0 and deviation 1 per image."""
    # Float64 sums: intensities may reach millions, where float32 loses the deviation. In parts, whose copies are small.
    mean = voxels.mean(dtype=np.float64)
    parts = np.array_split(voxels, min(len(voxels), 1 + voxels.size // PART_VOXELS))
    squares = sum(float(np.square(part - mean, dtype=np.float64).sum()) for part in parts)
    return Scaling(subtract=float(mean), divide=max((squares / voxels.size) ** 0.5, 1e-8))


def rescale_to_unit(voxels: np.ndarray, rule: Normalization) -> Scaling:
    """Smallest value 0, largest 1, per image."""
    low = float(voxels.min())
    high = float(voxels.max())
    return Scaling(subtract=low, divide=max(high - low, 1e-8))


def divide_by_255(voxels: np.ndarray, rule: Normalization) -> Scaling:
    """Eight-bit colour to 0..1."""
    return Scaling(divide=255)


def keep(voxels: np.ndarray, rule: Normalization) -> Scaling:
    """As it is."""
    return Scaling()


# Measures the voxels of a channel (inside its mask, if it has one) and says how they are scaled.
Normalizer = Callable[[np.ndarray, Normalization], Scaling]
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


def scaling_of(image_zyx: np.ndarray, rule: Normalization, mask_zyx: np.ndarray | None) -> Scaling:
    """The rule ``rule`` measured on a channel; raises ValueError if there is no such rule."""
    if rule.kind not in NORMALIZERS:
        raise ValueError(f"unknown normalisation {rule.kind!r}; choose from {sorted(NORMALIZERS)}")
    voxels = image_zyx if mask_zyx is None else image_zyx[mask_zyx]
    return NORMALIZERS[rule.kind](voxels, rule)


def normalize(image_zyx: np.ndarray, rule: Normalization, mask_zyx: np.ndarray | None) -> np.ndarray:
    """Float32 (Z, Y, X) normalised by the rule ``rule``; raises ValueError if there is no such rule."""
    mask = mask_zyx if rule.inside_mask else None
    scaling = scaling_of(image_zyx, rule, mask)
    return scaling(image_zyx, mask)
