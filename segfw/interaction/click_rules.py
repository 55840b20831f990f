"""What a click may do to a mask, whatever a network proposes: rules that a person can rely on.

1. A change that is not connected with the click is dropped.
2. The clicked voxel obeys, and so do its neighbours along every axis that is not far thicker than the finest. Points
   that were clicked before still obey.
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
from segfw.images.geometry import Shape, Spacing
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
    raise AsksFirst(f"{called}: {problem}; give --may-overwrite if that is meant", others)


def thin_axes(spacing_mm: Spacing) -> tuple[int, ...]:
    """Axes along which a neighbour is near enough to be meant by a click, too."""
    limit_mm = ANISOTROPY_LIMIT * min(spacing_mm)
    return tuple(axis for axis, length_mm in enumerate(spacing_mm) if length_mm <= limit_mm)


def obeying_voxels(voxel: Index, shape: Shape, axes: Sequence[int]) -> list[Index]:
    """Rule 2: the clicked voxel first, then its neighbours along these axes that are in the image."""
    found = [voxel]
    for axis in axes:
        for step in (-1, 1):
            moved = list(voxel)
            moved[axis] += step
            if 0 <= moved[axis] < shape[axis]:
                z, y, x = moved
                found.append((z, y, x))
    return found


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
    shape: Shape = (old.shape[0], old.shape[1], old.shape[2])
    # What the network proposes, without protected voxels
    for joins in (True, False):
        moving = may_change & (wanted == joins) & (is_member != joins)
        for value in np.unique(old[moving]).tolist():
            if may_overwrite or not click.effects.others_left(value, joins=joins):
                new[moving & (old == value)] = click.effects.becomes(value, joins=joins)
    # The click, then those before it
    obeying = obeying_voxels(click.voxel, shape, axes)
    for place in obeying:
        value = int(old[place])
        is_free = may_overwrite or place == click.voxel
        if is_free or not click.effects.others_left(value, joins=click.inside):
            new[place] = click.effects.becomes(value, joins=click.inside)
    for before in earlier:
        _keep_obeyed(new, old, before, obeying, axes)
    return _connected(new, old, click.voxel, axes)


def _keep_obeyed(
    new: np.ndarray, old: np.ndarray, before: PlacedClick, obeying: Sequence[Index], axes: Sequence[int]
) -> None:
    """Takes back what would disobey an earlier click; its neighbours give way to those of the new one."""
    shape: Shape = (old.shape[0], old.shape[1], old.shape[2])
    for place in obeying_voxels(before.voxel, shape, axes):
        if not all(0 <= index < size for index, size in zip(place, shape)):
            continue
        gives_way = place == obeying[0] if place == before.voxel else place in obeying
        if not gives_way and not before.is_obeyed(new[place]) and before.is_obeyed(old[place]):
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
