"""One structure of one kept-out case, and the loop that clicks on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bench.refine.refine_results import ClickedItem
from segfw.clicks.simulated_clicks import Point, SimulatedClick
from segfw.images.geometry import Spacing

DICE_DIGITS = 5
SECONDS_DIGITS = 3


@dataclass(frozen=True, kw_only=True)
class Item:
    """A structure of a case: what an expert drew, on the image's own grid, and real strokes thinned to points."""

    case: str
    structure: str
    value: int  # in masks
    wanted_zyx: np.ndarray
    spacing_mm: Spacing
    stroke_points: tuple[SimulatedClick, ...] = field(default=())


class Arm(Protocol):
    """What is done with a click; it keeps a mask of all structures on the image's own grid."""

    @property
    def values_zyx(self) -> np.ndarray:
        """The mask as it is now."""

    def click(self, point: Point, *, inside: bool, may_overwrite: bool) -> None:
        """Takes a click for the item's structure."""


Source = Callable[[np.random.Generator, np.ndarray, Item], SimulatedClick | None]


def click_through(arm: Arm, item: Item, source: Source, rng: np.random.Generator, clicks: int) -> ClickedItem:
    """Clicks on an item until it is right or ``clicks`` are spent, and notes what each click did.

    A click inside another structure asks before it overwrites that; the simulated person says yes. A click misses
    where it says of its own voxel what the expert does not: whoever obeys it makes that voxel wrong.
    """
    dice = [dice_of(arm.values_zyx == item.value, item.wanted_zyx)]
    seconds: list[float] = []
    obeyed = 0
    asked = 0
    missed = 0
    lowered_by_misses = 0
    for _ in range(clicks):
        values_zyx = arm.values_zyx
        drawn = source(rng, values_zyx == item.value, item)
        if drawn is None:
            break
        point, inside = drawn
        overwrites = inside and int(values_zyx[point]) not in (0, item.value)
        begin = time.perf_counter()
        arm.click(point, inside=inside, may_overwrite=overwrites)
        seconds.append(round(time.perf_counter() - begin, SECONDS_DIGITS))
        given_zyx = arm.values_zyx == item.value
        obeyed += bool(given_zyx[point]) == inside
        asked += overwrites
        dice.append(dice_of(given_zyx, item.wanted_zyx))
        is_miss = bool(item.wanted_zyx[point]) != inside
        missed += is_miss
        lowered_by_misses += is_miss and dice[-1] < dice[-2]
    made = len(dice) - 1
    return ClickedItem(
        case=item.case,
        structure=item.structure,
        dice=tuple(round(each, DICE_DIGITS) for each in dice + dice[-1:] * (clicks - made)),
        lowered=sum(after < before for before, after in zip(dice, dice[1:])),
        obeyed=obeyed,
        asked=asked,
        seconds=tuple(seconds),
        missed=missed,
        lowered_by_misses=lowered_by_misses,
    )


def dice_of(given_zyx: np.ndarray, wanted_zyx: np.ndarray) -> float:
    """Dice of two masks, of which the wanted one is never empty here."""
    both = np.count_nonzero(given_zyx & wanted_zyx)
    return float(2 * both / (np.count_nonzero(given_zyx) + np.count_nonzero(wanted_zyx)))
