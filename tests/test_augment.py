"""Augmentation: parameter laws, geometry of known phantoms, and what each intensity change must keep."""

import numpy as np
import pytest
import torch

from segfw.training.augment import (
    IntensityParams,
    SpatialParams,
    augment_intensity,
    draw_intensity,
    draw_spatial,
    is_in_plane,
    source_size,
    warp,
)

PATCH = (12, 20, 16)


def neutral(channels: int = 1, **changes) -> IntensityParams:
    ones = np.ones(channels)
    values = {
        "noise_std": 0.0,
        "blur_sigma": np.zeros((channels, 3)),
        "brightness": ones,
        "contrast": ones,
        "zoom": ones,
        "gamma_inverted": ones,
        "gamma": ones,
    }
    return IntensityParams(**values | changes)


def draws(function, count=3000):
    rng = np.random.default_rng(0)
    return [function(rng) for _ in range(count)]


def rate(values) -> float:
    return float(np.mean(list(values)))


def test_spatial_parameters_follow_the_published_law():
    drawn = draws(lambda rng: draw_spatial(rng, PATCH, (0, 1, 2)))
    scales = [np.cbrt(np.linalg.det(p.matrix)) for p in drawn if p.matrix is not None]
    scaled = [scale for scale in scales if abs(scale - 1) > 1e-9]
    rotated = [p for p in drawn if p.matrix is not None and not np.allclose(p.matrix, np.diag(np.diag(p.matrix)))]
    assert rate(p.matrix is not None for p in drawn) == pytest.approx(1 - 0.8**2, abs=0.03)
    assert len(scaled) / len(drawn) == pytest.approx(0.2, abs=0.03)
    assert len(rotated) / len(drawn) == pytest.approx(0.2, abs=0.03)
    assert 0.7 <= min(scaled) < 0.72
    assert 1.38 < max(scaled) <= 1.4
    for axis in range(3):
        assert rate(axis in p.mirrored for p in drawn) == pytest.approx(0.5, abs=0.03)


def test_a_flat_patch_is_turned_in_its_plane_only():
    assert is_in_plane((5, 20, 16))
    assert not is_in_plane((7, 20, 16))
    for params in draws(lambda rng: draw_spatial(rng, (5, 20, 16), (0, 1, 2)), 200):
        if params.matrix is not None:
            np.testing.assert_array_equal(params.matrix[0], [1, 0, 0])
            np.testing.assert_array_equal(params.matrix[:, 0], [1, 0, 0])


def test_mirroring_is_confined_to_the_given_axes():
    assert {axis for p in draws(lambda rng: draw_spatial(rng, PATCH, (1,)), 50) for axis in p.mirrored} == {1}


def test_intensity_parameters_follow_the_published_law():
    drawn = draws(lambda rng: draw_intensity(rng, 2))
    assert rate(p.noise_std > 0 for p in drawn) == pytest.approx(0.1, abs=0.02)
    assert rate(p.blur_sigma.any(1).mean() for p in drawn) == pytest.approx(0.1, abs=0.02)
    assert rate((p.zoom < 1).mean() for p in drawn) == pytest.approx(0.125, abs=0.02)
    for name, p_any, low, high in [
        ("brightness", 0.15, 0.75, 1.25),
        ("contrast", 0.15, 0.75, 1.25),
        ("gamma_inverted", 0.1, 0.7, 1.5),
        ("gamma", 0.3, 0.7, 1.5),
    ]:
        changed = np.array([getattr(p, name) for p in drawn if (getattr(p, name) != 1).any()])
        assert len(changed) / len(drawn) == pytest.approx(p_any, abs=0.03)
        assert low <= changed.min() < low + 0.02
        assert high - 0.03 < changed.max() <= high
        assert (changed < 1).mean() == pytest.approx(0.5, abs=0.06)


def test_a_quarter_turn_moves_voxels_where_a_human_expects():
    image, classes = torch.zeros(1, 3, 5, 5), torch.zeros(3, 5, 5, dtype=torch.int16)
    image[0, 1, 0, 2], classes[1, 0, 2] = 9.0, 1  # in the middle of the top edge of the middle slice
    quarter_turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # output offset (y, x) -> input offset (-x, y)
    warped, labels = warp(image, classes, (0, 1), SpatialParams(matrix=quarter_turn, mirrored=()), (3, 5, 5))
    assert labels.nonzero().tolist() == [[1, 2, 4]]
    assert warped[0, 1, 2, 4] == pytest.approx(9, abs=1e-4)


def test_scaling_is_about_the_centre_and_the_same_in_voxels_of_every_axis():
    image = torch.zeros(1, 9, 13, 17)
    image[0, 4, 6, 8 + 4] = 1.0
    twice = SpatialParams(matrix=np.eye(3) * 2, mirrored=())
    warped, _ = warp(image, torch.zeros(9, 13, 17, dtype=torch.int16), (0,), twice, (5, 7, 9))
    assert warped[0].nonzero().tolist() == [[2, 3, 4 + 2]]  # four voxels off the centre become two


def test_mirroring_flips_image_and_mask_together():
    image, classes = torch.zeros(1, 2, 3, 4), torch.zeros(2, 3, 4, dtype=torch.int16)
    image[0, 0, 0, 0] = classes[0, 0, 0] = 3
    warped, labels = warp(image, classes, (0, 3), SpatialParams(matrix=None, mirrored=(0, 2)), (2, 3, 4))
    assert warped[0].nonzero().tolist() == labels.nonzero().tolist() == [[1, 0, 3]]


def sphere(patch, offset, radius):
    grid = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in patch), indexing="ij")
    return sum((axis - o) ** 2 for axis, o in zip(grid, offset)).sqrt() - radius


@pytest.mark.parametrize("seed", range(4))
def test_mask_follows_the_image_to_a_fraction_of_a_voxel(seed):
    """A ball drawn as a soft-edged image and as a mask: after any warp both edges lie in the same place."""
    rng = np.random.default_rng(seed)
    matrix = None
    while matrix is None:
        params = draw_spatial(rng, (24, 28, 32), (0, 1, 2))
        matrix = params.matrix
    source = source_size((24, 28, 32), matrix)
    distance = sphere(source, (2.0, -1.0, 1.5), 7.0)
    image, classes = (0.5 - distance).clamp(0, 1)[None], (distance < 0).to(torch.int16)
    warped, labels = warp(image, classes, (0, 1), params, (24, 28, 32))
    inside = warped[0] > 0.5
    disagreement = (inside != (labels == 1)).sum() / inside.sum()
    centre = inside.nonzero().float().mean(0) - labels.nonzero().float().mean(0)
    assert inside.sum() > 300
    assert disagreement < 0.08
    assert centre.abs().max() < 0.1


def test_labels_that_touch_leave_no_gap_between_them():
    classes = torch.zeros(8, 16, 16, dtype=torch.int16)
    classes[:, :, :8], classes[:, :, 8:] = 1, 2
    turn = draw_spatial(np.random.default_rng(1), (8, 16, 16), ())
    params = SpatialParams(matrix=turn.matrix if turn.matrix is not None else np.eye(3) * 0.8, mirrored=())
    _, labels = warp(torch.zeros(1, 8, 16, 16), classes, (1, 2), params, (4, 8, 8))
    assert set(labels.unique().tolist()) == {1, 2}


def test_many_labels_are_warped_by_nearest_neighbour():
    classes = torch.arange(20, dtype=torch.int16).repeat_interleave(2)[None, None].expand(6, 6, 40).contiguous()
    params = SpatialParams(matrix=np.diag([1.0, 1.0, 0.5]), mirrored=())
    _, labels = warp(torch.zeros(1, 6, 6, 40), classes, tuple(range(20)), params, (2, 2, 20))
    # Output voxel i lies at input 14.75 + i / 2, nearest to 15 + i // 2; labels are two voxels wide.
    assert labels[0, 0].tolist() == [(15 + i // 2) // 2 for i in range(20)]


def test_box_that_is_read_holds_all_that_the_warp_needs():
    """Warping from the box gives what warping from a far larger image gives."""
    rng = np.random.default_rng(5)
    big = torch.from_numpy(rng.normal(size=(1, 61, 61, 61))).float()
    for _ in range(20):
        params = draw_spatial(rng, (9, 15, 21), ())
        if params.matrix is None:
            continue
        size = source_size((9, 15, 21), params.matrix)
        low = [(61 - n) // 2 for n in size]
        box = big[(slice(None), *(slice(s, s + n) for s, n in zip(low, size)))].contiguous()
        empty = torch.zeros(box.shape[1:], dtype=torch.int16)
        small, _ = warp(box, empty, (0,), params, (9, 15, 21))
        large, _ = warp(big, torch.zeros(61, 61, 61, dtype=torch.int16), (0,), params, (9, 15, 21))
        torch.testing.assert_close(small, large, atol=2e-4, rtol=0)


def test_neutral_parameters_change_nothing():
    image = torch.randn(2, 3, *PATCH)
    assert torch.equal(augment_intensity(image, [neutral(3), neutral(3)], PATCH, 0), image)


def test_only_the_chosen_channel_of_the_chosen_sample_changes():
    image = torch.randn(2, 2, *PATCH)
    changed = augment_intensity(image, [neutral(2), neutral(2, brightness=np.array([1.0, 2.0]))], PATCH, 0)
    assert torch.equal(changed[0], image[0])
    assert torch.equal(changed[1, 0], image[1, 0])
    torch.testing.assert_close(changed[1, 1], 2 * image[1, 1])


def test_noise_has_its_deviation_and_is_repeatable():
    image = torch.zeros(2, 2, 20, 40, 40)
    params = [neutral(2, noise_std=0.5), neutral(2)]
    first, second = (augment_intensity(image, params, PATCH, 7) for _ in range(2))
    assert torch.equal(first, second)
    assert first[0].std() == pytest.approx(0.5, rel=0.02)
    assert torch.equal(first[0, 0], first[0, 1])
    assert first[1].abs().max() == 0
    assert not torch.equal(first, augment_intensity(image, params, PATCH, 8))


def test_blur_equals_scipy_and_keeps_the_mean():
    from scipy import ndimage

    image = torch.randn(1, 1, 16, 24, 20)
    sigma = np.array([[0.6, 0.8, 1.0]])
    blurred = augment_intensity(image, [neutral(blur_sigma=sigma)], PATCH, 0)
    expected = ndimage.gaussian_filter(image[0, 0].numpy(), sigma[0], mode="nearest", radius=4)
    np.testing.assert_allclose(blurred[0, 0].numpy(), expected, atol=1e-5)


def test_contrast_is_about_the_mean_and_within_the_range():
    image = torch.randn(1, 1, *PATCH)
    stronger = augment_intensity(image, [neutral(contrast=np.array([1.25]))], PATCH, 0)
    weaker = augment_intensity(image, [neutral(contrast=np.array([0.75]))], PATCH, 0)
    assert weaker.std() == pytest.approx(0.75 * float(image.std()), rel=1e-4)
    assert weaker.mean() == pytest.approx(float(image.mean()), abs=1e-5)
    assert stronger.max() == image.max()
    assert stronger.min() == image.min()


@pytest.mark.parametrize("name", ["gamma", "gamma_inverted"])
def test_gamma_keeps_mean_deviation_and_order(name):
    image = torch.randn(1, 1, *PATCH)
    bent = augment_intensity(image, [neutral(**{name: np.array([1.5])})], PATCH, 0)
    assert bent.mean() == pytest.approx(float(image.mean()), abs=1e-4)
    assert bent.std() == pytest.approx(float(image.std()), rel=1e-3)
    assert bent.flatten()[image.flatten().argsort()].diff().min() > -1e-5
    assert not torch.allclose(bent, image, atol=0.05)


def test_gamma_bends_towards_the_dark_and_its_inverse_towards_the_bright():
    ramp = torch.linspace(0, 1, 1000).view(1, 1, 10, 10, 10)
    bent = augment_intensity(ramp, [neutral(gamma=np.array([2.0]))], PATCH, 0)
    inverted = augment_intensity(ramp, [neutral(gamma_inverted=np.array([2.0]))], PATCH, 0)
    middle = (0, 0, 5, 0, 0)
    assert bent[middle] < ramp[middle] < inverted[middle]


def test_low_resolution_removes_detail_and_spares_z_of_a_flat_patch():
    image = torch.randn(1, 1, 6, 32, 32)
    coarse = augment_intensity(image, [neutral(zoom=np.array([0.5]))], (6, 32, 32), 0)
    assert coarse.var() < 0.6 * image.var()
    slices = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(1, 1, 6, 32, 32).contiguous()
    flat = augment_intensity(slices, [neutral(zoom=np.array([0.5]))], (6, 32, 32), 0)
    torch.testing.assert_close(flat, slices)
