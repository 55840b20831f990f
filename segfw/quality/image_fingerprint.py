"""What an image looks like to a network, in a few dozen numbers: how bright, how noisy, how sharp, how large.

They are of the image on the network's grid, after normalisation, and of the grid that it came from. Nothing of them
says whether a mask of it is right.
"""

# C channels, N voxels, Z Y X space

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from segfw.base.records import Record
from segfw.grid.preprocess import PreprocessRecord
from segfw.images.volume import CANONICAL

PERCENTILES = (0.5, 5, 25, 50, 75, 95, 99.5)
MOST_VOXELS = 2**22  # of a channel that are looked at; of larger images whole slices, evenly spread
LEAST_CHANGE = 1e-4  # of a normalised image: what is less is none, and its logarithm has an end
COARSE = (4, 4, 4)  # blocks of the thumbnail

# Beginnings of the names of entries. Those of a channel end on '/' and its number, those along an axis on its name.
PERCENTILE = "percentile"
GRADIENT = "gradient"
NOISE = "noise"
ROUGHNESS = "roughness"
CENTRE = "centre"
CORRELATION = "correlation"
SPACING = "spacing"
EXTENT = "extent"
BODY_AXES = ("head-foot", "front-back", "left-right")  # of an image in canonical orientation
STORED_AXES = ("first axis", "second axis", "third axis")


class Fingerprint(Record):
    """Named numbers of an image; lengths and changes as logarithms.

    ``names`` and ``values`` go together; all images of one model have the same names. ``thumbnails`` are, of each
    channel, means of COARSE blocks (z, y, x), one after the other.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    thumbnails: tuple[tuple[float, ...], ...]


def image_fingerprint(image_czyx: Tensor, record: PreprocessRecord) -> Fingerprint:
    """The fingerprint of an image (C, Z, Y, X) on the network's grid, which ``record`` says the way to.

    Of each channel: seven percentiles, the mean of its middle, the mean change to the next voxel along each axis, the
    mean size of the Laplacian in the slice, and the median size of what remains of it where straight edges are taken
    out (second differences along both axes, one after the other; Immerkaer 1996, Fast noise variance estimation). Of
    the whole: correlations of channels, voxel size and extent in mm before resampling. That takes a few passes over at
    most MOST_VOXELS of a channel.
    """
    axes = _axis_names(record)
    slices = _looked_at(image_czyx.shape)
    entries: dict[str, float] = {}
    for channel, image_zyx in enumerate(image_czyx):
        of_channel = _of_channel(image_zyx, slices, axes)
        entries |= {f"{name}/{channel}": value for name, value in of_channel.items()}
    if len(image_czyx) > 1:
        sample_cn = image_czyx[:, slices].flatten(1).float()
        for first, second in combinations(range(len(image_czyx)), 2):
            entries[f"{CORRELATION}/{first}/{second}"] = _correlation(sample_cn[first], sample_cn[second])
    for axis, size, edge_mm in zip(axes, record.cropped_shape, record.cropped_spacing_mm):
        entries[f"{SPACING} {axis}"] = float(np.log(edge_mm))
        entries[f"{EXTENT} {axis}"] = float(np.log(size * edge_mm))
    thumbnails = [_thumbnail(image_zyx) for image_zyx in image_czyx]
    return Fingerprint(names=tuple(entries), values=tuple(entries.values()), thumbnails=tuple(thumbnails))


def _axis_names(record: PreprocessRecord) -> tuple[str, ...]:
    """What the axes of the network's grid are called."""
    names = BODY_AXES if record.orientation == CANONICAL else STORED_AXES
    return tuple(names[axis] for axis in record.axis_order)


def _looked_at(shape_czyx: torch.Size) -> list[int]:
    """Slices of which at most MOST_VOXELS a channel are looked at, evenly spread."""
    _, depth, height, width = shape_czyx
    most = max(1, MOST_VOXELS // (height * width))
    if depth <= most:
        return list(range(depth))
    return [int(z) for z in np.linspace(0, depth - 1, most).round()]


def _of_channel(image_zyx: Tensor, slices: list[int], axes: tuple[str, ...]) -> dict[str, float]:
    here = image_zyx[slices].float()
    entries: dict[str, float] = {}
    # Brightness
    ranks = [round(percent / 100 * (here.numel() - 1)) for percent in PERCENTILES]
    ordered = np.partition(here.cpu().numpy(), ranks, axis=None)  # as far as these ranks are concerned
    for percent, rank in zip(PERCENTILES, ranks):
        entries[f"{PERCENTILE} {percent:g}"] = float(ordered[rank])
    middle = [slice(length // 4, max(length - length // 4, length // 4 + 1)) for length in image_zyx.shape]
    entries[CENTRE] = float(image_zyx[tuple(middle)].float().mean())
    # Sharpness
    followed = [index for index, z in enumerate(slices) if z + 1 < len(image_zyx)]
    behind = image_zyx[[slices[index] + 1 for index in followed]].float()
    changes = (behind - here[followed], here.diff(dim=1), here.diff(dim=2))
    for axis, change in zip(axes, changes):
        entries[f"{GRADIENT} {axis}"] = _log_mean(change.abs())
    # Noise and edges. In the slice, whose grid is the finest: between thick slices anatomy changes more than noise.
    along_y = here[:, 2:, 1:-1] + here[:, :-2, 1:-1] - 2 * here[:, 1:-1, 1:-1]
    along_x = here[:, 1:-1, 2:] + here[:, 1:-1, :-2] - 2 * here[:, 1:-1, 1:-1]
    entries[ROUGHNESS] = _log_mean((along_y + along_x).abs())
    del along_x, along_y
    twice = here[:, 2:] + here[:, :-2] - 2 * here[:, 1:-1]
    speckle = (twice[:, :, 2:] + twice[:, :, :-2] - 2 * twice[:, :, 1:-1]).abs().flatten()
    entries[NOISE] = _log_mean(speckle.median()[None] if len(speckle) else speckle)
    return entries


def _log_mean(sizes: Tensor) -> float:
    """Logarithm of the mean; of nothing, and of next to nothing, that of LEAST_CHANGE."""
    mean = float(sizes.mean()) if sizes.numel() else 0.0
    return float(np.log(max(mean, LEAST_CHANGE)))


def _correlation(first_n: Tensor, second_n: Tensor) -> float:
    """Pearson's; 0 where one of the two is constant."""
    first = first_n - first_n.mean()
    second = second_n - second_n.mean()
    size = float(first.norm() * second.norm())
    return float(first @ second) / size if size > 0 else 0.0


def _thumbnail(image_zyx: Tensor) -> tuple[float, ...]:
    means = torch.nn.functional.adaptive_avg_pool3d(image_zyx[None].float(), COARSE)
    return tuple(means.flatten().tolist())
