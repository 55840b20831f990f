"""Where the next click lies: three simulated ways, and points of strokes that a person drew.

No simulated click is a person's: whoever draws it knows the expert's mask. The strokes are real, but they were drawn on
the image and not on the errors of a mask; which of their points is clicked is simulated.
"""

from __future__ import annotations

import numpy as np

from bench.refine.clicked_item import Item, Source
from segfw.clicks.simulated_clicks import Point, SimulatedClick, deepest_click, peoplelike_click
from segfw.images.geometry import Spacing

UNLABELLED = 4  # in masks of scribbles: nobody said anything there
POINT_DISTANCE = 8  # voxels between two points of one stroke
AROUND = 3  # voxels around a structure in which clicks outside it are drawn, where the mask is right


def at_the_deepest_point(rng: np.random.Generator, given_zyx: np.ndarray, item: Item) -> SimulatedClick | None:
    """In the middle of the largest error."""
    return deepest_click(given_zyx, item.wanted_zyx, item.spacing_mm)


def like_people(rng: np.random.Generator, given_zyx: np.ndarray, item: Item) -> SimulatedClick | None:
    """Somewhere in an error, or beside it."""
    return peoplelike_click(rng, given_zyx, item.wanted_zyx, item.spacing_mm)


def where_it_is_right(rng: np.random.Generator, given_zyx: np.ndarray, item: Item) -> SimulatedClick | None:
    """Where the mask is right already, as often inside the structure as outside: such a click teaches nothing."""
    inside = bool(rng.random() < 0.5)
    if inside:
        places = np.argwhere(given_zyx & item.wanted_zyx)
    else:
        either_zyx = given_zyx | item.wanted_zyx
        filled = np.argwhere(either_zyx)
        first = np.maximum(filled.min(0) - AROUND, 0)
        last = filled.max(0) + AROUND + 1
        box = tuple(slice(start, stop) for start, stop in zip(first.tolist(), last.tolist(), strict=True))
        places = np.argwhere(~either_zyx[box]) + first
    if not len(places):
        return None
    return _as_point(places[rng.integers(len(places))]), inside


def on_strokes(rng: np.random.Generator, given_zyx: np.ndarray, item: Item) -> SimulatedClick | None:
    """One of the strokes' points at which the mask is wrong; None where it agrees with all of them."""
    wrong = [(point, inside) for point, inside in item.stroke_points if bool(given_zyx[point]) != inside]
    return wrong[int(rng.integers(len(wrong)))] if wrong else None


SOURCES: dict[str, Source] = {
    "deepest": at_the_deepest_point,
    "people-like": like_people,
    "right already": where_it_is_right,
    "scribbles": on_strokes,
}


def stroke_points(scribbles_zyx: np.ndarray, value: int, spacing_mm: Spacing) -> tuple[SimulatedClick, ...]:
    """Points of the strokes of one structure, inside, and of all others and the background, outside.

    Strokes lie in slices across the longest edge of a voxel. Each is thinned to a line, of which points are kept that
    are 8 voxels apart.
    """
    across = int(np.argmax(spacing_mm))
    found: list[SimulatedClick] = []
    for number in range(scribbles_zyx.shape[across]):
        slice_yx = scribbles_zyx.take(number, axis=across)
        for drawn in np.unique(slice_yx[slice_yx != UNLABELLED]).tolist():
            for place in _thinned(slice_yx == drawn):
                found.append((_as_point(np.insert(place, across, number)), drawn == value))
    return tuple(found)


def _thinned(stroke_yx: np.ndarray) -> list[np.ndarray]:
    from skimage.morphology import skeletonize

    kept: list[np.ndarray] = []
    for place in np.argwhere(skeletonize(stroke_yx)):
        if all(np.abs(place - other).max() >= POINT_DISTANCE for other in kept):
            kept.append(place)
    return kept


def _as_point(place: np.ndarray) -> Point:
    z, y, x = (int(at) for at in place)
    return z, y, x
