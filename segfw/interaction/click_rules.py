"""What a click may do to a mask, whatever a network proposes: rules that a person can rely on.

1. A change that is not connected with the click is dropped.
2. The clicked voxel obeys, and voxels that were clicked before still do. Its neighbours are the network's to judge:
   where they were made to obey, two of five simulated clicks on thin errors made a mask of a hippocampus worse.
3. Voxels of other labels are protected, unless the click may overwrite them.
4. A click that would take its own voxel from another label asks first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segfw.base.components import connected_components
from segfw.base.words import listed
from segfw.clicks.click import AsksFirst
from segfw.grid.resample import ANISOTROPY_LIMIT
from segfw.images.geometry import Spacing
from segfw.interaction.value_effects import ValueEffects

Index = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class PlacedClick:
    """A click on a voxel of a mask; ``point_zyx`` is where it lies on the network's grid."""

    effects: ValueEffects
    voxel: Index
    point_zyx: tuple[float, float, float]
    inside: bool

    def is_obeyed(self, values: np.ndarray) -> np.ndarray:
        """Where the values are as the click says."""
        return self.effects.holds(values) == self.inside


def require_asked(value: int, click: PlacedClick, called: str) -> None:
    """Rule 4: AsksFirst if the clicked voxel, which has this value, would leave another structure."""
    others = click.effects.others_left(value, joins=click.inside)
    if not others:
        return
    if click.inside:
        problem = f"lies in {listed(others, 'and')}, which {click.effects.name} would take the voxel from"
    else:
        problem = f"would take the voxel out of {listed(others, 'and')}, too"
    raise AsksFirst(f"{called} {problem}; give --may-overwrite if that is meant", others)


def thin_axes(spacing_mm: Spacing) -> tuple[int, ...]:
    """Axes along which a change beside the click is near enough to be meant by it."""
    limit_mm = ANISOTROPY_LIMIT * min(spacing_mm)
    return tuple(axis for axis, length_mm in enumerate(spacing_mm) if length_mm <= limit_mm)


def ruled(
    old: np.ndarray,
    wanted: np.ndarray,
    may_change: np.ndarray,
    click: PlacedClick,
    earlier: Sequence[PlacedClick],
    axes: Sequence[int],
    *,
    may_overwrite: bool,
) -> np.ndarray:
    """The values (Z, Y, X) in a box after a click.

    Parameters
    ----------
    old
        Values of now; the box holds the click and its neighbours.
    wanted, may_change
        Where a network finds the structure, and where that is news.
    click, earlier
        The click, and those before it, with voxels counted from the box's corner; some may lie outside of it.
    axes
        Those of ``thin_axes``.
    may_overwrite
        Whether other labels may lose voxels.
    """
    is_member = click.effects.holds(old)
    new = old.copy()
    # What the network proposes, without protected voxels
    for joins in (True, False):
        moving = may_change & (wanted == joins) & (is_member != joins)
        for value in np.unique(old[moving]).tolist():
            if may_overwrite or not click.effects.others_left(value, joins=joins):
                new[moving & (old == value)] = click.effects.becomes(value, joins=joins)
    new[click.voxel] = click.effects.becomes(int(old[click.voxel]), joins=click.inside)
    for before in earlier:
        _keep_obeyed(new, old, before, click.voxel)
    return _connected(new, old, click.voxel, axes)


def _keep_obeyed(new: np.ndarray, old: np.ndarray, before: PlacedClick, clicked: Index) -> None:
    """Takes back what would disobey an earlier click on another voxel."""
    place = before.voxel
    is_in_box = all(0 <= index < size for index, size in zip(place, old.shape))
    if is_in_box and place != clicked and not before.is_obeyed(new[place]) and before.is_obeyed(old[place]):
        new[place] = old[place]


def _connected(new: np.ndarray, old: np.ndarray, voxel: Index, axes: Sequence[int]) -> np.ndarray:
    """Rule 1: the change without its parts that do not touch the clicked voxel or its neighbourhood."""
    components, _ = connected_components(new != old)
    near = []
    for axis, index in enumerate(voxel):
        reach = 1 if axis in axes else 0
        near.append(slice(max(0, index - reach), index + reach + 1))
    touched = np.unique(components[tuple(near)])
    is_kept = np.isin(components, touched[touched > 0])
    return np.where(is_kept, new, old)
