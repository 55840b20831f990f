"""Fingerprints of images whose numbers can be counted."""

import numpy as np
import pytest
import torch

from segfw.grid.preprocess import PreprocessRecord
from segfw.images.geometry import Geometry
from segfw.images.volume import AS_STORED, CANONICAL
from segfw.quality.image_fingerprint import MOST_VOXELS, image_fingerprint


def record(shape=(4, 6, 8), spacing_mm=(3.0, 1.0, 0.5), axis_order=(0, 1, 2), orientation=CANONICAL):
    return PreprocessRecord(
        original=Geometry.of(shape, np.diag([*spacing_mm, 1])),
        box=tuple((0, size) for size in shape),
        axis_order=axis_order,
        cropped_shape=shape,
        cropped_spacing_mm=spacing_mm,
        shape=shape,
        spacing_mm=spacing_mm,
        orientation=orientation,
    )


def entries(image, of=None):
    fingerprint = image_fingerprint(image, of or record(tuple(image.shape[1:])))
    return dict(zip(fingerprint.names, fingerprint.values))


def ramp():
    """Rises by 1 a slice, 10 a row, 100 a column."""
    z, y, x = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), torch.arange(8.0), indexing="ij")
    return (z + 10 * y + 100 * x)[None]


def test_changes_are_told_along_each_axis():
    found = entries(ramp())
    assert np.exp(found["gradient head-foot/0"]) == pytest.approx(1)
    assert np.exp(found["gradient front-back/0"]) == pytest.approx(10)
    assert np.exp(found["gradient left-right/0"]) == pytest.approx(100)
    # A ramp does not bend: its Laplacian is nothing, and its logarithm has an end.
    assert np.exp(found["noise/0"]) == pytest.approx(1e-4)


def test_noise_is_the_median_of_speckle_and_roughness_the_mean_bend():
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 2
    # Nine voxels have all neighbours. Bends: one is 8, four are 2. Speckle: 8 in the middle, 4 beside it, 2 at corners.
    found = entries(image)
    assert np.exp(found["roughness/0"]) == pytest.approx((8 + 4 * 2) / 9)
    assert np.exp(found["noise/0"]) == pytest.approx(4)


def test_a_straight_edge_is_rough_and_not_noisy():
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 3
    found = entries(image)
    assert np.exp(found["roughness/0"]) == pytest.approx(2 * 3 / 6)
    assert np.exp(found["noise/0"]) == pytest.approx(1e-4)


def test_spacing_and_extent_are_those_before_resampling_in_millimetres():
    found = entries(ramp())
    assert [np.exp(found[f"spacing {axis}"]) for axis in ("head-foot", "front-back", "left-right")] == pytest.approx(
        [3, 1, 0.5]
    )
    assert [np.exp(found[f"extent {axis}"]) for axis in ("head-foot", "front-back", "left-right")] == pytest.approx(
        [12, 6, 4]
    )


def test_axes_are_called_after_the_body_whatever_their_order_for_the_network():
    turned = record((4, 6, 8), axis_order=(2, 0, 1))
    found = entries(ramp(), turned)
    assert np.exp(found["gradient left-right/0"]) == pytest.approx(1)  # the network's first axis
    stored = entries(ramp(), record((4, 6, 8), orientation=AS_STORED))
    assert np.exp(stored["gradient third axis/0"]) == pytest.approx(100)


def test_percentiles_are_those_of_numpy():
    image = torch.randn(1, 4, 20, 25, generator=torch.Generator().manual_seed(0))
    found = entries(image)
    for percent in (0.5, 5, 25, 50, 75, 95, 99.5):
        nearest = np.percentile(image.numpy(), percent, method="nearest")
        assert found[f"percentile {percent:g}/0"] == pytest.approx(nearest, abs=0.01)


def test_the_middle_is_the_inner_half_along_each_axis():
    image = torch.zeros(1, 4, 8, 8)
    image[0, 1:3, 2:6, 2:6] = 5
    assert entries(image)["centre/0"] == 5


def test_channels_are_told_apart_and_their_correlation_is_pearsons():
    image = torch.randn(3, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    image[1] = -2 * image[0] + 7
    found = entries(image)
    assert found["correlation/0/1"] == pytest.approx(-1)
    expected = np.corrcoef(image[0].flatten(), image[2].flatten())[0, 1]
    assert found["correlation/0/2"] == pytest.approx(expected, abs=1e-6)
    assert found["percentile 50/1"] == pytest.approx(-2 * found["percentile 50/0"] + 7, abs=0.1)


def test_a_thumbnail_holds_means_of_blocks():
    image = torch.arange(4.0)[:, None, None].expand(4, 8, 8)[None]
    thumbnail = image_fingerprint(image, record((4, 8, 8))).thumbnails[0]
    assert thumbnail == (0.0,) * 16 + (1.0,) * 16 + (2.0,) * 16 + (3.0,) * 16


@pytest.mark.parametrize("image", [torch.zeros(1, 1, 6, 7), torch.zeros(2, 3, 1, 1), torch.full((1, 5, 5, 5), 3.0)])
def test_flat_and_tiny_images_have_finite_entries(image):
    fingerprint = image_fingerprint(image, record(tuple(image.shape[1:])))
    assert np.isfinite(fingerprint.values).all()


def test_of_half_precision_it_is_nearly_the_same():
    image = torch.randn(1, 4, 20, 25, generator=torch.Generator().manual_seed(2))
    assert list(entries(image.half()).values()) == pytest.approx(list(entries(image).values()), abs=0.01)


def test_of_a_large_image_only_some_slices_are_looked_at():
    # Every slice has 2^21 voxels: two of five are looked at, the first and the last, with the slices behind them.
    image = torch.zeros(1, 1).expand(2048, 1024)[None, None].repeat(1, 5, 1, 1)
    assert image[0, 0].numel() == MOST_VOXELS // 2
    image[0, 1] = 1  # behind the first
    image[0, 2] = 100
    found = entries(image, record((5, 2048, 1024)))
    assert found["percentile 99.5/0"] == 0
    assert np.exp(found["gradient head-foot/0"]) == pytest.approx(1)  # nothing follows the last
