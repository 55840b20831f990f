"""Runs, zones, neighbours and levels counted by hand, on grids of unequal shape."""

import numpy as np
import pytest

from segfw.radiomics.all_features import texture_features
from segfw.radiomics.cooccurrence import cooccurrence_matrices
from segfw.radiomics.grey_runs import run_tables
from segfw.radiomics.grey_zones import Zones
from segfw.radiomics.intensity_features import histogram_features
from segfw.radiomics.level_grid import LevelGrid
from segfw.radiomics.level_sizes import LevelSizes
from segfw.radiomics.neighbourhoods import dependence_table, tone_features
from segfw.radiomics.radiomics_settings import ChannelProcessing
from segfw.radiomics.to_levels import (
    grid_around,
    image_on,
    laplacian_of_gaussian,
    levels_of,
    mask_on,
    tight,
    within_range,
)

ROW = LevelGrid.of(np.array([[[1, 1, 2, 0, 2, 2, 2]]]))  # one line, with a gap


def rows(table):
    return sorted(zip(table.level.tolist(), table.size.tolist(), table.count.tolist()))


def test_a_line_with_a_gap_has_three_runs():
    along, *across = (table for table in run_tables(ROW) if len(table.level))
    tables = [rows(each) for each in (along, *across)]
    assert [(1, 2, 1), (2, 1, 1), (2, 3, 1)] in tables  # along the line
    assert tables.count([(1, 1, 2), (2, 1, 4)]) == 12  # in every other direction each voxel is alone
    merged = LevelSizes.merged(run_tables(ROW))
    assert merged.voxels == 13 * 6
    assert (1, 1, 24.0) in rows(merged)
    assert (2, 3, 1.0) in rows(merged)


def test_a_line_has_its_pairs_in_one_direction_alone():
    matrices = [matrix for matrix in cooccurrence_matrices(ROW) if matrix.any()]
    assert len(matrices) == 1
    assert matrices[0].tolist() == [[2, 1], [1, 4]]  # 11, 12; 22, 22; each both ways


def test_zones_touch_by_corners_and_have_the_distance_of_their_outermost_voxel():
    levels = np.zeros((5, 7, 6), int)
    levels[1:4, 1:6, 1:5] = 1
    levels[2, 3, 2] = 2  # two steps from outside
    levels[2, 2, 3] = 2  # touches the first by an edge; two steps as well
    levels[1, 5, 4] = 3
    zones = Zones.of(LevelGrid.of(levels))
    assert rows(zones.sizes) == [(1, 57, 1), (2, 2, 1), (3, 1, 1)]
    assert rows(zones.distances) == [(1, 1, 1), (2, 2, 1), (3, 1, 1)]
    in_slices = Zones.of(LevelGrid.of(levels, is_by_slice=True))
    assert rows(in_slices.sizes) == [(1, 18, 1), (1, 19, 1), (1, 20, 1), (2, 2, 1), (3, 1, 1)]


def test_what_is_out_of_range_is_no_border_for_distances():
    shape = np.ones((5, 5, 5), bool)
    levels = np.ones((5, 5, 5), int)
    levels[2, 2, 1] = 0  # out of range, but in the structure
    levels[2, 2, 2] = 2
    assert rows(Zones.of(LevelGrid.of(levels, shape)).distances) == [(1, 1, 1), (2, 3, 1)]
    assert rows(Zones.of(LevelGrid.of(levels)).distances) == [(1, 1, 1), (2, 1, 1)]


def test_dependences_and_tone_differences_of_four_voxels():
    square = LevelGrid.of(np.array([[[1, 1], [3, 1]]]))
    assert rows(dependence_table(square)) == [(1, 3, 3), (3, 1, 1)]
    # Of each 1 the neighbours' mean is 5/3, of the 3 it is 1
    found = tone_features(square)
    sums = {1: 3 * 2 / 3, 3: 2.0}
    assert found["coarseness"] == pytest.approx(1 / (0.75 * sums[1] + 0.25 * sums[3]))
    assert found["strength"] == pytest.approx(2 * 1.0 * 4 / 4)


def test_equal_values_have_no_correlation_and_no_contrast_but_an_entropy_of_0():
    grid = LevelGrid.of(np.ones((3, 4, 5), int))
    flat = texture_features(grid, 1)
    assert flat["glcm"]["correlation"] is None
    assert flat["glcm"]["information_correlation_1"] is None
    assert flat["glcm"]["joint_entropy"] == 0
    assert flat["ngtdm"]["contrast"] is None
    histogram = histogram_features(grid.levels)
    assert histogram["maximum_gradient"] is None
    assert histogram["skewness"] is None


def test_levels_begin_where_the_range_does_and_the_largest_value_has_the_last():
    so_many = ChannelProcessing(modality="other", levels=4)
    assert levels_of(np.array([0.0, 24.9, 25.0, 99.9, 100.0]), so_many).tolist() == [1, 1, 2, 4, 4]
    assert levels_of(np.array([7.0, 7.0]), so_many).tolist() == [1, 1]
    of_width = ChannelProcessing(modality="CT", bin_width=25.0)
    assert levels_of(np.array([-1000.0, -976.0, -975.0, 0.0, -1200.0]), of_width).tolist() == [1, 1, 2, 41, 1]
    in_range = ChannelProcessing(modality="CT", bin_width=25.0, range=(-50.0, 50.0))
    assert levels_of(np.array([-50.0, -26.0, -25.0, 50.0]), in_range).tolist() == [1, 1, 2, 5]
    assert levels_of(np.array([0.0, 1e7]), of_width) is None  # more levels than a matrix can have


def test_the_range_leaves_out_voxels_and_includes_its_ends():
    values = np.array([-51.0, -50.0, 0.0, 50.0, 51.0])
    assert within_range(values, values < 51, (-50.0, 50.0)).tolist() == [False, True, True, True, False]
    assert within_range(values, values < 51, None).tolist() == [True] * 4 + [False]


def test_of_several_commonest_levels_the_mode_is_the_one_nearest_to_the_mean():
    assert histogram_features(np.array([1, 1, 4, 4, 5, 7]))["mode"] == 4


def test_new_voxels_have_the_same_centre_and_cover_as_much():
    image = np.arange(5 * 4 * 6, dtype=float).reshape(5, 4, 6)
    axes_mm = np.diag([3.0, 2.0, 1.0])[::-1]
    whole = tuple(slice(0, size) for size in image.shape)
    grid = grid_around(whole, image.shape, axes_mm, np.full(3, 2.0))
    assert grid.shape == (8, 4, 3)  # 15 mm in 8 voxels of 2 mm, 8 in 4, 6 in 3
    middle = grid.steps @ ((np.array(grid.shape) - 1) / 2) + grid.start
    assert middle == pytest.approx([2, 1.5, 2.5])
    found = image_on(image, grid)
    # z at index 2 + (k - 3.5) 2/3, y as it is, x between two voxels; 24, 6 and 1 are the steps of values
    assert found[3, 1, 0] == pytest.approx(24 * (2 - 1 / 3) + 6 + 0.5)


def test_a_mask_of_half_a_voxel_counts_and_less_does_not():
    inside = np.ones((1, 1, 4), bool)
    axes_mm = np.eye(3)
    box = (slice(3, 4), slice(3, 4), slice(2, 6))
    grid = grid_around(box, (7, 7, 9), axes_mm, np.array([1.0, 1.0, 0.5]))
    found = mask_on(inside, np.array([3, 3, 2]), grid)
    positions = grid.start[2] + 0.5 * np.flatnonzero(found.any((0, 1)))
    # Voxels 2 to 5 end at 1.5 and 5.5; of 18 new voxels two a voxel, none lies on a border
    assert positions.min() == pytest.approx(1.75)
    assert positions.max() == pytest.approx(5.25)
    assert tight(found) is not None


def test_a_laplacian_of_gaussian_is_that_of_its_formula():
    image = np.zeros((31, 33, 35))
    image[15, 16, 17] = 1
    grid = grid_around(tuple(slice(0, size) for size in image.shape), image.shape, 2.0 * np.eye(3), np.full(3, 2.0))
    found = laplacian_of_gaussian(image, grid, 6.0, is_by_slice=False)
    sigma = 3.0  # voxels
    z, y, x = np.indices(found.shape) - np.array([15, 16, 17])[:, None, None, None]
    square = z**2 + y**2 + x**2
    gauss = np.exp(-square / (2 * sigma**2)) / (2 * np.pi * sigma**2) ** 1.5
    formula = (square / sigma**2 - 3) / sigma**2 * gauss
    assert np.abs(found - formula).max() < 0.005 * np.abs(formula).max()
    in_slices = laplacian_of_gaussian(image, grid, 6.0, is_by_slice=True)
    assert not in_slices[14].any()
    assert in_slices[15].any()
