"""What strengths of noise, shading and contrast are counted in: the foreground of an image, told without a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segfw.images.volume import Volume

MOST_VALUES = 2_000_000  # from which a channel's scale is measured; of more every n-th
PADDING_SHARE = 0.01  # of the voxels: as many of one lowest value are padding or air that was set to it
AIR_SHARE = 0.1  # of the range from the 0.5th to the 99.5th percentile: what lies below is air


@dataclass(frozen=True, kw_only=True)
class IntensityScale:
    """The intensities of one channel. ``floor`` is the lowest; foreground goes from ``low`` to ``high`` (percentiles).

    ``sd`` is the standard deviation of the foreground, 0 where the channel is of one value. ``is_padded`` tells that
    voxels of exactly ``floor`` are padding: they were not measured, and stay what they are under noise.
    """

    floor: float
    low: float
    high: float
    sd: float
    is_padded: bool


def intensity_scale(channel_zyx: np.ndarray) -> IntensityScale:
    """The scale of one channel (Z, Y, X) of any real type; values that are no numbers do not count."""
    flat = channel_zyx.reshape(-1)
    values = flat[:: max(1, flat.size // MOST_VALUES)].astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return IntensityScale(floor=0.0, low=0.0, high=0.0, sd=0.0, is_padded=False)
    floor = float(values.min())
    is_padded = bool((values == floor).mean() > PADDING_SHARE)
    measured = values[values > floor] if is_padded else values
    if not measured.size:
        return IntensityScale(floor=floor, low=floor, high=floor, sd=0.0, is_padded=False)
    low, high = np.percentile(measured, (0.5, 99.5)).tolist()
    foreground = measured[measured >= low + AIR_SHARE * (high - low)]
    foreground = foreground.clip(low, high)  # so that metal, or one bright voxel, is not the measure of all
    return IntensityScale(floor=floor, low=low, high=high, sd=float(foreground.std()), is_padded=is_padded)


def padding_of(volume: Volume) -> np.ndarray:
    """Voxels (C, Z, Y, X) that were never measured: those of the lowest value of a channel that has padding."""
    padding = np.zeros(volume.array.shape, dtype=bool)
    for channel, voxels in enumerate(volume.array):
        scale = intensity_scale(voxels)
        if scale.is_padded:
            padding[channel] = voxels == scale.floor
    return padding
