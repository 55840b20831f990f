"""Outlines of structures along the edges of voxels: filled at the centres of voxels they give the mask exactly.

Outlines through the centres of the outermost voxels, which is what tracing pictures usually gives, enclose half a voxel
less on every side: 81 % of a hippocampus. An outline along edges encloses the voxels' own area.

All corners of all structures of a stack of slices are found in one pass. A corner where an outline turns is joined to
the next one in its row and to the next one in its column, alternately: in each row (and column) of one structure the
turns come in pairs, the ends of one edge. Where voxels touch by a corner alone, two outlines turn there, each around
its own voxel, so that voxels belong together by their sides and holes by sides or corners.

Corner (y, x) of a slice lies at (y - 0.5, x - 0.5) of its voxels; outlines have the structure on the right where y
points down, so that holes run the other way round.
"""

# Z Y X space, N corners, P polygons

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHUNK_VOXELS = 1 << 24  # of a stack that is traced at once


@dataclass(frozen=True, kw_only=True)
class Outlines:
    """Closed polygons, ordered by structure and slice.

    ``corners_yx`` (N, 2) are in voxels: half numbers, between the centres. Polygon p has those from ``starts[p]`` to
    ``starts[p + 1]``, without the first one again; it is of ``structures[p]`` in slice ``slices[p]``.
    """

    corners_yx: np.ndarray
    starts: np.ndarray  # (P + 1,)
    structures: np.ndarray  # (P,)
    slices: np.ndarray  # (P,)

    def __len__(self) -> int:
        return len(self.structures)

    def areas(self) -> np.ndarray:
        """Area of each polygon in voxels, (P,); negative for holes."""
        y, x = self.corners_yx.T
        following = np.arange(1, len(y) + 1)
        following[self.starts[1:] - 1] = self.starts[:-1]
        return np.add.reduceat(x * y[following] - x[following] * y, self.starts[:-1]) / 2 if len(self) else np.zeros(0)


def outlines(structures_zyx: np.ndarray, *, keyholes: bool, chunk_voxels: int = CHUNK_VOXELS) -> Outlines:
    """Polygons around every structure in every slice.

    Parameters
    ----------
    structures_zyx
        Number of the structure that each voxel is of, (Z, Y, X); 0 is none.
    keyholes
        Whether holes are part of the polygon around them, by a channel of no width; else each is a polygon of its own.
    chunk_voxels
        Memory is that of so many voxels, or of a slice if that is larger.
    """
    depth, height, width = structures_zyx.shape
    step = max(1, chunk_voxels // max(1, height * width))
    parts = [_traced(structures_zyx[z : z + step], z, keyholes) for z in range(0, depth, step)]
    corners = np.concatenate([part.corners_yx for part in parts]) if parts else np.zeros((0, 2))
    sizes = np.concatenate([np.diff(part.starts) for part in parts]) if parts else np.zeros(0, int)
    structures = np.concatenate([part.structures for part in parts]) if parts else np.zeros(0, int)
    slices = np.concatenate([part.slices for part in parts]) if parts else np.zeros(0, int)
    # From the order of stacks to that of structures
    order = np.lexsort((slices, structures))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ordered_sizes = sizes[order]
    ordered_starts = np.concatenate([[0], np.cumsum(ordered_sizes)])
    taken = np.arange(len(corners)) + np.repeat(starts[:-1][order] - ordered_starts[:-1], ordered_sizes)
    return Outlines(
        corners_yx=corners[taken], starts=ordered_starts, structures=structures[order], slices=slices[order]
    )


@dataclass(frozen=True, kw_only=True)
class _Turns:
    """Corners at which an outline turns; of two at one place the first has the edge to the left.

    ``structure``, ``z``, ``y``, ``x`` (N,) say where; ``right`` and ``down`` which edges end there, else those to the
    left and up; ``begins`` whether the outline goes on along the row from here, else along the column.
    """

    structure: np.ndarray
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    right: np.ndarray
    down: np.ndarray
    begins: np.ndarray
    shape: tuple[int, int, int]

    def row_keys(self) -> np.ndarray:
        """Numbers that order turns along the rows of each structure."""
        return _row_key(self.shape, self.structure, self.z, self.y, self.x) * 2 + self.right

    def column_keys(self) -> np.ndarray:
        """Numbers that order turns along the columns of each structure."""
        return _column_key(self.shape, self.structure, self.z, self.y, self.x) * 2 + self.down


def _row_key(
    shape: tuple[int, int, int], structure: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray
) -> np.ndarray:
    depth, height, width = shape
    return ((structure * depth + z) * (height + 1) + y) * (width + 1) + x


def _column_key(
    shape: tuple[int, int, int], structure: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray
) -> np.ndarray:
    depth, height, width = shape
    return ((structure * depth + z) * (width + 1) + x) * (height + 1) + y


def _traced(stack_zyx: np.ndarray, first_slice: int, keyholes: bool) -> Outlines:
    """The outlines in a stack of slices."""
    turns = _turns(stack_zyx)
    number = len(turns.x)
    row_keys = turns.row_keys()
    column_keys = turns.column_keys()
    by_row = np.argsort(row_keys, kind="stable")
    by_column = np.argsort(column_keys, kind="stable")
    along_row = _partners(by_row)
    along_column = _partners(by_column)
    following = np.where(turns.begins, along_row, along_column)

    loop_of, loop_starts = _loops(following, turns.begins)
    # Twice the area, from the edges along rows alone; negative for holes
    row_edges = np.where(turns.begins, turns.y * (turns.x - turns.x[along_row]), 0) if number else np.zeros(0)
    is_hole = np.bincount(loop_of, weights=row_edges, minlength=len(loop_starts)) < 0
    corners = _Corners(turns.y, turns.x, following)
    if keyholes and is_hole.any():
        finder = _Finder(turns, row_keys[by_row], by_row, column_keys[by_column], by_column, along_column)
        _cut_channels(corners, finder, stack_zyx, loop_of, is_hole)
        loop_starts = loop_starts[~is_hole]
    return corners.outlines(loop_starts, turns, first_slice)


def _turns(stack_zyx: np.ndarray) -> _Turns:
    """All turns of all structures in a stack of slices."""
    padded = np.pad(stack_zyx, ((0, 0), (1, 1), (1, 1)))
    # The four voxels around each corner: above left and right, below left and right
    around = (padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:])
    differs = (around[0] != around[1]) | (around[0] != around[2]) | (around[0] != around[3])
    z, y, x = np.nonzero(differs)
    values = [part[z, y, x].astype(np.int64) for part in around]
    found: list[tuple[np.ndarray, ...]] = []
    for index, value in enumerate(values):
        is_first = value != 0
        for earlier in values[:index]:
            is_first &= value != earlier
        place = np.flatnonzero(is_first)
        structure = value[place]
        tl, tr, bl, br = ((part[place] == structure) for part in values)
        amount = tl.astype(np.int8) + tr + bl + br
        where = (structure, z[place], y[place], x[place])
        # One voxel, or all but one: the outline turns once
        once = (amount == 1) | (amount == 3)
        right = tr != br
        begins = np.where(right, br, tl)
        found.append(tuple(part[once] for part in (*where, right, bl != br, begins)))
        # Two that touch by the corner: twice, around each of them
        falling = (amount == 2) & tl & br
        rising = (amount == 2) & tr & bl
        found += [_turn(where, falling, right=False, down=False, begins=True)]
        found += [_turn(where, falling, right=True, down=True, begins=True)]
        found += [_turn(where, rising, right=False, down=True, begins=False)]
        found += [_turn(where, rising, right=True, down=False, begins=False)]
    structure, z, y, x, right, down, begins = (np.concatenate(parts) for parts in zip(*found))
    depth, height, width = stack_zyx.shape
    return _Turns(
        structure=structure, z=z, y=y, x=x, right=right, down=down, begins=begins, shape=(depth, height, width)
    )


def _turn(
    where: tuple[np.ndarray, ...], chosen: np.ndarray, *, right: bool, down: bool, begins: bool
) -> tuple[np.ndarray, ...]:
    number = int(chosen.sum())
    flags = (np.full(number, right), np.full(number, down), np.full(number, begins))
    return (*(part[chosen] for part in where), *flags)


def _partners(order: np.ndarray) -> np.ndarray:
    """The other end of the edge of each turn: in order they come in pairs."""
    partners = np.empty(len(order), np.int64)
    partners[order[0::2]] = order[1::2]
    partners[order[1::2]] = order[0::2]
    return partners


def _loops(following: np.ndarray, begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Number of the loop of each turn, a turn of each loop)."""
    next_of = following.tolist()
    loop_of = [-1] * len(next_of)
    starts: list[int] = []
    for first in np.flatnonzero(begins).tolist():
        if loop_of[first] >= 0:
            continue
        number = len(starts)
        starts.append(first)
        at = first
        while loop_of[at] < 0:
            loop_of[at] = number
            at = next_of[at]
    return np.array(loop_of, np.int64), np.array(starts, np.int64)


class _Corners:
    """Corners as a linked list, into which channels are cut."""

    def __init__(self, y: np.ndarray, x: np.ndarray, following: np.ndarray) -> None:
        previous = np.empty(len(following), np.int64)
        previous[following] = np.arange(len(following))
        self.y: list[int] = y.tolist()
        self.x: list[int] = x.tolist()
        self.following: list[int] = following.tolist()
        self.previous: list[int] = previous.tolist()

    def add_after(self, before: int, y: int, x: int) -> int:
        """A new corner between one and its next."""
        new = len(self.y)
        self.y.append(y)
        self.x.append(x)
        self.following.append(0)
        self.previous.append(0)
        self._link(new, self.following[before])
        self._link(before, new)
        return new

    def join(self, at: int, hole: int) -> None:
        """Lets the outline go from ``at`` to the hole's corner, around the hole, and back to ``at``."""
        back = self.add_after(at, self.y[at], self.x[at])
        end = self.add_after(self.previous[hole], self.y[hole], self.x[hole])
        self._link(at, hole)
        self._link(end, back)

    def _link(self, first: int, second: int) -> None:
        self.following[first] = second
        self.previous[second] = first

    def outlines(self, starts: np.ndarray, turns: _Turns, first_slice: int) -> Outlines:
        """The closed polygons that begin at these turns."""
        order: list[int] = []
        ends = [0]
        for first in starts.tolist():
            order.append(first)
            at = self.following[first]
            while at != first:
                order.append(at)
                at = self.following[at]
            ends.append(len(order))
        taken = np.array(order, np.int64)
        y = np.array(self.y, np.float64)[taken]
        x = np.array(self.x, np.float64)[taken]
        return Outlines(
            corners_yx=np.stack([y, x], 1) - 0.5,
            starts=np.array(ends, np.int64),
            structures=turns.structure[starts],
            slices=turns.z[starts] + first_slice,
        )


@dataclass(frozen=True)
class _Finder:
    """Finds turns by their place."""

    turns: _Turns
    row_keys: np.ndarray
    by_row: np.ndarray
    column_keys: np.ndarray
    by_column: np.ndarray
    along_column: np.ndarray

    def turn_at(self, like: int, y: int, x: int) -> int:
        """The one turn of a structure at a corner whose edge goes to the left."""
        turns = self.turns
        key = _row_key(turns.shape, turns.structure[like], turns.z[like], np.array(y), np.array(x)) * 2
        return int(self.by_row[np.searchsorted(self.row_keys, key)])

    def lower_end(self, like: int, y: int, x: int) -> int:
        """The lower end of the edge along a column that passes a corner."""
        turns = self.turns
        key = _column_key(turns.shape, turns.structure[like], turns.z[like], np.array(y), np.array(x)) * 2
        upper = self.by_column[np.searchsorted(self.column_keys, key) - 1]
        return int(self.along_column[upper])


def _cut_channels(
    corners: _Corners, finder: _Finder, stack_zyx: np.ndarray, loop_of: np.ndarray, is_hole: np.ndarray
) -> None:
    """Joins every hole to the outline that lies to the left of its leftmost corner, along the edges of voxels.

    That outline may be of another hole, which is joined to the left as well, so that in the end all are part of the
    outline of their structure.
    """
    turns = finder.turns
    of_holes = np.flatnonzero(is_hole[loop_of])
    order = of_holes[np.lexsort((turns.y[of_holes], turns.x[of_holes], loop_of[of_holes]))]
    _, firsts = np.unique(loop_of[order], return_index=True)
    into_edges: list[tuple[int, int, int, int]] = []  # lower end, -y, x, first corner of the hole
    joins: list[tuple[int, int]] = []  # corner of the outline, first corner of the hole
    for hole in order[firsts].tolist():
        y = int(turns.y[hole])
        x = int(turns.x[hole])
        # A hole is never at the border of the slice, so that there are voxels above and below.
        two_rows = stack_zyx[turns.z[hole], y - 1 : y + 1, :x] == turns.structure[hole]
        gaps = np.flatnonzero(~two_rows.all(0))
        wall = int(gaps[-1]) + 1 if len(gaps) else 0
        if wall > 0 and two_rows[:, wall - 1].any():
            joins.append((finder.turn_at(hole, y, wall), hole))
        else:
            into_edges.append((finder.lower_end(hole, y, wall), -y, wall, hole))
    # Corners of edges are all there before any hole is joined, so that what follows a corner is its own edge. They are
    # added in the outline's direction, which is upwards with the structure on its right.
    after: dict[int, int] = {}
    for lower, minus_y, x, hole in sorted(into_edges):
        after[lower] = corners.add_after(after.get(lower, lower), -minus_y, x)
        joins.append((after[lower], hole))
    for at, hole in joins:
        corners.join(at, hole)
