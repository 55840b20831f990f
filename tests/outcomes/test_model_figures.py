"""Figures of probabilities, counted by hand and against other programs."""

import numpy as np
import pytest

from segfw.outcomes.model_figures import (
    auc,
    auc_gain,
    auc_interval,
    brier,
    calibration,
    net_benefit,
    net_benefit_of_all,
    roc_curve,
)
from segfw.outcomes.outcome_report import Gain

EVENTS = np.array([True, True, False, False, False])


def test_auc_counts_pairs():
    """0.9 beats all three, 0.4 beats 0.1, is beaten by 0.6 and draws with 0.4: 4.5 of 6."""
    scores = np.array([[0.9, 0.4, 0.1, 0.6, 0.4]])
    assert auc(scores, EVENTS) == 4.5 / 6
    assert auc(-scores, EVENTS) == 1.5 / 6


def test_auc_of_repeats_is_the_mean_of_theirs():
    repeats = np.array([[0.9, 0.4, 0.1, 0.6, 0.4], [0.9, 0.8, 0.1, 0.2, 0.3], [0, 0, 0, 0, 0]])
    assert auc(repeats, EVENTS) == pytest.approx((0.75 + 1 + 0.5) / 3)


def test_bootstrap_draws_patients_again():
    """Against a plain loop that draws and counts."""
    rng = np.random.default_rng(0)
    events = np.arange(40) < 15
    scores = rng.normal(size=40) + events
    found = auc_interval(scores[None], events)
    aucs = []
    for _ in range(2000):
        drawn = rng.integers(40, size=40)
        if 0 < events[drawn].sum() < 40:
            aucs.append(auc(scores[None, drawn], events[drawn]))
    assert found == pytest.approx(np.percentile(aucs, [2.5, 97.5]), abs=0.02)


def test_the_same_scores_gain_nothing():
    scores = np.random.default_rng(0).normal(size=(3, 5))
    gain, interval = auc_gain(scores, scores, EVENTS)
    assert (gain, *interval) == (0, 0, 0)


def test_gain_is_the_difference_of_aucs():
    rng = np.random.default_rng(1)
    events = np.arange(60) < 25
    first = rng.normal(size=(4, 60))
    second = first + events
    gain, interval = auc_gain(first, second, events)
    assert gain == pytest.approx(auc(second, events) - auc(first, events))
    assert interval.low < gain < interval.high


def test_brier_is_the_mean_square():
    assert brier(np.array([1, 0.5, 0, 0.2, 0]), EVENTS) == pytest.approx((0.25 + 0.04) / 5)


def test_probabilities_that_are_right_are_calibrated():
    """Of ten patients with 0.2 two have it, of ten with 0.7 seven."""
    told = np.repeat([0.2, 0.7], 10)
    seen = np.array([True] * 2 + [False] * 8 + [True] * 7 + [False] * 3)
    found = calibration(told, seen)
    assert found.intercept == pytest.approx(0, abs=1e-9)
    assert found.slope == pytest.approx(1, abs=1e-9)


def test_twice_too_extreme_log_odds_have_slope_a_half():
    told = np.repeat([0.2, 0.7], 10)
    seen = np.array([True] * 2 + [False] * 8 + [True] * 7 + [False] * 3)
    odds = (told / (1 - told)) ** 2
    assert calibration(odds / (1 + odds), seen).slope == pytest.approx(0.5, abs=1e-9)


def test_one_probability_for_all_has_no_slope():
    """Told 0.5, seen 2 of 5: the log odds of 2 to 3 are missing."""
    found = calibration(np.full(5, 0.5), EVENTS)
    assert found.slope is None
    assert found.intercept == pytest.approx(np.log(2 / 3))


def test_calibration_ends_where_probabilities_are_0_and_1():
    found = calibration(np.array([1.0, 0, 0, 1, 0]), EVENTS)
    assert np.isfinite([found.intercept, found.slope]).all()
    perfect = calibration(np.array([0.9, 0.8, 0.1, 0.2, 0.3]), EVENTS)
    assert np.isfinite([perfect.intercept, perfect.slope]).all()


def test_net_benefit_counts_treated_patients():
    """From 0.5 on three are treated, two with the event: 2/5 - 1/5; from 0.8 on one with it: 1/5."""
    told = np.array([0.9, 0.5, 0.6, 0.1, 0.2])
    assert net_benefit(told, EVENTS, (0.5, 0.8)) == pytest.approx([0.2, 0.2])
    assert net_benefit_of_all(EVENTS, (0.2, 0.4)) == pytest.approx([0.4 - 0.6 / 4, 0])


def test_roc_goes_through_every_score():
    false, true = roc_curve(np.array([0.9, 0.4, 0.1, 0.6, 0.4]), EVENTS)
    assert false == pytest.approx([0, 0, 1 / 3, 2 / 3, 1])
    assert true == pytest.approx([0, 0.5, 0.5, 1, 1])
    assert np.trapezoid(true, false) == pytest.approx(4.5 / 6)


@pytest.mark.parametrize(
    "low, high, verdict", [(0.01, 0.2, "a gain"), (-0.1, 0.2, "no gain shown"), (-0.3, -0.1, "a loss")]
)
def test_what_a_gain_shows(low, high, verdict):
    assert Gain(auc=(low + high) / 2, low=low, high=high).verdict == verdict
