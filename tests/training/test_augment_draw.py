"""The law of what is drawn: frequencies, ranges, and which patches are turned in their plane only."""

import numpy as np
import pytest

from segfw.planning.patch_shape import is_in_plane
from segfw.training.augment_params import SpatialParams, draw_intensity, draw_spatial, source_size

PATCH = (12, 20, 16)
COUNT = 3000


def draws(function, count=COUNT):
    rng = np.random.default_rng(0)
    return [function(rng) for _ in range(count)]


def share(values, expected, trials=COUNT):
    """Asserts that a share of independent trials is as expected: within four standard deviations."""
    values = list(values)
    assert np.mean(values) == pytest.approx(expected, abs=4 * (expected * (1 - expected) / trials) ** 0.5)


def assert_uniform(values, low, high):
    """Asserts range, mean and deviation of a uniform law, the moments within four standard errors."""
    values, width = np.asarray(values), high - low
    assert low <= values.min() < low + 0.03 * width
    assert high - 0.03 * width < values.max() <= high
    assert values.mean() == pytest.approx((low + high) / 2, abs=4 * width / (12 * len(values)) ** 0.5)
    assert values.std() == pytest.approx(width / 12**0.5, rel=0.1)


def test_rotation_scaling_and_mirroring():
    drawn = draws(lambda rng: draw_spatial(rng, PATCH, (0, 1, 2)))
    turned = [p.matrix is not None and not np.allclose(p.matrix, np.diag(np.diag(p.matrix))) for p in drawn]
    scales = np.array([1 if p.matrix is None else np.cbrt(np.linalg.det(p.matrix)) for p in drawn])
    share(turned, 0.2)
    share(abs(scales - 1) > 1e-9, 0.2)
    share((p.is_warped for p in drawn), 1 - 0.8**2)
    assert_uniform(scales[abs(scales - 1) > 1e-9], 0.7, 1.4)
    for axis in range(3):
        share((axis in p.mirrored for p in drawn), 0.5)


def test_the_three_angles_of_a_rotation_are_uniform_to_30_degrees():
    drawn = draws(lambda rng: draw_spatial(rng, PATCH, ()), 6000)
    only_turned = [p.matrix for p in drawn if p.matrix is not None and abs(np.linalg.det(p.matrix) - 1) < 1e-9]
    # R = Rz Ry Rx about the axes 0, 1 and 2 in this order, from which the angles can be read.
    first = [np.arctan2(-matrix[1, 2], matrix[2, 2]) for matrix in only_turned]
    second = [np.arcsin(-matrix[0, 2]) for matrix in only_turned]
    third = [np.arctan2(-matrix[0, 1], matrix[0, 0]) for matrix in only_turned]
    assert_uniform(second, -np.pi / 6, np.pi / 6)
    assert_uniform(third, -np.pi / 6, np.pi / 6)
    assert_uniform(first, -np.pi / 6, np.pi / 6)


def test_a_flat_patch_is_turned_and_scaled_in_its_plane_only():
    assert is_in_plane((5, 20, 16))
    assert not is_in_plane((7, 20, 16))
    drawn = draws(lambda rng: draw_spatial(rng, (5, 20, 16), (0, 1, 2), elastic=True), 400)
    for params in drawn:
        if params.matrix is not None:
            np.testing.assert_array_equal(params.matrix[0], [1, 0, 0])
            np.testing.assert_array_equal(params.matrix[:, 0], [1, 0, 0])
        if params.control is not None:
            assert params.control.shape[1] == 1
            assert not params.control[0].any()
        assert source_size((5, 20, 16), params)[0] == 5


def test_mirroring_is_confined_to_the_given_axes():
    assert {axis for p in draws(lambda rng: draw_spatial(rng, PATCH, (1,)), 50) for axis in p.mirrored} == {1}


def test_intensities():
    drawn = draws(lambda rng: draw_intensity(rng, 2))
    noisy = [p.noise_std for p in drawn if p.noise_std > 0]
    share((p.noise_std > 0 for p in drawn), 0.1)
    assert_uniform(noisy, 0, 0.1)
    blurred = np.array([p.blur_sigma.any(1) for p in drawn])
    coarse = np.array([p.zoom < 1 for p in drawn])
    for changed, p_sample in ((blurred, 0.2), (coarse, 0.25)):
        share(changed[:, 0], p_sample / 2)
        share(changed.any(1), p_sample * 0.75)  # one of two channels at least, each with one half
        share(changed.all(1), p_sample * 0.25)
    assert_uniform(np.concatenate([p.blur_sigma[p.blur_sigma > 0] for p in drawn]), 0.5, 1.0)
    assert_uniform(np.concatenate([p.zoom[p.zoom < 1] for p in drawn]), 0.5, 1.0)


@pytest.mark.parametrize(
    "name, p, low, high",
    [
        ("brightness", 0.15, 0.75, 1.25),
        ("contrast", 0.15, 0.75, 1.25),
        ("gamma_inverted", 0.1, 0.7, 1.5),
        ("gamma", 0.3, 0.7, 1.5),
    ],
)
def test_factors_lie_below_and_above_one_with_equal_chance(name, p, low, high):
    drawn = np.array([getattr(params, name) for params in draws(lambda rng: draw_intensity(rng, 2))])
    changed = drawn[(drawn != 1).any(1)]
    share((drawn != 1).any(1), p)
    assert (changed != 1).all()  # every channel has a factor of its own
    share((changed < 1).ravel(), 0.5, changed.size)
    assert_uniform(changed[changed < 1], low, 1)
    assert_uniform(changed[changed > 1], 1, high)
    assert abs(np.corrcoef(changed.T)[0, 1]) < 4 / len(changed) ** 0.5


def test_bending_is_off_unless_asked_for():
    assert not any(p.control is not None for p in draws(lambda rng: draw_spatial(rng, PATCH, ()), 200))
    share((p.control is not None for p in draws(lambda rng: draw_spatial(rng, PATCH, (), elastic=True))), 0.2)


def test_control_points_move_too_little_to_fold_and_in_proportion_to_the_patch():
    drawn = draws(lambda rng: draw_spatial(rng, PATCH, (), elastic=True), 1000)
    reaches = []
    for control in (p.control for p in drawn if p.control is not None):
        spacing = np.array(PATCH) / (control.shape[1] - 3)
        reaches.append(np.abs(control).max((1, 2, 3)) / spacing)
        assert 0.43 * max(PATCH) >= spacing.max() > 0.08 * max(PATCH)
    assert np.min(reaches) > 0.1 * 0.7
    assert 0.3 < np.max(reaches) <= 0.4


def test_nothing_more_is_read_than_is_needed():
    quarter_turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    assert source_size((7, 9, 5), SpatialParams(mirrored=(0, 1))) == (7, 9, 5)
    assert source_size((7, 9, 5), SpatialParams(matrix=quarter_turn)) == (7, 9, 9)
    assert source_size((7, 9, 5), SpatialParams(matrix=np.eye(3) * 0.7)) == (7, 9, 5)
    # Half of 7 - 1 voxels times 1.4 is 4.2: two more on both sides. Of 9: 5.6, two more. Of 5: 2.8, one more.
    assert source_size((7, 9, 5), SpatialParams(matrix=np.eye(3) * 1.4)) == (11, 13, 7)
    control = np.zeros((3, 4, 4, 4))
    control[1, 2, 2, 2] = -1.5
    assert source_size((7, 9, 5), SpatialParams(control=control)) == (7, 13, 5)
