"""Spoilt cases: every kind on every kind of image, the mask along with it, and all from the state of a generator."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.perturbations.spoiling import SHIFTS, log_uniform, spoilt

MOVING = {"orientation", "crop"}


def affine_of(spacing_mm):
    """A little oblique, so that no axis is the world's."""
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], dtype=float) * spacing_mm
    affine[:3, 3] = (-40, 12, 7)
    return affine


def case_of(kind, seed=0):
    """An image in which the structure is bright, and its mask."""
    rng = np.random.default_rng(seed)
    shape, spacing_mm, dtype, channels, scale, offset = {
        "ct": ((14, 26, 22), (3, 0.8, 0.8), np.int16, 1, 400, -600),
        "padded ct": ((14, 26, 22), (3, 0.8, 0.8), np.int16, 1, 400, -600),
        "mr of two channels": ((18, 20, 16), (1, 1, 1), np.uint16, 2, 300, 200),
        "cine": ((5, 30, 28), (10, 1.5, 1.5), np.float32, 1, 1.0, 0.0),
        "picture": ((1, 32, 24), (1, 1, 1), np.uint8, 3, 90, 40),
        "one slice across": ((24, 20, 1), (1, 1, 5), np.int16, 1, 300, 100),
    }[kind]
    mask = np.zeros(shape, dtype=np.uint8)
    mask[tuple(slice(size // 4, max(size // 4 + 1, size - size // 3)) for size in shape)] = 1
    values = ndimage.gaussian_filter(rng.standard_normal((channels, *shape)), (0, 1, 1, 1))
    array = (offset + scale * (0.4 * values + mask)).clip(*limits_of(dtype)).astype(dtype)
    if kind == "padded ct":
        array[:, :, :4] = -3024
    geometry = Geometry.of(shape, affine_of(spacing_mm))
    is_placed = kind != "picture"
    volume = Volume(array=array, geometry=geometry, is_placed=is_placed, is_picture=not is_placed)
    return volume, Volume(array=mask[None], geometry=geometry, is_placed=is_placed)


def limits_of(dtype):
    return (np.iinfo(dtype).min, np.iinfo(dtype).max) if np.dtype(dtype).kind in "iu" else (-np.inf, np.inf)


KINDS = ("ct", "padded ct", "mr of two channels", "cine", "picture", "one slice across")


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_shift_changes_every_kind_of_image_and_gives_a_mask_on_its_grid(kind, shift):
    volume, mask = case_of(kind)
    before = volume.array.copy()
    image, reference = spoilt(volume, mask, shift, np.random.default_rng(3))
    assert (volume.array == before).all()  # the caller's data are not touched
    assert image.array.shape[0] == before.shape[0]
    assert image.array.shape[1:] == image.geometry.shape == reference.geometry.shape == reference.array.shape[1:]
    assert image.geometry == reference.geometry
    assert np.isfinite(image.array).all()
    assert reference.array.dtype == mask.array.dtype
    assert image.array.shape != before.shape or (image.array != before).any()
    assert (shift in MOVING) == (reference is not mask)
    low, high = limits_of(before.dtype)
    assert low <= image.array.min()
    assert image.array.max() <= high


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_same_state_gives_the_same_and_a_mask_changes_nothing(shift):
    volume, mask = case_of("ct")
    first, _ = spoilt(volume, mask, shift, np.random.default_rng(5))
    second, nothing = spoilt(volume, None, shift, np.random.default_rng(5))
    assert nothing is None
    assert first.geometry == second.geometry
    np.testing.assert_array_equal(first.array, second.array)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_turned_anatomy_carries_its_mask_voxel_by_voxel_and_keeps_its_middle(kind, seed):
    volume, mask = case_of(kind)
    # An image of which every voxel is told from every other, and a mask that is the image
    numbers = np.arange(mask.array.size, dtype=np.int32).reshape(mask.array.shape)
    image = replace(volume, array=numbers)
    turned, with_it = spoilt(image, replace(mask, array=numbers), "orientation", np.random.default_rng(seed))
    np.testing.assert_array_equal(turned.array, with_it.array)
    assert sorted(turned.array.ravel()) == sorted(numbers.ravel())
    assert turned.array.shape != numbers.shape or (turned.array != numbers).any()
    voxel_ml = [abs(np.linalg.det(one.geometry.matrix[:3, :3])) for one in (volume, turned)]
    assert voxel_ml[0] == pytest.approx(voxel_ml[1])
    middles = [one.geometry.matrix @ [*(np.array(one.geometry.shape) - 1) / 2, 1] for one in (volume, turned)]
    np.testing.assert_allclose(*middles, atol=1e-9)


def test_slices_that_are_thick_stay_slices():
    volume, mask = case_of("cine")
    for seed in range(20):
        turned, _ = spoilt(volume, mask, "orientation", np.random.default_rng(seed))
        assert turned.geometry.shape[0] == volume.geometry.shape[0]
        assert turned.geometry.spacing_mm[0] == pytest.approx(10)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_of_a_cropped_image_stays_where_it_was(seed):
    volume, mask = case_of("ct")
    image, reference = spoilt(volume, mask, "crop", np.random.default_rng(seed))
    assert image.array.size < volume.array.size
    corner = np.linalg.solve(volume.geometry.matrix, image.geometry.matrix[:, 3])[:3]
    start = np.rint(corner).astype(int)
    np.testing.assert_allclose(corner, start, atol=1e-9)
    box = tuple(slice(first, first + size) for first, size in zip(start, image.geometry.shape))
    np.testing.assert_array_equal(image.array[0], volume.array[0][box])
    np.testing.assert_array_equal(reference.array[0], mask.array[0][box])


def test_padding_that_no_scanner_measured_stays_what_it_was():
    volume, _ = case_of("padded ct")
    padding = volume.array == -3024
    assert padding.any()
    for shift in ("noise", "gamma", "inversion", "bias_field"):
        image, _ = spoilt(volume, None, shift, np.random.default_rng(2))
        assert (image.array[padding] == -3024).all(), shift
        # and it is no part of what strengths are counted in: soft tissue stays near soft tissue
        assert np.abs(image.array[~padding] - volume.array[~padding]).max() < 4000, shift


def test_noise_has_a_strength_within_its_bounds_in_every_channel():
    volume, _ = case_of("mr of two channels")
    for seed in range(8):
        image, _ = spoilt(volume, None, "noise", np.random.default_rng(seed))
        for before, after in zip(volume.array.astype(float), image.array):
            ratio = (after - before).std() / before.std()
            assert 0.05 < ratio < 1.5


def test_inverted_contrast_turns_the_order_of_intensities_over():
    volume, _ = case_of("ct")
    image, _ = spoilt(volume, None, "inversion", np.random.default_rng(0))
    assert np.corrcoef(volume.array.ravel(), image.array.ravel())[0, 1] < -0.99


def test_blur_and_low_resolution_take_detail_away_and_keep_the_mean():
    volume, _ = case_of("mr of two channels")
    for shift in ("blur", "low_resolution"):
        image, _ = spoilt(volume, None, shift, np.random.default_rng(1))
        assert np.abs(np.diff(image.array, axis=-1)).mean() < 0.9 * np.abs(np.diff(volume.array.astype(float))).mean()
        assert image.array.mean() == pytest.approx(volume.array.mean(), rel=0.02)


def test_lost_slices_are_copies_of_slices_that_are_left():
    volume, _ = case_of("ct")
    image, _ = spoilt(volume, None, "lost_slices", np.random.default_rng(1))
    slices = {slice_yx.tobytes() for slice_yx in volume.array[0]}
    after = [slice_yx.tobytes() for slice_yx in image.array[0]]
    assert set(after) < slices  # fewer different ones, and none that was not there


def test_an_unknown_shift_and_a_mask_of_another_shape_are_refused():
    volume, mask = case_of("ct")
    with pytest.raises(ValueError, match="unknown shift 'rain'; choose from noise, "):
        spoilt(volume, mask, "rain", np.random.default_rng(0))
    with pytest.raises(ValueError, match="the mask's shape"):
        spoilt(volume, case_of("cine")[1], "noise", np.random.default_rng(0))


def test_strengths_are_drawn_evenly_in_their_logarithm():
    rng = np.random.default_rng(0)
    drawn = [log_uniform((0.1, 10.0), rng) for _ in range(4000)]
    assert min(drawn) >= 0.1
    assert max(drawn) <= 10
    assert np.mean(np.array(drawn) < 1) == pytest.approx(0.5, abs=0.03)
