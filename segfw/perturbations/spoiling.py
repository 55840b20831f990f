"""A case spoilt as bad scans and bad headers spoil it, at a drawn strength; the expert's mask comes along.

These are simulated shifts, for fitting what tells good masks from bad ones: they make failures, which a model's own
validation cases hardly have. Strengths are drawn log-uniformly, so that mild and heavy ones are equally frequent.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

import numpy as np

from segfw.grid.boxes import Box
from segfw.images.volume import Volume
from segfw.perturbations.intensities import drawn_field, inverted, noisy, shaded, with_gamma
from segfw.perturbations.placing import turned_unsaid, within_box
from segfw.perturbations.sharpness import axis_of_losses, blurred_in_plane, lost_slices, of_low_resolution
from segfw.perturbations.slice_axis import slice_axis

NOISE_SD = (0.1, 1.0)  # of the foreground's standard deviation
BLUR_VOXELS = (0.5, 3.0)  # in plane, standard deviation in the finer voxel edge
COARSER = (1.5, 4.0)  # times the finest voxel edge
GAMMA = (1.3, 3.0)  # or one over it
BIAS_SHARE = (0.2, 1.5)  # brightest over middle, minus 1
CROPPED_SHARE = (0.05, 0.4)  # of an axis, both ends together
LOST_SHARE = (0.05, 0.6)  # of all slices
FEWEST_TO_CROP = 4  # voxels of an axis
SQUARE = 1.5  # voxel edges that differ by less may be taken for each other

Case = tuple[Volume, Volume | None]
Spoiler = Callable[[Volume, Volume | None, np.random.Generator], Case]


def spoilt(volume: Volume, reference: Volume | None, kind: str, rng: np.random.Generator) -> Case:
    """An image spoilt in one way at a drawn strength, and its expert mask on the grid of the result.

    Parameters
    ----------
    volume
        The image as its file stores it, (C, Z, Y, X) of any real type; one slice and pictures as well.
    reference
        The expert's mask (1, Z, Y, X) on the same grid in the same order of axes, or None.
    kind
        One of SHIFTS.
    rng
        All that is drawn comes from it: the same state gives the same result.

    Returns
    -------
    The image, float32 where its intensities have changed, and the mask: both new where anatomy or grid have moved,
    else the mask that was given.

    Raises
    ------
    ValueError
        For an unknown kind, or a mask of another shape than the image.
    """
    if kind not in SHIFTS:
        raise ValueError(f"unknown shift {kind!r}; choose from {', '.join(SHIFTS)}")
    if reference is not None and reference.geometry.shape != volume.geometry.shape:
        raise ValueError(f"the mask's shape {reference.geometry.shape} is not the image's {volume.geometry.shape}")
    return SHIFTS[kind](volume, reference, rng)


def log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    """A number between two bounds whose logarithm is drawn evenly."""
    low, high = bounds
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _noise(volume: Volume, reference: Volume | None, rng: np.random.Generator) -> Case:
    return noisy(volume, log_uniform(NOISE_SD, rng), rng), reference


def _blur(volume: Volume, reference: Volume | None, rng: np.random.Generator) -> Case:
    return blurred_in_plane(volume, log_uniform(BLUR_VOXELS, rng)), reference


def _low_resolution(volume: Volume, reference: Volume | None, rng: np.random.Generator) -> Case:
    return of_low_resolution(volume, log_uniform(COARSER, rng)), reference


def _gamma(volume: Volume, reference: Volume | None, rng: np.random.Generator) -> Case:
    exponent = log_uniform(GAMMA, rng)
    if rng.integers(2):
        exponent = 1 / exponent
    return with_gamma(volume, exponent), reference


def _inversion(volume: Volume, reference: Volume | None, rng: np.random.Generator) -> Case:
    return inverted(volume), reference


def _bias_field(volume: Volume, reference: Volume | None, rng: np.random.Generator) -> Case:
    share = log_uniform(BIAS_SHARE, rng)
    return shaded(volume, drawn_field(volume.geometry.shape, share, rng)), reference


def _orientation(volume: Volume, reference: Volume | None, rng: np.random.Generator) -> Case:
    """The anatomy in another orientation than the header says; axes of unlike voxel edges are not confused."""
    turns = _possible_turns(volume)
    order, is_flipped = turns[int(rng.integers(len(turns)))]
    moved = turned_unsaid(volume, order, is_flipped)
    return moved, None if reference is None else turned_unsaid(reference, order, is_flipped)


def _possible_turns(volume: Volume) -> list[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """Orders and flips of axes that change an image and that nobody would see from its voxel sizes."""
    shape = volume.geometry.shape
    edges = volume.geometry.spacing_mm
    thick = slice_axis(volume)
    others = [edge for axis, edge in enumerate(edges) if axis != thick]
    keeps_slices = shape[thick] == 1 or edges[thick] > SQUARE * min(others)
    turns = []
    for order in permutations(range(3)):
        if keeps_slices and order[thick] != thick:
            continue
        for is_flipped in product((False, True), repeat=3):
            is_identity = order == (0, 1, 2) and not any(is_flipped)
            flips_nothing = any(flip and shape[axis] == 1 for axis, flip in zip(order, is_flipped))
            if not is_identity and not flips_nothing:
                turns.append((order, is_flipped))
    return turns or [((0, 1, 2), (False, False, False))]  # an image of one voxel


def _crop(volume: Volume, reference: Volume | None, rng: np.random.Generator) -> Case:
    """A smaller field of view: a share of each axis is gone, divided between its ends at random."""
    share = log_uniform(CROPPED_SHARE, rng)
    bounds = []
    for size in volume.geometry.shape:
        lost = round(share * size) if size >= FEWEST_TO_CROP else 0
        start = int(rng.integers(lost + 1))
        bounds.append((start, size - (lost - start)))
    first, second, third = bounds
    box: Box = (first, second, third)
    return within_box(volume, box), None if reference is None else within_box(reference, box)


def _lost_slices(volume: Volume, reference: Volume | None, rng: np.random.Generator) -> Case:
    size = volume.geometry.shape[axis_of_losses(volume)]
    count = min(size - 1, max(1, round(log_uniform(LOST_SHARE, rng) * size)))
    lost = rng.choice(size, count, replace=False)
    return lost_slices(volume, lost.tolist()), reference


# Name -> what it does to a case
SHIFTS: dict[str, Spoiler] = {
    "noise": _noise,
    "blur": _blur,
    "low_resolution": _low_resolution,
    "gamma": _gamma,
    "inversion": _inversion,
    "orientation": _orientation,
    "bias_field": _bias_field,
    "crop": _crop,
    "lost_slices": _lost_slices,
}
