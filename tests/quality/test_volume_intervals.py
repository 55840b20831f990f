"""Intervals of volumes: by hand, and what they promise."""

from math import log

import numpy as np
import pytest

from segfw.quality.volume_intervals import VolumeInterval, fit_volume_interval, interval_text


def test_the_factor_is_the_ninth_smallest_ratio_of_nine():
    # True volumes are 1.1 to 1.9 times those of the masks, one below by the same ratio.
    predicted = [10.0] * 9
    true = [11, 12, 13, 14, 15, 16, 17, 18, 10 / 1.9]
    interval = fit_volume_interval(true, predicted, list("abcdefghi"))
    assert interval.factor == pytest.approx(1.9)
    assert interval.of(20) == pytest.approx((20 / 1.9, 38))
    assert (interval.patients, interval.cases, interval.missed, interval.invented) == (9, 9, 0, 0)


def test_fewer_than_nine_patients_have_no_interval_however_many_cases():
    interval = fit_volume_interval([1] * 16, [2] * 16, [str(index % 8) for index in range(16)])
    assert interval.factor is None
    assert interval.of(3) is None
    assert interval.patients == 8


def test_what_was_missed_or_invented_is_counted_beside_it():
    true = [*range(1, 13), 4, 0, 0, 0]
    predicted = [*range(1, 13), 0, 2, 2, 0]
    interval = fit_volume_interval(true, predicted, [str(index) for index in range(16)])
    assert interval.factor == 1
    assert (interval.cases, interval.missed, interval.invented) == (12, 1, 2)
    assert interval.text == (
        "12 cases of 12 patients; nothing was found in 1 of 13 cases that have it; "
        "it was found in 2 cases that do not have it"
    )
    assert interval.of(0) is None


def test_ninety_percent_of_new_volumes_lie_inside():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(1000):
        errors = 0.2 * rng.standard_t(3, size=31)
        interval = fit_volume_interval(np.exp(errors[:-1]), np.ones(30), [str(index) for index in range(30)])
        inside.append(abs(errors[-1]) <= log(interval.factor))
    assert 0.87 < np.mean(inside) < 0.95  # 28 of 31 ranks: 0.903


def test_images_of_a_patient_count_together():
    # Patient a has 50 bad images: without weights they would decide.
    patients = [*["a"] * 50, *(str(index) for index in range(20))]
    true = [*[10.0] * 50, *[1.0] * 20]
    interval = fit_volume_interval(true, [1.0] * 70, patients)
    assert interval.factor == 1  # 0.9 of (21 + 1) patients are 19.8: the 20 others


def test_it_is_kept_and_read_as_it_was(tmp_path):
    interval = fit_volume_interval([1.5] * 10, [1] * 10, [str(index) for index in range(10)])
    interval.save(tmp_path / "interval.json")
    assert VolumeInterval.load(tmp_path / "interval.json") == interval


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="1 and 2 volumes of 1 cases"):
        fit_volume_interval([1], [1, 2], ["a"])


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        ((12.6087, 16.8312), "12.6 to 16.8"),
        ((1.0, 10.0), "1 to 10"),
        ((1234.5, 4321.0), "1230 to 4320"),
        ((1.0, 10.1), "not known within a factor of 10 (1 to 10)"),
        ((0.0005574, 578.8), "not known within a factor of 10 (0.00056 to 580)"),
        (None, "–"),
    ],
)
def test_an_interval_that_tells_nothing_says_so(interval, text):
    assert interval_text(interval) == text
