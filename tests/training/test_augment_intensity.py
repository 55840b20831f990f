"""What each intensity change does, against batchgenerators and scipy for the same parameters."""

import numpy as np
import pytest
import torch
from batchgenerators.augmentations.color_augmentations import augment_contrast, augment_gamma
from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy
from scipy import ndimage

from segfw.training.augment import augment_intensity
from segfw.training.augment_params import IntensityParams, draw_intensity

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


def augmented(image, *params, seeds=None, patch=PATCH):
    return augment_intensity(image, params, patch, seeds or [*range(len(params))])


def test_neutral_parameters_change_nothing():
    image = torch.randn(2, 3, *PATCH)
    assert torch.equal(augmented(image, neutral(3), neutral(3)), image)


def test_only_the_chosen_channel_of_the_chosen_sample_changes():
    image = torch.randn(2, 2, *PATCH)
    changed = augmented(image, neutral(2), neutral(2, brightness=np.array([1.0, 2.0])))
    assert torch.equal(changed[0], image[0])
    assert torch.equal(changed[1, 0], image[1, 0])
    torch.testing.assert_close(changed[1, 1], 2 * image[1, 1])


def test_noise_has_its_deviation_and_depends_on_its_seed_alone():
    image = torch.zeros(2, 2, 20, 40, 40)
    noisy = augmented(image, neutral(2, noise_std=0.5), neutral(2), seeds=[7, 8])
    assert noisy[0].std() == pytest.approx(0.5, rel=0.02)
    assert noisy[0].mean() == pytest.approx(0, abs=0.02)
    assert torch.equal(noisy[0, 0], noisy[0, 1])
    assert noisy[1].abs().max() == 0
    swapped = augmented(image, neutral(2), neutral(2, noise_std=0.5), seeds=[8, 7])
    assert torch.equal(noisy[0], swapped[1])
    assert not torch.equal(noisy, augmented(image, neutral(2, noise_std=0.5), neutral(2), seeds=[8, 8]))


def test_blur_equals_scipy_and_keeps_the_mean():
    image = torch.randn(1, 1, 16, 24, 20)
    sigma = np.array([[0.6, 0.8, 1.0]])
    blurred = augmented(image, neutral(blur_sigma=sigma))
    expected = ndimage.gaussian_filter(image[0, 0].numpy(), sigma[0], mode="nearest", radius=4)
    np.testing.assert_allclose(blurred[0, 0].numpy(), expected, atol=1e-5)


def test_contrast_is_about_the_mean_and_within_the_range():
    image = torch.randn(1, 1, *PATCH)
    stronger = augmented(image, neutral(contrast=np.array([1.25])))
    weaker = augmented(image, neutral(contrast=np.array([0.75])))
    assert weaker.std() == pytest.approx(0.75 * float(image.std()), rel=1e-4)
    assert weaker.mean() == pytest.approx(float(image.mean()), abs=1e-5)
    assert stronger.max() == image.max()
    assert stronger.min() == image.min()


@pytest.mark.parametrize("name", ["gamma", "gamma_inverted"])
def test_gamma_keeps_mean_deviation_and_order(name):
    image = torch.randn(1, 1, *PATCH)
    bent = augmented(image, neutral(**{name: np.array([1.5])}))
    assert bent.mean() == pytest.approx(float(image.mean()), abs=1e-4)
    assert bent.std() == pytest.approx(float(image.std()), rel=1e-3)
    assert bent.flatten()[image.flatten().argsort()].diff().min() > -1e-5
    assert not torch.allclose(bent, image, atol=0.05)


def test_gamma_bends_towards_the_dark_and_its_inverse_towards_the_bright():
    ramp = torch.linspace(0, 1, 1000).view(1, 1, 10, 10, 10)
    bent = augmented(ramp, neutral(gamma=np.array([2.0])))
    inverted = augmented(ramp, neutral(gamma_inverted=np.array([2.0])))
    middle = (0, 0, 5, 0, 0)
    assert bent[middle] < ramp[middle] < inverted[middle]


@pytest.mark.parametrize("name, inverted", [("gamma", False), ("gamma_inverted", True)])
@pytest.mark.parametrize("exponent", [0.7, 1.5])
def test_gamma_equals_batchgenerators(name, inverted, exponent, monkeypatch):
    monkeypatch.setattr(np.random, "uniform", lambda *_: exponent)
    image = torch.randn(1, 2, *PATCH)
    ours = augmented(image, neutral(2, **{name: np.full(2, exponent)}))
    theirs = augment_gamma(image[0].numpy().copy(), (0.7, 1.5), inverted, per_channel=True, retain_stats=True)
    np.testing.assert_allclose(ours[0].numpy(), theirs, atol=2e-5)


@pytest.mark.parametrize("factor", [0.75, 1.25])
def test_contrast_equals_batchgenerators(factor, monkeypatch):
    # Without bounds they ask whether a channel is changed, with bounds for the factor.
    monkeypatch.setattr(np.random, "uniform", lambda *bounds: factor if bounds else 0.0)
    image = torch.randn(1, 2, *PATCH)
    ours = augmented(image, neutral(2, contrast=np.full(2, factor)))
    theirs = augment_contrast(image[0].numpy().copy(), (0.75, 1.25))
    np.testing.assert_allclose(ours[0].numpy(), theirs, atol=2e-5)


@pytest.mark.parametrize("zoom", [0.5, 0.73, 0.95])
@pytest.mark.parametrize("patch", [PATCH, (3, 20, 16), (1, 30, 31)])
def test_low_resolution_equals_batchgenerators(zoom, patch):
    image = torch.randn(1, 1, *patch)
    ours = augmented(image, neutral(zoom=np.array([zoom])), patch=patch)
    flat = (0,) if patch[0] < 6 else None
    theirs = augment_linear_downsampling_scipy(
        image[0].double().numpy(), (zoom, zoom), order_downsample=0, order_upsample=1, ignore_axes=flat
    )
    # Rounding decides which of two equally near voxels is kept: in few places a different one.
    same = np.abs(ours[0].numpy() - theirs) < 1e-4
    assert same.mean() > 0.9
    assert ours.std() == pytest.approx(theirs.std(), rel=0.05)


def test_order_is_the_published_one():
    """All at once equals one after the other: noise, blur, brightness, contrast, low resolution, both gammas."""
    image = torch.randn(1, 1, *PATCH)
    changes = {
        "noise_std": 0.1,
        "blur_sigma": np.full((1, 3), 0.8),
        "brightness": np.array([1.2]),
        "contrast": np.array([0.8]),
        "zoom": np.array([0.6]),
        "gamma_inverted": np.array([1.4]),
        "gamma": np.array([0.7]),
    }
    stepwise = image
    for name, value in changes.items():
        stepwise = augmented(stepwise, neutral(**{name: value}))
    torch.testing.assert_close(augmented(image, neutral(**changes)), stepwise)
    backwards = image
    for name, value in reversed(changes.items()):
        backwards = augmented(backwards, neutral(**{name: value}))
    assert (stepwise - backwards).abs().max() > 0.1


def test_part_of_a_batch_is_the_same_as_in_the_whole():
    rng = np.random.default_rng(1)
    params, image = [draw_intensity(rng, 2) for _ in range(24)], torch.randn(24, 2, *PATCH)
    whole = augmented(image, *params)
    for part in (slice(0, 7), slice(7, 8), slice(8, 24)):
        alone = augment_intensity(image[part], params[part], PATCH, [*range(24)][part])
        assert torch.equal(whole[part], alone)


def test_low_resolution_removes_detail_and_spares_z_of_a_flat_patch():
    image = torch.randn(1, 1, 6, 32, 32)
    coarse = augmented(image, neutral(zoom=np.array([0.5])), patch=(6, 32, 32))
    assert coarse.var() < 0.6 * image.var()
    slices = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(1, 1, 6, 32, 32).contiguous()
    flat = augmented(slices, neutral(zoom=np.array([0.5])), patch=(6, 32, 32))
    torch.testing.assert_close(flat, slices)
