"""Conformal bounds: how often they hold, and by how much that varies, in simulations."""

from math import ceil

import numpy as np
import pytest

from segfw.quality.conformal import coverage_spread, one_of_each_patient
from segfw.quality.patient_quantile import patient_quantile


def test_one_item_of_each_patient_and_never_two():
    patients = ["a", "b", "a", "a", "c", "b"]
    seen = set()
    for seed in range(60):
        chosen = one_of_each_patient(patients, seed)
        assert [patients[index] for index in chosen] == ["a", "b", "c"]
        seen.add(int(chosen[0]))
    assert seen == {0, 2, 3}  # each of a patient's items has its turn


@pytest.mark.parametrize("patients", [9, 25, 40])
def test_exchangeable_residuals_are_covered_as_often_as_promised(patients):
    rng = np.random.default_rng(patients)
    covered = []
    for _ in range(2000):
        residuals = rng.standard_t(3, patients + 50)
        bound = patient_quantile(residuals[:patients], list(map(str, range(patients))), 0.9)
        covered.append(float((residuals[patients:] <= bound).mean()))
    expected = ceil((patients + 1) * 0.9 - 1e-9) / (patients + 1)
    standard_error = coverage_spread(patients, 0.1) / 2000**0.5 + 0.001
    assert np.mean(covered) == pytest.approx(expected, abs=4 * standard_error)
    assert np.std(covered) == pytest.approx(
        np.hypot(coverage_spread(patients, 0.1), (expected * (1 - expected) / 50) ** 0.5), rel=0.1
    )


def test_ninety_percent_are_ninety_percent():
    rng = np.random.default_rng(3)
    residuals = rng.normal(size=(2000, 199 + 100))
    patients = list(map(str, range(199)))
    bounds = np.array([patient_quantile(row[:199], patients, 0.9) for row in residuals])
    assert (residuals[:, 199:] <= bounds[:, None]).mean() == pytest.approx(0.90, abs=0.01)


def test_the_spread_of_the_coverage_is_the_one_that_is_known():
    assert coverage_spread(40, 0.1) == pytest.approx(0.046, abs=0.001)
