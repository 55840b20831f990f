"""The order in which the page gets voxels, and the way back, on shapes that no swapped axis passes."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest

from segfw.images.geometry import Geometry
from segfw.review_page.served_grid import ServedGrid, is_seen_as_served, served_box, straightened

SHAPE = (2, 3, 4)  # z y x of the file
SPACING = (5.0, 2.0, 0.5)


def all_orientations() -> list[np.ndarray]:
    """The 48 ways in which the axes of an array can run along the body's, as directions (3, 3)."""
    found = []
    for order in permutations(range(3)):
        for signs in product((-1, 1), repeat=3):
            directions = np.zeros((3, 3))
            for axis, (world, sign) in enumerate(zip(order, signs)):
                directions[world, axis] = sign
            found.append(directions)
    return found


def geometry_of(directions: np.ndarray, shape=SHAPE, spacing=SPACING, origin=(10.0, -20.0, 30.0)) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = origin
    return Geometry.of(shape, affine)


def rotation(degrees: float, axis: int) -> np.ndarray:
    angle = np.radians(degrees)
    first, second = [each for each in range(3) if each != axis]
    result = np.eye(3)
    result[first, first] = result[second, second] = np.cos(angle)
    result[first, second] = -np.sin(angle)
    result[second, first] = np.sin(angle)
    return result


def test_a_file_that_runs_to_left_and_back_is_flipped_and_counted_by_hand():
    # x runs to the left, y to the back, z to the head: the commonest file of CT
    file = geometry_of(np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]], float), shape=(1, 2, 3))
    grid = ServedGrid.whole(file)
    stored = np.array([[[1, 2, 3], [4, 5, 6]]])
    assert grid.cut_out(stored).tolist() == [[[6, 5, 4], [3, 2, 1]]]
    assert grid.put_back(np.zeros_like(stored), np.array([[[6, 5, 4], [3, 2, 1]]])).tolist() == stored.tolist()
    # The voxel that is stored last lies furthest left and back, and is served first
    first_mm = grid.geometry.matrix @ [0, 0, 0, 1]
    assert first_mm.tolist() == (file.matrix @ [0, 1, 2, 1]).tolist() == [9.0, -22.0, 30.0, 1.0]


def test_a_sagittal_file_is_turned_and_counted_by_hand():
    # array axis 0 runs to the left, 1 to the foot, 2 to the front
    file = geometry_of(np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0]], float), shape=(2, 3, 1))
    grid = ServedGrid.whole(file)
    assert grid.full_shape == (3, 1, 2)
    assert grid.spacing_mm == (2.0, 0.5, 5.0)
    stored = np.arange(6).reshape(2, 3, 1)  # value: 3 x index to the left + index to the foot
    assert grid.cut_out(stored).tolist() == [[[5, 2]], [[4, 1]], [[3, 0]]]


@pytest.mark.parametrize("number", range(48))
def test_every_voxel_keeps_its_place_in_all_48_orientations(number: int):
    file = geometry_of(all_orientations()[number])
    grid = ServedGrid.whole(file)
    stored = np.arange(24).reshape(SHAPE)
    served = grid.cut_out(stored)
    assert nibabel.aff2axcodes(grid.geometry.matrix[:, [2, 1, 0, 3]]) == ("R", "A", "S")
    for index in np.ndindex(*SHAPE):
        place_mm = file.matrix @ [*index, 1]
        there = np.rint(np.linalg.solve(grid.geometry.matrix, place_mm)[:3]).astype(int)
        assert served[tuple(there)] == stored[index]
        assert grid.of_file_point(index) == tuple(there.tolist())
    np.testing.assert_array_equal(grid.put_back(np.zeros(SHAPE, int), served), stored)


@pytest.mark.parametrize("number", range(48))
def test_a_box_comes_back_to_its_place_and_leaves_the_rest(number: int):
    file = geometry_of(all_orientations()[number], shape=(4, 5, 6))
    rng = np.random.default_rng(number)
    stored = rng.integers(0, 5, file.shape)
    size = ServedGrid.whole(file).shape
    box = tuple(tuple(sorted(rng.choice(length + 1, 2, replace=False).tolist())) for length in size)
    grid = ServedGrid(file, box)
    part = grid.cut_out(stored)
    whole = ServedGrid.whole(file).cut_out(stored)
    np.testing.assert_array_equal(part, whole[tuple(slice(*bounds) for bounds in box)])
    np.testing.assert_array_equal(grid.put_back(stored, part), stored)
    changed = grid.put_back(stored, np.full(part.shape, 9))
    assert (changed == 9).sum() == part.size
    np.testing.assert_array_equal(changed[changed != 9], stored[changed != 9])
    # The first voxel of the box lies where its affine says
    first = ServedGrid.whole(file).geometry.matrix @ [*(start for start, _ in box), 1]
    np.testing.assert_allclose(grid.geometry.matrix[:, 3], first)


@pytest.mark.parametrize("number", range(48))
def test_a_region_of_the_file_is_the_same_voxels_where_it_is_served(number: int):
    file = geometry_of(all_orientations()[number], shape=(4, 5, 6))
    region = ((1, 3), (0, 2), (2, 6))
    stored = np.zeros(file.shape, int)
    inside = np.arange(1, 17).reshape(2, 2, 4)
    stored[1:3, 0:2, 2:6] = inside
    for grid in (ServedGrid.whole(file), ServedGrid(file, ((1, 4), (1, 4), (0, 3)))):
        box = grid.of_file_box(region)
        served = grid.cut_out(stored)
        part = grid.part_of_file_box(inside, region)
        if box is None:
            assert not served.any()
            assert part.size == 0
            continue
        block = tuple(slice(*bounds) for bounds in box)
        np.testing.assert_array_equal(served[block], part)
        assert (served > 0).sum() == part.size


@pytest.mark.parametrize("number", range(48))
def test_oblique_and_sheared_axes_stay_as_they_are(number: int):
    sheared = np.eye(3)
    sheared[1, 2] = 0.2
    directions = rotation(12, 0) @ rotation(-17, 2) @ sheared @ all_orientations()[number]
    file = geometry_of(directions)
    grid = ServedGrid.whole(file)
    stored = np.arange(24).reshape(SHAPE)
    served = grid.cut_out(stored)
    for index in np.ndindex(*SHAPE):
        there = np.linalg.solve(grid.geometry.matrix, file.matrix @ [*index, 1])[:3]
        np.testing.assert_allclose(there, np.rint(there), atol=1e-9)  # on a voxel of the served grid
        assert served[tuple(np.rint(there).astype(int))] == stored[index]
    affine_xyz = grid.geometry.matrix[:, [2, 1, 0, 3]]
    assert nibabel.aff2axcodes(affine_xyz) == ("R", "A", "S")
    assert is_seen_as_served(affine_xyz)


def turned_about_the_diagonal(degrees: float) -> np.ndarray:
    axis = np.ones(3) / np.sqrt(3)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.radians(degrees)
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross) * (0.5, 2.0, 5.0)
    affine[:3, 3] = (1, 2, 3)
    return affine


def test_axes_that_the_viewer_would_order_otherwise_are_told():
    assert is_seen_as_served(np.diag([0.5, 2.0, 5.0, 1.0]))
    assert not is_seen_as_served(np.diag([-0.5, 2.0, 5.0, 1.0]))
    # About the body's diagonal each axis comes nearest to the next one of the body beyond 60 degrees
    assert is_seen_as_served(turned_about_the_diagonal(55))
    assert not is_seen_as_served(turned_about_the_diagonal(65))


def test_straightened_axes_keep_sizes_and_the_middle():
    affine = turned_about_the_diagonal(65)
    flat = straightened(affine, (3, 5, 7))
    assert is_seen_as_served(flat)
    np.testing.assert_allclose(flat[:3, :3], np.diag((0.5, 2.0, 5.0)), atol=1e-12)
    np.testing.assert_allclose(flat @ [1, 2, 3, 1], affine @ [1, 2, 3, 1])


def test_a_large_volume_is_served_as_a_box_around_the_structures_with_a_margin():
    # 5, 2 and 0.5 mm: 25 mm are 5, 13 and 50 voxels
    file = geometry_of(np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], float), shape=(100, 200, 300))
    structures = [((40, 50), (90, 100), (140, 150)), ((45, 60), (80, 95), (145, 155))]
    grid = served_box(file, structures, largest_whole=1_000_000)
    assert grid.box == ((35, 65), (67, 113), (90, 205))
    assert not grid.is_whole
    assert served_box(file, structures, largest_whole=6_000_000).is_whole  # which it just is
    assert served_box(file, structures, largest_whole=5_999_999).box == grid.box
    assert served_box(file, [], largest_whole=1_000_000).is_whole  # around nothing there is no box
    edge = served_box(file, [((0, 3), (198, 200), (0, 300))], largest_whole=1_000_000)
    assert edge.box == ((0, 8), (185, 200), (0, 300))


def test_the_box_of_a_flipped_file_lies_at_the_other_end():
    file = geometry_of(np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], float), shape=(100, 200, 300))
    grid = served_box(file, [((0, 3), (0, 3), (0, 3))], largest_whole=1_000_000)
    assert grid.box == ((0, 8), (0, 16), (247, 300))
