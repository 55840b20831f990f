"""Training samples of a refiner: one structure, a mask of it that is given, and simulated clicks where that is wrong.

All is drawn from the sample's own generator, on masks as they are after mirroring and warping, so that clicks and
distances are right whatever was done to the patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from segfw.clicks.click_maps import refiner_channels
from segfw.clicks.simulated_clicks import SimulatedClick, draw_training_clicks
from segfw.images.geometry import Spacing, as_shape
from segfw.networks.refiner_loss import IGNORED, NEAR_CLICK
from segfw.training.spoil_previous import MORPHOLOGY

ABSENT_SHARE = 0.1  # of samples: the given mask lacks the structure altogether
KINDS = {"held-out": 0.5, "morphology": 0.15, "shifted": 0.15, "empty": 0.1, "leaking": 0.1}  # of the given mask
LARGEST_RADIUS = 3  # voxels that morphology grows or shrinks by: what hands and thresholds do, not what loses all
LARGEST_SHIFT = 3  # voxels along an axis
LEAK_RADII = (3, 10)  # voxels of the ball in which the structure beside it counts as this one
MOST_CLICKS = 6
SECOND_LOOK_SHARE = 0.5  # of samples with several clicks, whose last ones correct the network's own answer
NO_CLASS = -2  # which no voxel has
NEAR_MM = 10.0  # of a click: voxels that weigh more


@dataclass(frozen=True, kw_only=True)
class RefinerRules:
    """What samples are drawn by. ``structures`` are the classes that each of them is the union of."""

    structures: tuple[tuple[int, ...], ...]
    ignored: int | None  # class of voxels that count nowhere
    spacing_mm: Spacing
    is_spoilt: bool = True  # False: the held-out mask as it is and no second look, to validate


@dataclass(frozen=True, kw_only=True)
class RefinerSample:
    """One structure in a patch, (Z, Y, X) booleans, and simulated clicks; ``later`` more are drawn after a look."""

    structure: int
    kind: str  # of KINDS, or 'absent'
    given_zyx: np.ndarray
    others_zyx: np.ndarray
    wanted_zyx: np.ndarray
    ignored_zyx: np.ndarray  # where nobody knows
    inside_zyx: np.ndarray  # the image
    clicks: tuple[SimulatedClick, ...]
    later: int = 0

    @property
    def wanted_or_given_zyx(self) -> np.ndarray:
        """The wanted mask; where it is not known, the given one, so that nothing is wrong there."""
        return np.where(self.ignored_zyx, self.given_zyx, self.wanted_zyx)


def draw_refiner_sample(
    rng: np.random.Generator,
    classes_zyx: np.ndarray,
    found_zyx: np.ndarray,
    annotated: Sequence[bool],
    rules: RefinerRules,
) -> RefinerSample:
    """A sample of a patch.

    Parameters
    ----------
    rng
        The sample's own.
    classes_zyx, found_zyx
        Classes drawn by people and found by a network that did not see the case; below 0 outside the image.
    annotated
        Which structures are in this case; empty where all are. What nobody drew is never asked for.
    rules
        Structures, and whether masks are spoilt.
    """
    inside = classes_zyx >= 0
    structure, is_absent = _drawn_structure(rng, classes_zyx, found_zyx, annotated, rules)
    members = rules.structures[structure]
    wanted = np.isin(classes_zyx, members)
    found = np.isin(found_zyx, members)
    kind = "held-out"
    if rules.is_spoilt:
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        kind = "absent" if is_absent else kind
    beside = (found_zyx > 0) & ~found
    given = _given(rng, kind, found, beside) & inside
    is_unknown = classes_zyx == (NO_CLASS if rules.ignored is None else rules.ignored)
    if annotated and not annotated[structure]:  # of a case in which nothing is
        is_unknown = np.ones_like(inside)
    sample = RefinerSample(
        structure=structure,
        kind=kind,
        given_zyx=given,
        others_zyx=beside & inside & ~given,
        wanted_zyx=wanted,
        ignored_zyx=is_unknown,
        inside_zyx=inside,
        clicks=(),
    )
    clicks = int(rng.integers(1, MOST_CLICKS + 1))
    first = clicks
    if rules.is_spoilt and clicks > 1 and rng.random() < SECOND_LOOK_SHARE:
        first = int(rng.integers(1, clicks))
    drawn = draw_training_clicks(rng, given, sample.wanted_or_given_zyx, first)
    return replace(sample, clicks=tuple(drawn), later=clicks - first)


def after_a_look(rng: np.random.Generator, sample: RefinerSample, answer_zyx: np.ndarray) -> RefinerSample:
    """The sample with the network's ``answer_zyx`` as the given mask, and the later clicks where that is wrong."""
    given = answer_zyx & sample.inside_zyx
    looked = replace(sample, given_zyx=given, others_zyx=sample.others_zyx & ~given, later=0)
    drawn = draw_training_clicks(rng, given, looked.wanted_or_given_zyx, sample.later)
    return replace(looked, clicks=(*sample.clicks, *drawn))


def _drawn_structure(
    rng: np.random.Generator,
    classes_zyx: np.ndarray,
    found_zyx: np.ndarray,
    annotated: Sequence[bool],
    rules: RefinerRules,
) -> tuple[int, bool]:
    """A structure among those present, evenly, and whether the given mask shall lack it."""
    known = [index for index in range(len(rules.structures)) if not annotated or annotated[index]]
    known = known or list(range(len(rules.structures)))
    drawn = set(np.unique(classes_zyx).tolist())
    present = [index for index in known if not drawn.isdisjoint(rules.structures[index])]
    is_absent = rules.is_spoilt and bool(rng.random() < ABSENT_SHARE) and bool(present)
    if not is_absent:  # what a network found where there is none is to be taken away
        seen = drawn | set(np.unique(found_zyx).tolist())
        present = [index for index in known if not seen.isdisjoint(rules.structures[index])]
    among = present or known
    return among[int(rng.integers(len(among)))], is_absent


def _given(rng: np.random.Generator, kind: str, found: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """The mask that is given, of a ``kind``, made from what was found of the structure and ``beside`` it."""
    if kind in ("empty", "absent"):
        return np.zeros_like(found)
    if kind == "morphology":
        operation = list(MORPHOLOGY.values())[int(rng.integers(len(MORPHOLOGY)))]
        radius = int(rng.integers(1, LARGEST_RADIUS + 1))
        return np.asarray(operation(torch.from_numpy(found), radius))
    if kind == "shifted":
        return shifted(found, _drawn_shift(rng, found.shape))
    if kind == "leaking":
        return found | _leak(rng, found, beside)
    return found


def _drawn_shift(rng: np.random.Generator, shape: Sequence[int]) -> tuple[int, ...]:
    """Up to LARGEST_SHIFT voxels along every axis that has more than one, and at least one voxel along one of them."""
    long = [axis for axis, size in enumerate(shape) if size > 1]
    moves = [int(move) for move in rng.integers(-LARGEST_SHIFT, LARGEST_SHIFT + 1, len(shape))]
    moves = [move if axis in long else 0 for axis, move in enumerate(moves)]
    if not any(moves) and long:
        moves[long[int(rng.integers(len(long)))]] = int(rng.integers(1, LARGEST_SHIFT + 1))
    return tuple(moves)


def shifted(mask_zyx: np.ndarray, moves: Sequence[int]) -> np.ndarray:
    """The mask moved by so many voxels along each axis; what leaves the patch is lost, what comes in is empty."""
    result = np.zeros_like(mask_zyx)
    to = []
    source = []
    for move, size in zip(moves, mask_zyx.shape):
        kept = max(0, size - abs(move))
        to.append(slice(max(0, move), max(0, move) + kept))
        source.append(slice(max(0, -move), max(0, -move) + kept))
    result[tuple(to)] = mask_zyx[tuple(source)]
    return result


def _leak(rng: np.random.Generator, found: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """Voxels of other structures in a ball around one of them; without others, a ball around one of its own voxels.

    Of others the ball takes what is theirs; of what nobody named, all.
    """
    has_others = bool(beside.any())
    around = np.flatnonzero(beside if has_others else found)
    if not len(around):
        return np.zeros_like(found)
    centre = as_shape(map(int, np.unravel_index(int(around[int(rng.integers(len(around)))]), found.shape)))
    radius = int(rng.integers(LEAK_RADII[0], LEAK_RADII[1] + 1))
    ball = _ball(found.shape, centre, (1.0, 1.0, 1.0), radius)
    return ball & beside if has_others else ball


def _ball(shape: Sequence[int], centre: Sequence[int], spacing_mm: Sequence[float], radius_mm: float) -> np.ndarray:
    """Voxels within ``radius_mm`` of a voxel."""
    squares = [((np.arange(size) - at) * step) ** 2 for size, at, step in zip(shape, centre, spacing_mm)]
    z, y, x = squares
    return np.asarray(z[:, None, None] + y[:, None] + x <= radius_mm**2)


def channels_of(sample: RefinerSample, spacing_mm: Spacing) -> np.ndarray:
    """What the network sees of a sample besides the image, float32 (4, Z, Y, X)."""
    inside = [point for point, is_inside in sample.clicks if is_inside]
    outside = [point for point, is_inside in sample.clicks if not is_inside]
    return refiner_channels(sample.given_zyx, sample.others_zyx, inside, outside, spacing_mm)


def truth_with_weights(sample: RefinerSample, spacing_mm: Spacing) -> np.ndarray:
    """What the network shall answer, uint8 (Z, Y, X), as the loss reads it: with what is ignored and near a click."""
    near = np.zeros(sample.given_zyx.shape, bool)
    for point, _ in sample.clicks:
        near |= _ball(near.shape, point, spacing_mm, NEAR_MM)
    truth = np.where(sample.ignored_zyx, IGNORED, sample.wanted_zyx)
    return (truth + NEAR_CLICK * near).astype(np.uint8)
