"""All changes that a model is tried with: what each does to an image, and its levels.

The image is changed as a file would bring it, array and header together. Levels are in millimetres, in standard
deviations of the image's foreground and the like, so that curves of different images can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segfw.images.volume import Volume
from segfw.perturbations.intensities import linear_field, noisy, shaded, with_gamma
from segfw.perturbations.metal import with_streaks
from segfw.perturbations.perturbation import Kind, Perturbation
from segfw.perturbations.placing import (
    cut_per_side,
    every_nth_slice,
    of_larger_voxels,
    padded,
    rotated,
    shifted_by_half,
)
from segfw.perturbations.sharpness import axis_of_losses, blurred, lost_slices
from segfw.perturbations.slice_axis import in_plane_axes, slice_axis

# Volume, level, generator to the changed volume
Change = Callable[[Volume, float, np.random.Generator], Volume]
# Slope and offset of intensities that a z-score takes out again
OTHER_SCALE = (37.0, 500.0)
FEWEST_SLICES = 6
FEWEST_PIXELS = 8  # along both axes of a slice


@dataclass(frozen=True, kw_only=True)
class Series:
    """One kind of change with its ``levels``, mildest first; ``quick`` ones alone are tried when time is short.

    ``unchanged`` is the level of no change. ``moves`` where the voxels of the result are others than the image's, so
    that a mask has to be brought back.
    """

    change: Change
    kind: Kind = "degrades"
    levels: Sequence[float | None] = (None,)
    quick: Sequence[float | None] = (None,)
    unit: str = ""
    unchanged: float = 0.0
    moves: bool = False


def perturbed(volume: Volume, perturbation: Perturbation, rng: np.random.Generator) -> Volume:
    """The image as this change would bring it; the caller's is not touched.

    Of the same state of ``rng`` all levels of one change draw alike: the same noise, stronger. Raises ValueError for a
    change that is not in SERIES.
    """
    if perturbation.name not in SERIES:
        raise ValueError(f"unknown change {perturbation.name!r}; choose from {', '.join(SERIES)}")
    return SERIES[perturbation.name].change(volume, perturbation.level or 0.0, rng)


def is_possible(volume: Volume, name: str) -> bool:
    """Whether a change is one for this image: a single slice has no distance of slices, for instance."""
    shape = volume.geometry.shape
    if name == "slice distance":
        return shape[slice_axis(volume)] >= FEWEST_SLICES
    if name == "lost slices":
        return shape[axis_of_losses(volume)] >= FEWEST_SLICES
    first, second = in_plane_axes(volume)
    return min(shape[first], shape[second]) >= FEWEST_PIXELS


def perturbations_of(name: str, *, is_quick: bool) -> tuple[Perturbation, ...]:
    """All levels of one change."""
    series = SERIES[name]
    return tuple(
        Perturbation(name=name, kind=series.kind, level=level, unit=series.unit, unchanged=series.unchanged)
        for level in (series.quick if is_quick else series.levels)
    )


def _other_scale(volume: Volume, _: float, __: np.random.Generator) -> Volume:
    slope, offset = OTHER_SCALE
    return replace(volume, array=volume.array.astype(np.float32) * np.float32(slope) + np.float32(offset))


def other_scale_inside(volume: Volume) -> Volume:
    """As the change 'other scale', but for voxels of exactly 0 in all channels, which stay outside of the image."""
    outside = (volume.array == 0).all(0)
    changed = _other_scale(volume, 0.0, np.random.default_rng(0))
    return replace(changed, array=np.where(outside[None], np.float32(0), changed.array))


def _blurred_mm(volume: Volume, sigma_mm: float, _: np.random.Generator) -> Volume:
    return blurred(volume, [sigma_mm / edge for edge in volume.geometry.spacing_mm])


def _linear_bias(volume: Volume, percent: float, _: np.random.Generator) -> Volume:
    return shaded(volume, linear_field(volume.geometry.shape, in_plane_axes(volume)[1], percent / 100))


def _lost(volume: Volume, percent: float, rng: np.random.Generator) -> Volume:
    size = volume.geometry.shape[axis_of_losses(volume)]
    order = rng.permutation(size)  # so that more lost slices are the fewer ones and others
    return lost_slices(volume, order[: min(size - 1, max(1, round(percent / 100 * size)))].tolist())


def _streaks(volume: Volume, amplitude_hu: float, rng: np.random.Generator) -> Volume:
    return with_streaks(volume, amplitude_hu, tuple(range(len(volume.array))), rng)


SERIES: dict[str, Series] = {
    "other scale": Series(change=_other_scale, kind="near"),
    "half a voxel": Series(change=lambda volume, _, __: shifted_by_half(volume), kind="near", moves=True),
    "padding": Series(change=lambda volume, _, __: padded(volume), kind="near", moves=True),
    "noise": Series(change=noisy, levels=(0.1, 0.3, 0.6), quick=(0.3,), unit="sd of the foreground"),
    "blur": Series(change=_blurred_mm, levels=(0.5, 1.0, 2.0), quick=(1.0,), unit="mm"),
    "slice distance": Series(
        change=lambda volume, level, _: every_nth_slice(volume, int(level)),
        levels=(2.0, 3.0),
        quick=(2.0,),
        unit="x",
        unchanged=1.0,
        moves=True,
    ),
    "voxel size": Series(
        change=lambda volume, level, _: of_larger_voxels(volume, level),
        levels=(1.5, 2.0),
        quick=(2.0,),
        unit="x",
        unchanged=1.0,
        moves=True,
    ),
    "bias field": Series(change=_linear_bias, levels=(20.0, 40.0, 60.0), quick=(40.0,), unit="%"),
    "brighter mid-tones": Series(
        change=lambda volume, level, _: with_gamma(volume, level),
        levels=(0.7,),
        quick=(0.7,),
        unit="gamma",
        unchanged=1.0,
    ),
    "darker mid-tones": Series(
        change=lambda volume, level, _: with_gamma(volume, level),
        levels=(1.5,),
        quick=(1.5,),
        unit="gamma",
        unchanged=1.0,
    ),
    "field of view": Series(
        change=lambda volume, level, _: cut_per_side(volume, level / 100),
        levels=(10.0, 25.0),
        quick=(25.0,),
        unit="% cut per side",
        moves=True,
    ),
    "rotation": Series(
        change=lambda volume, level, _: rotated(volume, level),
        levels=(10.0, 30.0),
        quick=(10.0,),
        unit="degrees",
        moves=True,
    ),
    "lost slices": Series(change=_lost, levels=(10.0, 30.0), quick=(30.0,), unit="%"),
    "streaks": Series(change=_streaks, levels=(100.0, 300.0, 1000.0), quick=(300.0,), unit="HU"),
}
