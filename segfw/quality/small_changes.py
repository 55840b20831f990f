"""Small changes of an image on the network's grid, under which a mask that can be relied on hardly moves."""

# C channels, Z Y X space

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

SHIFT = 3  # voxels along both axes of a slice, by which tiles and strides fall on other places
NOISE_SD = 0.1  # of the image's own standard deviation
GAMMA = 1.2


@dataclass(frozen=True, kw_only=True)
class SmallChange:
    """``change`` makes another image (C, Z, Y, X) of one and a case's id, ``back`` brings a mask of it to the first.

    ``moves`` are changes of place, which the first stage of a cascade would have to follow.
    """

    name: str
    change: Callable[[Tensor, str], Tensor]
    back: Callable[[np.ndarray], np.ndarray]
    moves: bool = False


def shifted(image_czyx: Tensor, by: int) -> Tensor:
    """Moved along both axes of a slice; what comes in at the border is what was there."""
    _, _, height, width = image_czyx.shape
    rows = (torch.arange(height) - by).clamp(0, height - 1)
    columns = (torch.arange(width) - by).clamp(0, width - 1)
    return image_czyx[:, :, rows][:, :, :, columns]


def shifted_mask(mask_zyx: np.ndarray, by: int) -> np.ndarray:
    """As ``shifted``, of a mask."""
    _, height, width = mask_zyx.shape
    rows = np.clip(np.arange(height) - by, 0, height - 1)
    columns = np.clip(np.arange(width) - by, 0, width - 1)
    return mask_zyx[:, rows][:, :, columns]


def with_noise(image_czyx: Tensor, case: str) -> Tensor:
    """Gaussian noise of NOISE_SD of each channel's deviation; the same for a case each time."""
    generator = torch.Generator().manual_seed(crc32(case.encode()))
    noise = torch.randn(image_czyx.shape, generator=generator)
    return image_czyx + noise * (NOISE_SD * image_czyx.float().flatten(1).std(1))[:, None, None, None]


def with_gamma(image_czyx: Tensor) -> Tensor:
    """Each channel's greys between its smallest and largest value, to the power of GAMMA."""
    flat = image_czyx.float().flatten(1)
    low = flat.amin(1)[:, None, None, None]
    span = (flat.amax(1)[:, None, None, None] - low).clamp(min=1e-6)
    return ((image_czyx - low) / span) ** GAMMA * span + low


CHANGES = (
    SmallChange(
        name=f"moved by {SHIFT} voxels",
        change=lambda image_czyx, _: shifted(image_czyx, SHIFT),
        back=lambda mask_zyx: shifted_mask(mask_zyx, -SHIFT),
        moves=True,
    ),
    SmallChange(
        name=f"noise of {NOISE_SD:g} SD",
        change=with_noise,
        back=lambda mask_zyx: mask_zyx,
    ),
    SmallChange(
        name=f"greys to the power of {GAMMA:g}",
        change=lambda image_czyx, _: with_gamma(image_czyx),
        back=lambda mask_zyx: mask_zyx,
    ),
)
