"""Outlines along the edges of voxels: filled by rasterisers that know nothing of them, they are the mask."""

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from skimage.draw import polygon2mask

from segfw.interop.contours import Outlines, outlines
from segfw.interop.fill_outlines import filled


def by_matplotlib(shape_yx: tuple[int, int], corners_yx: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: shape_yx[0], : shape_yx[1]]
    centres = np.stack([x.ravel(), y.ravel()], 1)
    return Polygon(corners_yx[:, ::-1]).contains_points(centres).reshape(shape_yx)


def by_slow_rule(shape_yx: tuple[int, int], corners_yx: np.ndarray) -> np.ndarray:
    """Even and odd, voxel by voxel: how many edges lie to the left of its centre."""
    inside = np.zeros(shape_yx, bool)
    ends = list(zip(corners_yx, np.roll(corners_yx, -1, axis=0)))
    for y, x in np.ndindex(shape_yx):
        crossed = 0
        for (y0, x0), (y1, x1) in ends:
            if min(y0, y1) <= y < max(y0, y1):
                crossed += x0 + (y - y0) * (x1 - x0) / (y1 - y0) < x
        inside[y, x] = crossed % 2 == 1
    return inside


def fill(found: Outlines, structure: int, shape: tuple[int, int, int], by) -> np.ndarray:
    """All polygons of a structure; of one within another the voxels are out."""
    mask = np.zeros(shape, bool)
    for number in np.flatnonzero(found.structures == structure):
        corners = found.corners_yx[found.starts[number] : found.starts[number + 1]]
        mask[found.slices[number]] ^= by(shape[1:], corners)
    return mask


def fill_by_ours(found: Outlines, structure: int, shape: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    numbers = np.flatnonzero(found.structures == structure)
    starts = found.starts[numbers[0] : numbers[-1] + 2]
    box = filled(found.corners_yx[starts[0] : starts[-1]], starts - starts[0], found.slices[numbers])
    mask[box.box] = box.inside
    return mask


@pytest.mark.parametrize("keyholes", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_what_is_filled_is_the_mask_and_the_area_its_voxels(seed, keyholes):
    """Noise of every density: holes in holes, structures that touch by corners, single voxels, full slices."""
    rng = np.random.default_rng(seed)
    structures = int(rng.integers(1, 5))
    shape = tuple(rng.integers(1, 14, 3).tolist())
    mask = rng.integers(1, structures + 1, shape) * (rng.random(shape) < rng.uniform(0.1, 1))
    found = outlines(mask, keyholes=keyholes, chunk_voxels=int(rng.integers(1, 400)))
    areas = found.areas()
    for structure in range(1, structures + 1):
        expected = mask == structure
        for by in (by_matplotlib, polygon2mask):
            np.testing.assert_array_equal(fill(found, structure, shape, by), expected)
        assert areas[found.structures == structure].sum() == expected.sum()
        if expected.any():
            np.testing.assert_array_equal(fill_by_ours(found, structure, shape), expected)
    assert not keyholes or (areas > 0).all()  # no hole is left a polygon of its own


def test_the_slow_rule_agrees_with_ours_on_polygons_of_any_slope():
    rng = np.random.default_rng(5)
    for _ in range(20):
        corners = rng.uniform(-2, 12, (int(rng.integers(3, 9)), 2))
        box = filled(corners, np.array([0, len(corners)]), np.array([0]))
        mask = np.zeros((1, 16, 16), bool)
        low = [max(0, start) for start in box.corner]
        for z, y, x in np.argwhere(box.inside) + box.corner:
            if min(z, y, x) >= 0:
                mask[z, y, x] = True
        assert low[0] == 0
        np.testing.assert_array_equal(mask[0], by_slow_rule((16, 16), corners))


def test_a_ring_is_one_polygon_with_a_channel_or_two_that_run_opposite_ways():
    ring = np.ones((1, 5, 6), int)
    ring[0, 2, 2:4] = 0
    (whole,) = [outlines(ring, keyholes=True)]
    assert len(whole) == 1
    assert whole.areas().tolist() == [28]
    apart = outlines(ring, keyholes=False)
    assert sorted(apart.areas().tolist()) == [-2, 30]
    assert len(apart.corners_yx) == 8  # only where outlines turn


def test_an_island_in_a_hole_is_a_polygon_of_its_own():
    mask = np.ones((1, 7, 7), int)
    mask[0, 1:6, 1:6] = 0
    mask[0, 3, 3] = 1
    found = outlines(mask, keyholes=True)
    assert sorted(found.areas().tolist()) == [1, 24]


def test_voxels_that_touch_by_a_corner_are_two_polygons():
    mask = np.eye(2, dtype=int)[None]
    assert outlines(mask, keyholes=True).areas().tolist() == [1, 1]
    assert outlines(mask[:, ::-1], keyholes=True).areas().tolist() == [1, 1]


def test_nothing_has_no_outline():
    found = outlines(np.zeros((2, 3, 4), int), keyholes=True)
    assert len(found) == 0
    assert found.areas().tolist() == []
    assert filled(found.corners_yx, found.starts, found.slices).inside.size == 0


def test_outlines_are_ordered_by_structure_and_slice():
    mask = np.array([[[2, 1]], [[1, 2]], [[0, 1]]])
    found = outlines(mask, keyholes=True, chunk_voxels=1)
    assert list(zip(found.structures.tolist(), found.slices.tolist())) == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
