"""Images and masks on other grids: exact where grids share their voxels, by lines and majorities elsewhere."""

from itertools import permutations, product

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.perturbations.placing import (
    cut_per_side,
    every_nth_slice,
    moved,
    of_larger_voxels,
    padded,
    rotated,
    shifted_by_half,
)
from segfw.perturbations.regridding import covered, labels_on_grid, on_grid

SHAPE = (9, 14, 12)
AFFINE = np.array([[0, 0.1, 1.5, -20], [0.3, 0.9, 0, 5], [3.0, 0, 0.2, 8], [0, 0, 0, 1]])
GEOMETRY = Geometry.of(SHAPE, AFFINE)
RNG = np.random.default_rng(0)


def places(geometry):
    """Millimetres of every voxel, (3, Z, Y, X)."""
    index = np.indices(geometry.shape).reshape(3, -1)
    found = geometry.matrix[:3, :3] @ index + geometry.matrix[:3, 3:]
    return found.reshape(3, *geometry.shape)


def slope(geometry):
    """An image whose values are a linear function of where they are in the world: known on any grid."""
    x, y, z = places(geometry)
    return 500 + 2 * x - 3 * y + 5 * z


def volume_of(array, geometry=GEOMETRY):
    return Volume(array=np.asarray(array)[None], geometry=geometry)


def ball(geometry, radius_mm=9.0):
    middle = GEOMETRY.matrix[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + GEOMETRY.matrix[:3, 3]
    distance = np.sqrt(((places(geometry) - middle.reshape(3, 1, 1, 1)) ** 2).sum(0))
    return (distance < radius_mm).astype(np.uint8)


def inner(array, by=2):
    return array[by:-by, by:-by, by:-by]


@pytest.mark.parametrize(
    "changed",
    [
        rotated(volume_of(slope(GEOMETRY)), 17),
        shifted_by_half(volume_of(slope(GEOMETRY))),
        every_nth_slice(volume_of(slope(GEOMETRY)), 2),
        cut_per_side(volume_of(slope(GEOMETRY)), 0.2),
    ],
    ids=["rotated", "shifted", "every second slice", "cut"],
)
def test_header_and_array_change_together(changed):
    """What the header says of a voxel's place is where its value comes from."""
    known = covered(Geometry.of(np.array(SHAPE) - 2, GEOMETRY.matrix @ shift(1)), changed.geometry)
    assert known.sum() > 50
    np.testing.assert_allclose(changed.array[0][known], slope(changed.geometry)[known], rtol=1e-4)


def shift(voxels):
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix


def test_larger_voxels_cover_the_same_middle():
    changed = of_larger_voxels(volume_of(slope(GEOMETRY)), 1.5)
    np.testing.assert_allclose(changed.geometry.spacing_mm, np.array(GEOMETRY.spacing_mm) * 1.5)
    np.testing.assert_allclose(
        inner(changed.array[0], 1), inner(slope(changed.geometry), 1), rtol=0.02
    )  # nearest beyond the ends bends the slope near them
    middles = [geometry.matrix @ [*(np.array(geometry.shape) - 1) / 2, 1] for geometry in (GEOMETRY, changed.geometry)]
    np.testing.assert_allclose(*middles, atol=1e-9)


def test_masks_come_back_exactly_from_all_orders_of_axes():
    mask = RNG.integers(0, 5, SHAPE).astype(np.uint8)
    for order in permutations(range(3)):
        for flips in product((1, -1), repeat=3):
            turn = np.array(list(zip(order, flips)), float)
            turned = apply_orientation(mask, turn)
            geometry = Geometry.of(turned.shape, AFFINE @ inv_ornt_aff(turn, SHAPE))
            np.testing.assert_array_equal(labels_on_grid(turned, geometry, GEOMETRY, RNG), mask)
            assert covered(geometry, GEOMETRY).all()


@pytest.mark.parametrize("change", [padded, lambda volume: cut_per_side(volume, 0.2)], ids=["padded", "cut"])
def test_masks_come_back_exactly_from_whole_voxels(change):
    mask = RNG.integers(1, 5, SHAPE).astype(np.int16)
    changed = change(volume_of(mask))
    assert changed.geometry.shape != SHAPE
    back = labels_on_grid(changed.array[0], changed.geometry, GEOMETRY, RNG)
    inside = covered(changed.geometry, GEOMETRY)
    np.testing.assert_array_equal(back[inside], mask[inside])
    assert (back[~inside] == 0).all()
    lost = [round(0.2 * size) if size >= 8 else 0 for size in SHAPE]
    kept = np.prod([size - 2 * gone for size, gone in zip(SHAPE, lost)])
    assert inside.sum() == (mask.size if change is padded else kept)


def test_the_weights_of_eight_neighbours_decide():
    """Against a slow oracle: linear interpolation of each label by itself."""
    mask = RNG.integers(0, 3, SHAPE).astype(np.uint8)
    target = Geometry.of((7, 8, 9), AFFINE @ shift((0.7, 2.3, 1.1)))
    weights = [on_grid(volume_of((mask == label).astype(np.float32)), target).array[0] for label in range(3)]
    clear = np.sort(weights, axis=0)
    is_clear = clear[-1] - clear[-2] > 0.02
    assert is_clear.mean() > 0.7
    found = labels_on_grid(mask, GEOMETRY, target, RNG)
    np.testing.assert_array_equal(found[is_clear], np.argmax(weights, axis=0)[is_clear])


def test_half_a_voxel_neither_grows_nor_shrinks_a_structure():
    mask = ball(GEOMETRY)
    changed = shifted_by_half(volume_of(mask))
    there = labels_on_grid(mask, GEOMETRY, changed.geometry, np.random.default_rng(1))
    assert int(there.sum()) == pytest.approx(int(mask.sum()), rel=0.06)
    back = labels_on_grid(there, changed.geometry, GEOMETRY, np.random.default_rng(2))
    assert 0 < (back != mask).sum() < 0.3 * mask.sum()  # ties at the border go either way
    assert int(back.sum()) == pytest.approx(int(mask.sum()), rel=0.06)


def test_another_origin_changes_no_value():
    changed = moved(volume_of(slope(GEOMETRY)))
    np.testing.assert_array_equal(changed.array[0], slope(GEOMETRY))
    np.testing.assert_allclose(changed.geometry.matrix[:3, 3] - AFFINE[:3, 3], 300)
