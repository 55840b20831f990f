"""The largest diameter of a structure, and the two axes that radiologists measure in a slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AT_ONCE = 512  # points whose distances to all others are in memory


@dataclass(frozen=True, kw_only=True)
class SliceAxes:
    """Long and short axis of a structure in one slice, and where the long one ends, in RAS millimetres."""

    long_mm: float
    short_mm: float
    ends_ras_mm: tuple[tuple[float, float, float], tuple[float, float, float]]


def outer_points(mask_zyx: np.ndarray, flat_axis: int | None = None) -> np.ndarray:
    """Indices (N, 3) of surface points, all corners of the convex hull among them.

    A vertex of the surface lies half a voxel outside along one axis; on each line along an axis only the first and the
    last can be corners of the hull. Across ``flat_axis`` there is one slice, which has no thickness.
    """
    points = []
    for axis in (0, 1, 2):
        if axis == flat_axis:
            continue
        first, last = _ends_along(mask_zyx, axis)
        is_hit = first >= 0
        lines = np.argwhere(is_hit).astype(np.float64)
        points.append(np.insert(lines, axis, first[is_hit] - 0.5, axis=1))
        points.append(np.insert(lines, axis, last[is_hit] + 0.5, axis=1))
    return np.concatenate(points)


def _ends_along(mask_zyx: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last index along an axis, by the other two; -1 on a line without any."""
    size = mask_zyx.shape[axis]
    first = mask_zyx.argmax(axis)
    last = size - 1 - np.flip(mask_zyx, axis).argmax(axis)
    is_empty = ~np.take_along_axis(mask_zyx, np.expand_dims(first, axis), axis).squeeze(axis)
    first[is_empty] = -1
    last[is_empty] = -1
    return first, last


def diameter_mm(mask_zyx: np.ndarray, axes_mm: np.ndarray, flat_axis: int | None = None) -> float:
    """The largest distance between two points of the surface, of one slice of the outline."""
    from scipy.spatial import ConvexHull

    points_mm = outer_points(mask_zyx, flat_axis) @ axes_mm.T
    in_plane = points_mm
    if flat_axis is not None:
        in_plane = points_mm @ _plane([axes_mm[:, axis] for axis in range(3) if axis != flat_axis])
    first, second = _farthest(points_mm[ConvexHull(in_plane).vertices])
    return float(np.linalg.norm(first - second))


def _plane(steps: list[np.ndarray]) -> np.ndarray:
    """Two unit vectors (3, 2) that span the plane of two steps."""
    return np.linalg.qr(np.stack(steps, axis=1))[0]


def _farthest(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two points (N, D) that lie farthest apart."""
    from scipy.spatial.distance import cdist

    best = (-1.0, 0, 0)
    for start in range(0, len(points), AT_ONCE):
        distances = cdist(points[start : start + AT_ONCE], points)
        row, column = np.unravel_index(distances.argmax(), distances.shape)
        best = max(best, (float(distances[row, column]), start + int(row), int(column)), key=lambda found: found[0])
    return points[best[1]], points[best[2]]


def slice_axis(axes_mm: np.ndarray, shape: tuple[int, ...]) -> int:
    """The axis across the slices in which is measured: that of the only or the thick slices, else from head to foot."""
    if 1 in shape:
        return shape.index(1)
    spacing_mm = np.linalg.norm(axes_mm, axis=0)
    order = np.argsort(spacing_mm)
    is_thick = spacing_mm[order[-1]] >= THICK * spacing_mm[order[-2]]
    return int(order[-1]) if is_thick else 0


THICK = 1.5  # times the other edges of a voxel


def axes_in_slice(component_zyx: np.ndarray, axes_mm: np.ndarray, origin_ras_mm: np.ndarray, axis: int) -> SliceAxes:
    """In the slice across ``axis`` where the component is largest, of its largest part there.

    The long axis joins the two points of the outline that lie farthest apart, the short one is the longest line across
    the part at a right angle to it. Holes do not interrupt either. ``origin_ras_mm`` is where the first voxel lies.
    """
    others = tuple(each for each in range(3) if each != axis)
    index = int(component_zyx.sum(others, dtype=np.int64).argmax())
    outline = _outline(np.take(component_zyx, index, axis))
    points = np.insert(outline, axis, index, axis=1)
    steps = [axes_mm[:, other] for other in others]
    flat = points @ axes_mm.T @ _plane(steps)
    first, second = _farthest(flat)
    along = (second - first) / np.linalg.norm(second - first)
    turned = np.stack([flat @ along, flat @ np.array([-along[1], along[0]])], axis=1)
    ends = [points[np.flatnonzero((flat == end).all(1))[0]] @ axes_mm.T + origin_ras_mm for end in (first, second)]
    a, b = ((float(x), float(y), float(z)) for x, y, z in ends)
    return SliceAxes(
        long_mm=float(np.linalg.norm(second - first)), short_mm=_longest_across(turned), ends_ras_mm=(a, b)
    )


def _outline(mask: np.ndarray) -> np.ndarray:
    """The outline (N, 2) of the largest part of a slice, in indices, closed: its last point is its first."""
    from contourpy import contour_generator

    lines = contour_generator(z=np.pad(mask, 1).astype(np.float64), line_type="Separate").lines(0.5)
    outlines = [np.asarray(line)[:, ::-1] - 1 for line in lines]
    return max(outlines, key=_enclosed)


def _enclosed(outline: np.ndarray) -> float:
    """The area inside of a closed line."""
    first, second = outline[:-1], outline[1:]
    return float(abs((first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum()) / 2)


def _longest_across(outline: np.ndarray) -> float:
    """The longest line inside of a closed outline (N, 2) at a right angle to the first coordinate.

    Between two corners the length of a line changes evenly, so that the longest passes just beside a corner.
    """
    reach = np.ptp(outline[:, 0])
    corners = np.unique(outline[:, 0])
    nudge = 1e-9 * reach
    longest = 0.0
    starts, stops = outline[:-1], outline[1:]
    low = np.minimum(starts[:, 0], stops[:, 0])
    high = np.maximum(starts[:, 0], stops[:, 0])
    run = stops[:, 0] - starts[:, 0]
    for place in np.concatenate([corners - nudge, corners + nudge]):
        crossed = (low < place) & (place < high)
        share = (place - starts[crossed, 0]) / run[crossed]
        heights = np.sort(starts[crossed, 1] + share * (stops[crossed, 1] - starts[crossed, 1]))
        inside = heights[1::2] - heights[: len(heights) - len(heights) % 2 : 2]
        longest = max(longest, float(inside.max(initial=0.0)))
    return longest
