"""Streaks such as metal makes in CT, simulated: bright and dark rays from a dense ball, strongest beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segfw.images.volume import Volume
from segfw.perturbations.intensity_scale import AIR_SHARE, intensity_scale
from segfw.perturbations.slice_axis import in_plane_axes, slice_axis

METAL_HU = 3000.0
BALL_MM = 4.0  # radius
FADES_MM = 60.0  # streaks are 1 / e there
SLICES_MM = 15.0  # to both sides of the ball that have streaks
RAYS = (3, 14)  # of a streak pattern, fewest and most around the circle
WAVES = 4


def with_streaks(volume: Volume, amplitude_hu: float, channels: tuple[int, ...], rng: np.random.Generator) -> Volume:
    """A metal ball in the middle half of the foreground of CT channels, and streaks of ``amplitude_hu``; float32."""
    changed = volume.array.astype(np.float32)
    stack = slice_axis(volume)
    first, second = in_plane_axes(volume)
    edges = volume.geometry.spacing_mm
    center = _drawn_center(volume.array[channels[0]], rng)
    rows = (np.arange(volume.geometry.shape[first]) - center[first]).reshape(-1, 1) * edges[first]
    columns = (np.arange(volume.geometry.shape[second]) - center[second]).reshape(1, -1) * edges[second]
    distance_mm = np.hypot(rows, columns)
    angle = np.arctan2(rows, columns)
    pattern = np.zeros(distance_mm.shape)
    for _ in range(WAVES):
        pattern += np.cos(int(rng.integers(RAYS[0], RAYS[1] + 1)) * angle + rng.uniform(0, 2 * np.pi))
    pattern *= np.exp(-distance_mm / FADES_MM) / np.abs(pattern).max()
    limits = (-1024.0, METAL_HU)
    for position in range(volume.geometry.shape[stack]):
        away_mm = abs(position - center[stack]) * edges[stack]
        if away_mm > SLICES_MM:
            continue
        place: list[slice | int] = [slice(None)] * 3
        place[stack] = position
        fading = np.cos(np.pi / 2 * away_mm / SLICES_MM)
        for channel in channels:
            plane = changed[(channel, *place)]
            plane[...] = (plane + amplitude_hu * fading * pattern).clip(*limits)
            plane[distance_mm**2 + away_mm**2 <= BALL_MM**2] = METAL_HU
    return replace(volume, array=changed)


def _drawn_center(channel_zyx: np.ndarray, rng: np.random.Generator) -> tuple[int, int, int]:
    """A voxel of the foreground in the middle half of the image, if there is one, else the middle."""
    scale = intensity_scale(channel_zyx)
    middle = tuple(slice(size // 4, max(size // 4 + 1, size - size // 4)) for size in channel_zyx.shape)
    inner = channel_zyx[middle] >= scale.low + AIR_SHARE * (scale.high - scale.low)
    inside = np.argwhere(inner)
    if not len(inside):
        z, y, x = (size // 2 for size in channel_zyx.shape)
        return z, y, x
    z, y, x = (int(at) + part.start for at, part in zip(inside[int(rng.integers(len(inside)))], middle))
    return z, y, x
