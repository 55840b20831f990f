"""Proposed places of clicks, on places whose voxels a human can count."""

import numpy as np
import pytest

from segfw.clicks.proposed_clicks import contradiction, doubt_near, proposed_clicks

SHAPE = (12, 16, 20)
SPACING_MM = (3.0, 1.0, 2.0)


def block(z, y, x):
    mask = np.zeros(SHAPE, bool)
    mask[slice(*z), slice(*y), slice(*x)] = True
    return mask


def test_shares_are_of_the_folds_that_contradict_the_mask():
    present = block((2, 4), (2, 4), (2, 4))
    folds = [present, block((2, 4), (2, 4), (2, 3)), np.zeros(SHAPE, bool), present]
    share = contradiction(folds, present)
    assert share[2, 2, 3] == 0.5  # two of four folds have nothing there
    assert share[2, 2, 2] == 0.25
    assert np.count_nonzero(share) == 8
    assert not contradiction([], present).any()


def test_the_largest_expected_error_comes_first_with_its_deepest_voxel():
    present = block((0, 12), (0, 16), (0, 5))
    small = block((2, 7), (2, 7), (12, 17))  # 5 x 5 x 5 voxels, where all folds have the structure
    large = block((2, 9), (3, 12), (0, 5))  # 7 x 9 x 5, of the mask, which three of four folds have not
    share = small * np.float32(1) + large * np.float32(0.75)
    first, second = proposed_clicks(share, present, SPACING_MM)
    assert first.wrong_mm3 > second.wrong_mm3
    assert (first.inside, second.inside) == (False, True)
    assert second.point == (4, 4, 14)  # its middle
    # Thick are voxels at least 2 mm from the border, whose voxels' middles lie one voxel farther: all of 3 mm slices,
    # 5 - 2 rows of 1 mm, and all columns of 2 mm
    assert second.box == ((2, 7), (3, 6), (12, 17))
    assert second.wrong_mm3 == pytest.approx(5 * 3 * 5 * 6)


def test_a_seam_comes_only_where_there_is_nothing_thicker():
    present = block((2, 10), (2, 14), (2, 18))
    seam = present & ~block((2, 10), (3, 14), (2, 18))  # one row of 1 mm
    share = seam.astype(np.float32)
    [alone] = proposed_clicks(share, present, SPACING_MM)
    assert alone.box == ((2, 10), (2, 3), (2, 18))
    assert not alone.inside
    share[4:9, 8:12, 6:12] = 1
    [thick] = proposed_clicks(share, present, SPACING_MM)
    assert thick.box == ((4, 9), (9, 11), (6, 12))  # 4 rows: only the two in the middle are 2 mm from the border


def test_no_doubt_no_place_and_never_more_than_asked_for():
    present = block((2, 4), (2, 4), (2, 4))
    assert proposed_clicks(np.full(SHAPE, 0.2, np.float32), present, SPACING_MM) == []
    share = np.zeros(SHAPE, np.float32)
    share[1::4, 1::4, 1::4] = 1
    assert len(proposed_clicks(share, present, SPACING_MM, most=4)) == 4


def test_a_map_of_doubt_counts_near_the_structure_alone():
    present = block((5, 6), (8, 9), (10, 11))
    near = doubt_near(np.ones(SHAPE, np.float32), present, SPACING_MM)
    assert near[5, 8, 10] == 0.5
    assert near[5, 13, 10] == 0.5  # 5 mm
    assert near[5, 14, 10] == 0
    assert near[6, 8, 12] == 0.5  # 3 and 4 mm: 5
    assert near[7, 8, 10] == 0  # 6 mm
    assert not doubt_near(np.ones(SHAPE, np.float32), np.zeros(SHAPE, bool), SPACING_MM).any()
