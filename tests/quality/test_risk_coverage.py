"""What a score is worth: counted by hand, and against all orders of ties and all pairs."""

from itertools import permutations

import numpy as np
import pytest

from segfw.quality.risk_coverage import aurc, auroc, naurc, ranks_of, risk_curve, spearman, worth_of


def test_risks_are_means_over_the_most_confident():
    confidence = np.array([0.2, 0.9, 0.5])
    dice = np.array([0.0, 1.0, 0.4])
    assert risk_curve(confidence, dice).tolist() == pytest.approx([0, 0.3, (0 + 0.6 + 1) / 3])
    assert aurc(confidence, dice) == pytest.approx((0 + 0.3 + 1.6 / 3) / 3)


def test_an_oracle_has_0_and_a_constant_1():
    dice = np.array([0.1, 0.5, 0.9, 0.95])
    assert naurc(dice, dice) == 0
    assert naurc(np.ones(4), dice) == pytest.approx(1)
    assert naurc(-dice, dice) > 1
    assert naurc(dice, np.full(4, 0.5)) is None


@pytest.mark.parametrize("seed", range(5))
def test_ties_are_averaged_over_all_their_orders(seed):
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 3, 6).astype(float)
    dice = rng.random(6)
    curves = []
    for order in permutations(range(6)):
        if all(confidence[a] >= confidence[b] for a, b in zip(order, order[1:])):
            curves.append(np.cumsum(1 - dice[list(order)]) / np.arange(1, 7))
    assert risk_curve(confidence, dice) == pytest.approx(np.mean(curves, 0))


@pytest.mark.parametrize("seed", range(5))
def test_the_auroc_counts_pairs(seed):
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 5, 20).astype(float)
    is_wrong = rng.random(20) < 0.4
    pairs = [
        (confidence[right] > confidence[wrong]) + 0.5 * (confidence[right] == confidence[wrong])
        for right in np.flatnonzero(~is_wrong)
        for wrong in np.flatnonzero(is_wrong)
    ]
    assert auroc(confidence, is_wrong) == pytest.approx(np.mean(pairs))
    assert auroc(confidence, np.zeros(20, bool)) is None


def test_the_correlation_is_of_ranks():
    assert spearman(np.array([1, 2, 3, 4]), np.array([1, 10, 100, 1000])) == pytest.approx(1)
    assert spearman(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert spearman(np.array([1, 1, 1]), np.array([3, 2, 1])) is None


def test_items_without_a_score_are_left_out():
    found = worth_of(
        np.array([0.8, np.nan, 0.4]), np.array([0.9, 0.1, 0.5]), np.array([False, True, True]), is_dice=True
    )
    assert found.items == 2
    assert found.auroc == 1
    assert found.mae == pytest.approx(0.1)
    assert found.bias == pytest.approx(-0.1)
    assert worth_of(np.array([np.nan]), np.array([0.5]), np.array([True])).items == 0


def test_equal_values_share_their_ranks():
    from scipy.stats import rankdata

    assert ranks_of(np.array([5, 1, 5, 3])).tolist() == [3.5, 1, 3.5, 2]
    values = np.random.default_rng(0).integers(0, 6, 40)
    assert ranks_of(values).tolist() == rankdata(values).tolist()
