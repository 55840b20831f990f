"""Which features a model may take, on numbers that a human can count."""

import numpy as np
import pytest

from segfw.outcomes.feature_choice import (
    chosen_by_mrmr,
    f_statistics,
    first_of_those_alike,
    most_features,
    nearly_constant,
    unit_ranks,
)
from segfw.outcomes.patient_folds import events_of, permuted_in_folds, stratified_folds

EVERYBODY = np.ones((1, 6))


@pytest.mark.parametrize("events, most", [(4, 3), (29, 3), (39, 3), (40, 4), (57, 5), (200, 20)])
def test_one_feature_for_ten_events_and_three_at_least(events, most):
    assert most_features(events) == most


def test_a_feature_is_nearly_constant_from_19_of_20_equal_values_on():
    nineteen = np.array([7.0] * 19 + [1])
    eighteen = np.array([7.0] * 18 + [1, 2])
    rounding = 3 + 1e-15 * np.arange(20)
    small_scale = 1e-20 * np.arange(20)
    table = np.column_stack([nineteen, eighteen, rounding, small_scale])
    assert nearly_constant(table).tolist() == [True, False, True, False]


def test_unit_ranks_give_spearmans_rho():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    table = np.exp(rng.normal(size=(30, 4)))
    table[:10, 1] = 2.0  # ties
    ranks = unit_ranks(table)
    np.testing.assert_allclose(ranks.T @ ranks, spearmanr(table).statistic, atol=1e-12)


def test_of_features_that_are_alike_the_first_stays():
    rng = np.random.default_rng(1)
    first = rng.normal(size=40)
    other = rng.normal(size=40)
    table = np.column_stack([first, other, -np.exp(first), other + 1e-3 * first, first**2])
    assert first_of_those_alike(unit_ranks(table)).tolist() == [True, True, False, False, True]


def test_what_is_like_a_feature_that_went_may_stay():
    """0.97 and 0.97 apart, 0.9 together: the chain keeps its ends."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        first = rng.normal(size=4000)
        middle = first + 0.25 * rng.normal(size=4000)
        last = middle + 0.25 * rng.normal(size=4000)
        assert first_of_those_alike(unit_ranks(np.column_stack([first, middle, last]))).tolist() == [True, False, True]


def test_f_is_that_of_an_analysis_of_variance():
    from scipy.stats import f_oneway

    rng = np.random.default_rng(2)
    table = rng.normal(size=(25, 7))
    events = np.stack([rng.random(25) < 0.4, rng.random(25) < 0.4])
    counts = np.stack([np.ones(25), np.arange(25) < 17])
    found = f_statistics(table, events, counts)
    for row, (outcome, counted) in enumerate(zip(events, counts > 0)):
        for column in range(7):
            with_event = table[outcome & counted, column]
            without = table[~outcome & counted, column]
            assert found[row, column] == pytest.approx(f_oneway(with_event, without).statistic, rel=1e-9)


def test_a_copy_of_the_best_feature_is_not_the_second_choice():
    """By F alone the copy would be: mrmr asks what is new."""
    everybody = np.ones((1, 200))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        events = np.arange(200) < 100
        best = events + rng.normal(size=200)
        copy = best + 0.1 * rng.normal(size=200)
        other = events + 1.6 * rng.normal(size=200)
        table = np.column_stack([other, copy, best])
        relevance = f_statistics(table, events[None], everybody)[0]
        assert relevance[0] < relevance[1:].min()
        chosen = chosen_by_mrmr(table, unit_ranks(table), events[None], everybody, most=2)[0]
        assert chosen[0] in (1, 2)
        assert chosen[1] == 0


def test_all_orders_at_once_are_chosen_as_one_by_one():
    rng = np.random.default_rng(4)
    table = rng.normal(size=(50, 20))
    events = np.stack([rng.permutation(np.arange(50) < 20) for _ in range(6)])
    counts = (rng.random((6, 50)) < 0.8).astype(float)
    together = chosen_by_mrmr(table, unit_ranks(table), events, counts, most=4)
    for row in range(6):
        alone = chosen_by_mrmr(table, unit_ranks(table), events[row : row + 1], counts[row : row + 1], most=4)
        assert together[row].tolist() == alone[0].tolist()
    assert together.shape == (6, 4)


def test_fewer_features_than_may_be_chosen():
    table = np.arange(12.0).reshape(6, 2) ** 2
    events = np.array([[True, False, True, False, False, True]])
    assert sorted(chosen_by_mrmr(table, unit_ranks(table), events, EVERYBODY, most=5)[0]) == [0, 1]
    none = table[:, :0]
    assert chosen_by_mrmr(none, none, events, EVERYBODY, most=3).shape == (1, 0)


def test_folds_share_out_patients_and_events():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        events = rng.random(int(rng.integers(20, 70))) < 0.3
        if events_of(events) < 5:
            continue
        folds = stratified_folds(events, 5, rng)
        sizes = np.bincount(folds, minlength=5)
        with_event = np.bincount(folds[events], minlength=5)
        assert sizes.max() - sizes.min() <= 1
        assert with_event.max() - with_event.min() <= 1


def test_permuted_outcomes_keep_the_events_of_each_fold():
    rng = np.random.default_rng(0)
    events = np.arange(40) < 13
    folds = stratified_folds(events, 5, rng)
    orders = [permuted_in_folds(events, folds, rng) for _ in range(30)]
    for order in orders:
        assert (np.bincount(folds[order], minlength=5) == np.bincount(folds[events], minlength=5)).all()
    assert len({order.tobytes() for order in orders}) > 25
    assert events.tolist() == (np.arange(40) < 13).tolist()  # the caller's stays as it is
