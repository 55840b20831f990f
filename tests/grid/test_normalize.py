"""Intensity normalisation: numbers that can be worked out by hand."""

import numpy as np
import pytest
from pydantic import ValidationError

from segfw.grid.normalize import IntensityStats, Normalization, normalization_kind, normalize

STATS = IntensityStats(mean=50, std=20, minimum=-500, maximum=900, median=45, percentile_00_5=-100, percentile_99_5=300)


def line(*values: float, kind: type = np.int16) -> np.ndarray:
    return np.array(values, kind).reshape(1, 1, -1)


def normalized(image: np.ndarray, kind: str, mask: np.ndarray | None = None, **fields) -> list[float]:
    result = normalize(image, Normalization(kind=kind, **fields), mask)
    assert result.dtype == np.float32
    return result.ravel().tolist()


def test_ct_is_clipped_to_the_data_sets_percentiles_and_scaled_by_its_figures():
    assert normalized(line(-1000, -100, 50, 70, 300, 3000), "ct", stats=STATS) == [-7.5, -7.5, 0, 1, 12.5, 12.5]


def test_ct_without_figures_is_refused_at_once():
    with pytest.raises(ValidationError, match="'ct' needs the data set's statistics"):
        Normalization(kind="ct")


def test_zscore_has_mean_0_and_deviation_1():
    assert normalized(line(10, 30, 10, 30), "zscore") == [-1, 1, -1, 1]
    assert normalized(line(7, 7, 7), "zscore") == [0, 0, 0]  # no deviation: no division by zero


def test_zscore_inside_the_mask_leaves_the_rest_at_zero():
    image = line(0, 10, 30, 0, 500)
    mask = line(0, 1, 1, 0, 0, kind=bool)
    assert normalized(image, "zscore", mask, inside_mask=True) == [0, -1, 1, 0, 0]
    whole = normalized(image, "zscore", mask, inside_mask=False)  # the mask is there but not wanted
    assert np.mean(whole) == pytest.approx(0, abs=1e-6)


def test_zscore_survives_intensities_of_millions():
    image = line(*[16_000_000, 16_000_002] * 5000, kind=np.int32)
    assert set(normalized(image, "zscore")) == {-1, 1}


@pytest.mark.parametrize(
    "kind, values, expected",
    [
        ("rescale", (-10, 0, 30), [0, 0.25, 1]),
        ("rescale", (5, 5), [0, 0]),
        ("rgb", (0, 51, 255), [0, 0.2, 1]),
        ("none", (-3, 0, 7), [-3, 0, 7]),
    ],
)
def test_simple_rules(kind, values, expected):
    assert normalized(line(*values), kind) == pytest.approx(expected)


def test_the_callers_image_is_left_alone():
    for kind in ("zscore", "rescale", "rgb", "ct"):
        image = line(1, 2, 3, kind=np.float32)
        normalize(image, Normalization(kind=kind, stats=STATS), None)
        assert image.ravel().tolist() == [1, 2, 3]


def test_an_unknown_rule_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"unknown normalisation 'histogram'; choose from \['ct', 'none', "):
        normalize(line(1, 2), Normalization(kind="histogram"), None)


@pytest.mark.parametrize(
    "channel, kind",
    [("CT", "ct"), ("ct", "ct"), ("MRI", "zscore"), ("noNorm", "none"), ("rgb_to_0_1", "rgb"), ("CTA", "zscore")],
)
def test_the_channels_name_decides(channel, kind):
    assert normalization_kind(channel) == kind
