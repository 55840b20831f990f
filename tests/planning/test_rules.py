"""The recipe's rules on small examples worked out by hand from docs/reference/rules.md, on unequal spacings."""

import pytest

from segfw.planning import rules


def test_target_spacing_is_the_median_per_axis():
    spacings = [(3, 1, 0.5), (2, 1.5, 0.6), (4, 0.9, 0.7)]
    assert rules.target_spacing(spacings, [(50, 60, 70)] * 3) == (3, 1, 0.6)


def test_a_far_coarser_and_shorter_axis_takes_the_tenth_percentile():
    spacings = [(value, 1, 0.8) for value in (5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)]
    # Sorted, the tenth percentile of eleven values is the second one.
    assert rules.target_spacing(spacings, [(20, 100, 100)] * 11) == (6, 1, 0.8)
    assert rules.target_spacing(spacings, [(34, 100, 100)] * 11) == (10, 1, 0.8)  # 3 x 34 is not under 100
    along_x = [spacing[::-1] for spacing in spacings]
    assert rules.target_spacing(along_x, [(100, 100, 20)] * 11) == (0.8, 1, 6)


def test_the_tenth_percentile_is_never_finer_than_the_other_axes():
    spacings = [(0.5, 1, 0.8), (0.5, 1, 0.8), (9, 1, 0.8), (9, 1, 0.8), (9, 1, 0.8)]
    assert rules.target_spacing(spacings, [(20, 100, 100)] * 5) == (1 + 1e-5, 1, 0.8)


@pytest.mark.parametrize("spacing", [(3.0, 1, 0.8), (2.9, 1, 0.8)])
def test_three_times_coarser_is_not_far_coarser(spacing):
    spacings = [spacing, (1, 1, 0.8), (9, 1, 0.8)]
    assert rules.target_spacing(spacings, [(20, 100, 100)] * 3) == spacing


@pytest.mark.parametrize(
    "target, median, order",
    [
        ((5, 1, 1), (20, 100, 100), (0, 1, 2)),
        ((1, 5, 1), (100, 20, 100), (1, 0, 2)),
        ((1, 1, 5), (100, 100, 20), (2, 0, 1)),
        ((1, 1, 1), (50, 60, 70), (0, 1, 2)),
        ((1, 2, 3), (1, 60, 70), (0, 1, 2)),  # single slices: their axis is first however thin they are
        ((3, 2, 1), (60, 70, 1), (2, 0, 1)),
        ((1, 2, 3), (60, 1, 70), (1, 0, 2)),
    ],
)
def test_the_coarsest_axis_or_that_of_single_slices_comes_first(target, median, order):
    assert rules.axis_order(target, median) == order


def test_median_shape_at_the_target_spacing_keeps_halves():
    shapes, spacings = [(10, 20, 30), (11, 40, 31)], [(4, 1, 0.5), (4, 0.5, 0.5)]
    # Resampled: (20, 10, 30) and (22, 10, 31).
    assert rules.median_resampled_shape(shapes, spacings, (2, 2, 0.5)) == (21, 10, 30.5)


def test_the_first_patch_has_equal_edges_in_millimetres_and_fits_the_median():
    # Edges 1/4, 1, 1 scaled to 256^3 voxels: s^3 / 4 = 256^3, s = 406.37.
    assert rules.first_patch((4, 1, 1), (1e9, 1e9, 1e9)) == (102, 406, 406)
    assert rules.first_patch((4, 1, 1), (30.5, 500, 90)) == (30.5, 406, 90)
    assert rules.first_patch((2, 0.5), (1e9, 1e9)) == (1024, 4096)  # 2048^2 pixels


@pytest.mark.parametrize(
    "stages, is_2d, features",
    [
        (1, False, (32,)),
        (6, False, (32, 64, 128, 256, 320, 320)),
        (7, True, (32, 64, 128, 256, 512, 512, 512)),
    ],
)
def test_features_double_up_to_a_limit(stages, is_2d, features):
    assert rules.features_per_stage(stages, is_2d) == features


def test_the_axis_that_covers_most_of_the_median_shrinks_and_the_last_on_a_tie():
    assert rules.axis_to_shrink((64, 100, 90), (100, 100, 100)) == 1
    assert rules.axis_to_shrink((100, 50, 200), (100, 100, 200)) == 2
    assert rules.axis_to_shrink((64, 64), (32, 64)) == 0


def test_a_coarser_spacing_starts_with_the_axes_that_are_finer_than_half_of_the_coarsest():
    assert rules.coarser_spacing((4, 1, 2)) == (4, 1.03, 2)
    assert rules.coarser_spacing((4, 1.5, 1)) == (4, 1.5 * 1.03, 1.03)
    assert rules.coarser_spacing((4, 2, 3)) == pytest.approx((4.12, 2.06, 3.09))
