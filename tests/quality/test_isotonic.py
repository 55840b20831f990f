"""Monotone maps: blocks counted by hand, and the formula of largest and least means."""

import numpy as np
import pytest

from segfw.quality.isotonic import IsotonicMap, fit_isotonic


def test_violators_are_pooled_with_their_weights():
    found = fit_isotonic(np.array([1, 2, 3, 4]), np.array([1, 5, 2, 7]), np.array([1, 1, 2, 1]))
    # 5 and twice 2 make 3, at (2 + 2 * 3) / 3.
    assert found.at == pytest.approx((1, 8 / 3, 4))
    assert found.values == (1, 3, 7)


def test_between_knots_it_is_a_line_and_outside_flat():
    found = IsotonicMap(at=(0.0, 2.0), values=(1.0, 2.0))
    assert found(np.array([-5, 0, 0.5, 2, 9])).tolist() == [1, 1, 1.25, 2, 2]


def test_equal_scores_have_one_value():
    found = fit_isotonic(np.array([1.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0]))
    assert found.at == (1, 2)
    assert found.values == (0.5, 1)


def test_it_falls_if_asked_to():
    found = fit_isotonic(np.array([1, 2, 3]), np.array([3.0, 1.0, 2.0]), is_rising=False)
    assert found.values == (3, 1.5)


@pytest.mark.parametrize("seed", range(20))
def test_values_are_those_of_the_formula_of_largest_and_least_means(seed):
    """Of item i: the largest over a <= i of the least over b >= i of the weighted mean of targets a to b."""
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=12)
    weights = rng.integers(1, 4, 12).astype(float)
    found = fit_isotonic(np.arange(12), targets, weights)
    expected = []
    for i in range(12):
        least = [
            min(np.average(targets[a : b + 1], weights=weights[a : b + 1]) for b in range(i, 12)) for a in range(i + 1)
        ]
        expected.append(max(least))
    blocks = sorted({round(value, 9) for value in expected})
    assert found.values == pytest.approx(blocks)
    for knot, value in zip(found.at, blocks):
        members = np.flatnonzero(np.round(expected, 9) == value)
        assert knot == pytest.approx(np.average(members, weights=weights[members]))


@pytest.mark.parametrize(
    ("at", "values"), [((), ()), ((1.0,), (1.0, 2.0)), ((1.0, 1.0), (1.0, 2.0)), ((1.0, 2.0, 3.0), (1.0, 2.0, 1.0))]
)
def test_what_is_no_monotone_map_is_refused(at, values):
    with pytest.raises(ValueError, match=r"knot|rise"):
        IsotonicMap(at=at, values=values)


def test_nothing_cannot_be_fitted():
    with pytest.raises(ValueError, match="no item"):
        fit_isotonic(np.zeros(0), np.zeros(0))
