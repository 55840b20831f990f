"""L1 logistic regression against another program's, and the choice of the penalty."""

import numpy as np
import pytest

from segfw.outcomes.patient_folds import stratified_folds
from segfw.outcomes.sparse_logistic import INNER_FOLDS, InnerSplits, fitted_weights, l1_path


def standard(values):
    return (values - values.mean(0)) / values.std(0)


def data(seed, patients=60, features=6, noise=1.0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(patients, features))
    values[:, 1] += 2 * values[:, 0]
    values = standard(values)
    return values, values[:, 0] + noise * rng.normal(size=patients) > 0.3


@pytest.mark.parametrize("seed, noise", [(0, 1), (1, 1), (2, 0.3), (3, 0)])  # of the last, outcomes are separable
def test_weights_are_those_of_scikit_learn(seed, noise):
    """Which batchgenerators, a dependency, brings; segfw itself does not use it."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    values, events = data(seed, noise=noise)
    strongest = np.abs((events - events.mean()) @ values).max() / len(events)
    penalties = strongest * np.geomspace(1, 10**-2.5, 5)
    weights, intercepts = l1_path(values[None], events[None], np.ones((1, len(events))), penalties[:, None])
    np.testing.assert_allclose(weights[0], 0, atol=1e-12)
    for penalty, found, intercept in zip(penalties[1:], weights[1:, 0], intercepts[1:, 0]):
        other = linear_model.LogisticRegression(
            l1_ratio=1, C=1 / (penalty * len(events)), solver="saga", tol=1e-9, max_iter=100_000
        ).fit(values, events)
        np.testing.assert_allclose(found, other.coef_[0], atol=2e-4)
        assert intercept == pytest.approx(other.intercept_[0], abs=2e-4)


def test_the_least_is_found_where_no_step_makes_it_less():
    """The conditions of Karush, Kuhn and Tucker, for many problems at once with patients who do not count."""
    problems = [data(seed) for seed in range(8)]
    values = np.stack([each[0] for each in problems])
    events = np.stack([each[1] for each in problems])
    counts = (np.random.default_rng(9).random(events.shape) < 0.7).astype(float)
    penalty = 0.03
    weights, intercepts = l1_path(values, events, counts, np.full((1, 8), penalty))
    log_odds = np.einsum("bnk,bk->bn", values, weights[0]) + intercepts[0][:, None]
    residuals = counts * (1 / (1 + np.exp(-log_odds)) - events) / counts.sum(1, keepdims=True)
    slopes = np.einsum("bn,bnk->bk", residuals, values)
    assert np.abs(residuals.sum(1)).max() < 1e-6
    is_used = weights[0] != 0
    np.testing.assert_allclose(slopes[is_used], -penalty * np.sign(weights[0][is_used]), atol=1e-6)
    assert (np.abs(slopes[~is_used]) <= penalty + 1e-6).all()
    assert is_used.any()
    assert not is_used.all()


def test_a_problem_is_solved_alike_alone_and_among_others():
    problems = [data(seed) for seed in range(5)]
    values = np.stack([each[0] for each in problems])
    events = np.stack([each[1] for each in problems])
    penalties = np.tile(np.array([[0.2], [0.05], [0.01]]), (1, 5))
    together, _ = l1_path(values, events, np.ones(events.shape), penalties)
    for index in range(5):
        alone, _ = l1_path(values[[index]], events[[index]], np.ones((1, 60)), penalties[:, [index]])
        np.testing.assert_allclose(together[:, index], alone[:, 0], atol=1e-6)


def fitted(values, events, seed=0):
    splits = InnerSplits.of(events[None], np.random.default_rng(seed))
    weights, intercepts = fitted_weights(np.repeat(values[None], splits.folds + 1, axis=0), splits)
    return weights[0], intercepts[0]


def test_a_signal_gets_a_weight_and_an_outcome_of_chance_mostly_none():
    values, events = data(0, patients=200, noise=0.5)
    weights, _ = fitted(values, events)
    assert abs(weights[0]) + abs(weights[1]) > 1
    constants = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        weights, intercept = fitted(values, rng.permutation(np.arange(200) < 50), seed)
        constants += not weights.any()
        if not weights.any():
            assert intercept == pytest.approx(np.log(50 / 150))
    assert constants >= 8


def test_the_penalty_is_the_one_of_least_loss_in_the_inner_folds():
    """Done again one fold after the other."""
    values, events = data(4, patients=80)
    splits = InnerSplits.of(events[None], np.random.default_rng(3))
    fold_n = stratified_folds(events, INNER_FOLDS, np.random.default_rng(3))
    shares = np.geomspace(1, 10**-2.5, 12)
    losses = np.zeros(12)
    for fold in range(INNER_FOLDS):
        inside = fold_n != fold
        strongest = np.abs((events[inside] - events[inside].mean()) @ values[inside]).max() / inside.sum()
        weights, intercepts = l1_path(
            values[None, inside], events[None, inside], np.ones((1, inside.sum())), strongest * shares[:, None]
        )
        for place in range(12):
            log_odds = values[~inside] @ weights[place, 0] + intercepts[place, 0]
            losses[place] += np.logaddexp(0, np.where(events[~inside], -log_odds, log_odds)).sum()
    strongest = np.abs((events - events.mean()) @ values).max() / len(events)
    best = strongest * shares[losses.argmin()]
    wanted, _ = l1_path(values[None], events[None], np.ones((1, 80)), np.array([[strongest], [best]]))
    weights, _ = fitted_weights(np.repeat(values[None], splits.folds + 1, axis=0), splits)
    np.testing.assert_allclose(weights[0], wanted[1, 0], atol=1e-5)
    assert 0 < losses.argmin() < 11


def test_without_features_there_is_the_share_of_events_alone():
    events = np.arange(20) < 5
    weights, intercept = fitted(np.empty((20, 0)), events)
    assert weights.shape == (0,)
    assert intercept == pytest.approx(np.log(5 / 15))
