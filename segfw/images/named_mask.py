"""Masks whose structures have names and may overlap (DICOM SEG, RTSTRUCT, .seg.nrrd), brought to one value a voxel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np

from segfw.base.records import Record
from segfw.base.words import count
from segfw.images.geometry import Geometry
from segfw.images.voxels import Refusal, SeriesUids

Box = tuple[slice, slice, slice]
# By how much of a voxel places may differ that are meant to be one: far above rounding, far below a neighbour.
NEARLY = 0.1
MOST_TIMES = 1000  # as many voxels as two grids have, that one which holds both may have


class Structure(NamedTuple):
    """What a file calls a structure, and its number there."""

    name: str
    number: int


class Part(NamedTuple):
    """Where a structure is: ``inside`` (bool) of the ``box`` of a grid, nothing outside."""

    box: Box
    inside: np.ndarray


class DrawnAs(Record):
    """What a structure of a file becomes in a mask: the value that is ``painted``, and all ``values`` that it holds.

    A plain label holds its own value alone; a region holds those of its labels. Structures are painted in the order in
    which they are listed.
    """

    name: str
    painted: int
    values: tuple[int, ...]


class NamedMask(Protocol):
    """What the readers of such files have in common."""

    @property
    def structures(self) -> tuple[Structure, ...]:
        """All structures of the file, in its order."""

    @property
    def grid(self) -> Geometry | None:
        """The grid that the file itself says, which may lack slices of its image; None if it says none."""

    @property
    def series(self) -> tuple[SeriesUids, ...]:
        """The DICOM series that it was drawn on; none where the file does not say."""

    @property
    def image_uids(self) -> frozenset[str]:
        """The slices that it was drawn on; none where the file does not say."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Doubts, each 'what is doubtful; what to do'; complete after the structures have been drawn."""

    def parts(self, number: int, grid: Geometry) -> list[Part]:
        """Where the structure at a position in ``structures`` is on a grid; Refusal if it cannot be said exactly."""


def painted(mask: NamedMask, grid: Geometry, drawn_as: Sequence[DrawnAs] | None) -> np.ndarray:
    """One value a voxel, (Z, Y, X), in the smallest type that holds all.

    Structures that ``drawn_as`` does not name are left out; None takes all, by their numbers. Several of one value go
    together. Raises Refusal where two overlap, unless one holds the other's value.
    """
    meanings = numbered(mask.structures) if drawn_as is None else drawn_as
    values = np.zeros(grid.shape, dtype=_type_of(meanings))
    order = {each.name: position for position, each in enumerate(meanings)}
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, structure in enumerate(mask.structures):
        if structure.name in order:
            groups.setdefault(meanings[order[structure.name]].values, []).append(position)
    by_values: dict[tuple[int, ...], DrawnAs] = {}
    for each in meanings:
        by_values.setdefault(each.values, each)
    painting = sorted(groups, key=lambda held: order[by_values[held].name])
    drawn: dict[tuple[int, ...], list[Part]] = {}
    has_regions = any(len(held) > 1 for held in groups)
    for held in painting:
        value = by_values[held].painted
        parts = [part for position in groups[held] for part in mask.parts(position, grid)]
        if has_regions:
            drawn[held] = parts
        else:
            names = {each.painted: _names(mask, groups[of]) for of, each in by_values.items() if of in groups}
            _require_free(values, parts, value, names)
        for part in parts:
            values[part.box][part.inside] = value
    for held, parts in drawn.items():
        _require_held(values, held, parts, _names(mask, groups[held]))
    return values


def numbered(structures: Sequence[Structure]) -> tuple[DrawnAs, ...]:
    """Each structure by its number in the file, or by its place from 1 on where numbers are not distinct."""
    numbers = {structure.name: structure.number for structure in structures}
    is_clear = len(set(numbers.values())) == len(numbers) and all(0 < number < 1 << 31 for number in numbers.values())
    if not is_clear:
        numbers = {name: place for place, name in enumerate(numbers, 1)}
    return tuple(DrawnAs(name=name, painted=number, values=(number,)) for name, number in numbers.items())


def _type_of(meanings: Sequence[DrawnAs]) -> type[np.integer]:
    values = [each.painted for each in meanings] or [0]
    for dtype in (np.uint8, np.int16):
        if np.iinfo(dtype).min <= min(values) and max(values) <= np.iinfo(dtype).max:
            return dtype
    return np.int32


def _names(mask: NamedMask, positions: Sequence[int]) -> str:
    return " and ".join(dict.fromkeys(mask.structures[position].name for position in positions))


def _require_free(values: np.ndarray, parts: Sequence[Part], value: int, names: Mapping[int, str]) -> None:
    """Refusal if something else is painted already where the label of a ``value`` is to be."""
    shared: Counter[int] = Counter()
    for part in parts:
        there = values[part.box][part.inside]
        others, times = np.unique(there[(there != 0) & (there != value)], return_counts=True)
        shared.update(dict(zip(others.tolist(), times.tolist())))
    if not shared:
        return
    other, voxels = shared.most_common(1)[0]
    what = f"{names[other]} and {names[value]} overlap in {count(voxels, 'voxel')}, and a voxel has one label"
    raise Refusal(f"{what}; separate them, leave one out, or make the one a region that holds the other")


def _require_held(values: np.ndarray, held: tuple[int, ...], parts: Sequence[Part], names: str) -> None:
    """Refusal unless the voxels that hold a region's values are those where it is drawn."""
    is_drawn = np.zeros(values.shape, dtype=bool)
    for part in parts:
        is_drawn[part.box] |= part.inside
    wrong = int((np.isin(values, held) != is_drawn).sum())
    if wrong:
        what = f"{names} overlaps with others so that one value a voxel cannot say it in {count(wrong, 'voxel')}"
        raise Refusal(f"{what}; draw each region within the one that holds it")


def joined(first: Geometry, second: Geometry) -> Geometry:
    """The smallest grid with the voxels of the first that holds all voxels of both.

    Whether those of the second are voxels of it is told where they are ``placed``.
    """
    relative = np.linalg.solve(first.matrix, second.matrix)
    corners = np.array([[*corner, 1] for corner in product(*((0, size - 1) for size in second.shape))])
    reached = np.rint(corners @ relative.T)[:, :3]
    low = np.minimum(reached.min(0), 0).astype(int)
    high = np.maximum(reached.max(0), np.array(first.shape) - 1).astype(int)
    affine = first.matrix.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    shape = high - low + 1
    if float(np.prod(shape.astype(float))) > MOST_TIMES * (np.prod(first.shape) + np.prod(second.shape)):
        raise Refusal("lies far away from the other mask; check that both are of one scan")
    return Geometry.of(shape.tolist(), affine)


# ---- blocks of voxels on a grid ----


def placed(inside: np.ndarray, affine: np.ndarray, grid: Geometry) -> list[Part]:
    """A block of voxels (bool, three axes) with a place of its own as a part of a grid; nothing if it is empty.

    Axes may be exchanged and turned round. Raises Refusal unless its voxels are voxels of the grid, and for what lies
    outside of it.
    """
    filled = np.nonzero(inside)
    if not filled[0].size:
        return []
    lows = [int(indices.min()) for indices in filled]
    highs = [int(indices.max()) for indices in filled]
    cut = inside[tuple(slice(low, high + 1) for low, high in zip(lows, highs))]
    axes, signs, offset = _voxel_to_voxel(affine, inside.shape, grid)
    starts = []
    for axis in range(3):
        source = axes[axis]
        ends = (offset[axis] + signs[axis] * lows[source], offset[axis] + signs[axis] * highs[source])
        starts.append(min(ends))
        if min(ends) < 0 or max(ends) >= grid.shape[axis]:
            outside = max(-min(ends), max(ends) - grid.shape[axis] + 1)
            what = f"reaches {count(outside, 'voxel')} out of its image"
            raise Refusal(f"{what}; give the image that it was drawn on, with all its slices")
    turned = cut.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    box = tuple(slice(start, start + size) for start, size in zip(starts, turned.shape))
    return [Part((box[0], box[1], box[2]), turned)]


def _voxel_to_voxel(
    affine: np.ndarray, shape: Sequence[int], grid: Geometry
) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]:
    """For each axis of the grid: the block's axis that runs along it, which way, and where its first voxel lies."""
    relative = np.linalg.solve(grid.matrix, affine)
    directions = relative[:3, :3]
    nearest = np.rint(directions)
    lengths = np.array(shape) - 1
    sizes_off = np.abs(directions - nearest) * lengths
    rounded = np.where(lengths > 0, nearest, 0)  # of a single slice the thickness means nothing
    used = np.flatnonzero(lengths > 0)
    is_turned = all(np.abs(rounded[:, axis]).sum() == 1 for axis in used) and np.abs(rounded).sum(1).max() <= 1
    first = relative[:3, 3]
    if not is_turned or sizes_off.max() > NEARLY or np.abs(first - np.rint(first)).max() > NEARLY:
        raise Refusal(
            "lies on another grid than its image (spacing, direction or place of the voxels differ); resample it onto "
            "the image by nearest neighbour, or give the image that it was drawn on"
        )
    axis_of = {int(np.abs(rounded[:, axis]).argmax()): int(axis) for axis in used}
    left = iter(sorted(set(range(3)) - set(axis_of.values())))
    axes = tuple(axis_of[axis] if axis in axis_of else next(left) for axis in range(3))
    signs = tuple(int(rounded[axis, axes[axis]]) or 1 for axis in range(3))
    offset = tuple(int(value) for value in np.rint(first))
    return (axes[0], axes[1], axes[2]), (signs[0], signs[1], signs[2]), (offset[0], offset[1], offset[2])
