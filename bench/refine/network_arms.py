"""Arms with a network: the refiner as ``segfw refine`` applies it, and the same network without its clicks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from bench.refine.clicked_item import Arm, Item
from bench.refine.kept_out import KeptCase
from segfw.clicks.click import Click
from segfw.clicks.click_maps import CHANNELS
from segfw.clicks.simulated_clicks import Point
from segfw.images.values import as_integers
from segfw.interaction.click_windows import Start
from segfw.interaction.refiner import OpenCase, Refiner
from segfw.interaction.window_networks import WindowNetworks
from segfw.model.load import load_refiner

Opened = Callable[[KeptCase, Item], Arm]  # an arm at the automatic mask of a case
SEEN_WITHOUT_CLICKS = CHANNELS.index("inside")  # channels before this one are of the mask


class Clicked:
    """The refiner, with every rule that users get."""

    def __init__(self, opened: OpenCase, case: KeptCase, item: Item) -> None:
        self._opened = opened
        self._matrix = case.geometry.matrix
        self._item = item

    @property
    def values_zyx(self) -> np.ndarray:
        """The mask as it is now."""
        return as_integers(self._opened.mask.array)[0]

    def ras_mm(self, point: Point) -> tuple[float, float, float]:
        """Where a voxel lies."""
        x, y, z, _ = (self._matrix @ (*point, 1.0)).tolist()
        return x, y, z

    def click(self, point: Point, *, inside: bool, may_overwrite: bool) -> None:
        """Clicks."""
        self._opened.click(self._item.structure, self.ras_mm(point), inside, may_overwrite=may_overwrite)


class WithoutClicks(Clicked):
    """The control: looks where a click would be, sees none, and does all that the network proposes there.

    Neither rule that needs a click can hold: nothing obeys, and no change is dropped for being far from it. So this is
    the second network of a cascade, in as many steps as there are clicks.
    """

    def click(self, point: Point, *, inside: bool, may_overwrite: bool) -> None:
        """Looks once."""
        # What a click does before its rules; nobody but this measurement asks for that.
        placed = self._opened._placed(Click(label=self._item.structure, ras_mm=self.ras_mm(point), inside=inside))
        box, wanted_zyx, is_news_zyx, _ = self._opened._proposal(placed)
        part_zyx = self.values_zyx[tuple(slice(start, stop) for start, stop in box)]
        self._opened.set_mask(proposed(part_zyx, wanted_zyx, is_news_zyx, self._item.value, may_overwrite), box)


def proposed(
    part_zyx: np.ndarray, wanted_zyx: np.ndarray, is_news_zyx: np.ndarray, value: int, may_overwrite: bool
) -> np.ndarray:
    """Values after everything that a network proposes for one structure, without voxels of others unless allowed."""
    changed = part_zyx.copy()
    is_free = (part_zyx == 0) | may_overwrite
    changed[is_news_zyx & wanted_zyx & is_free] = value
    changed[is_news_zyx & ~wanted_zyx & (part_zyx == value)] = 0
    return changed


class Blind:
    """Networks that are shown no clicks."""

    def __init__(self, networks: WindowNetworks) -> None:
        self._networks = networks
        self.patch_size = networks.patch_size

    def odds(self, image_czyx: Tensor, start: Start, channels_czyx: np.ndarray) -> np.ndarray:
        """What they find in a window with empty channels of clicks."""
        shown = channels_czyx.copy()
        shown[SEEN_WITHOUT_CLICKS:] = 0
        return self._networks.odds(image_czyx, start, shown)


def network_arms(folder: Path) -> dict[str, Opened]:
    """Both arms, of one model that is read once."""
    model = load_refiner(folder)
    refiner = Refiner(model, device="cpu")
    blind = Refiner(model, device="cpu")
    blind._networks = Blind(blind._networks)

    def clicked(case: KeptCase, item: Item) -> Arm:
        return Clicked(refiner.open(list(case.images), case.automatic), case, item)

    def without_clicks(case: KeptCase, item: Item) -> Arm:
        return WithoutClicks(blind.open(list(case.images), case.automatic), case, item)

    return {"refiner": clicked, "no click": without_clicks}
