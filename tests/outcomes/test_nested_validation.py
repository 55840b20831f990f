"""Nothing of held-out patients gets into what is fitted without them, and noise gives no signal."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import segfw
from bench.outcome_models import auc_chosen_before, noise_run, simulated
from segfw.outcomes.fitting_models import MODELS, fitted_models, training_part
from segfw.outcomes.model_figures import auc
from segfw.outcomes.nested_validation import (
    fold_of,
    held_out_probabilities,
    outer_folds,
    permutation_tests,
    probability,
    validate,
)

ONLY = ("features",)


def cohort(seed, patients=60, columns=12):
    rng = np.random.default_rng(seed)
    values = 5 + 3 * rng.normal(size=(patients, columns))
    events = values[:, 0] + values[:, 4] + 2 * rng.normal(size=patients) > 10
    values[rng.random(values.shape) < 0.03] = np.nan
    return values, events


def test_what_held_out_patients_have_changes_no_model():
    """Their values and outcomes are replaced by others: all coefficients stay the same, to the last bit."""
    values, events = cohort(0)
    trained = np.arange(48)
    before = fitted_models(training_part(values[trained], 2), events[None, trained], MODELS, 0)
    spoilt = values.copy()
    spoilt[48:] = 1e6
    flipped = events.copy()
    flipped[48:] = ~flipped[48:]
    folds = np.where(np.arange(60) < 48, 1, 0)
    _, models = held_out_probabilities(outer_folds(spoilt, 2, folds)[:1], spoilt, flipped[None], MODELS, 0)
    for name in MODELS:
        assert before[name].columns_pk.tolist() == models[0][name].columns_pk.tolist()
        assert before[name].coefficients_pk.tolist() == models[0][name].coefficients_pk.tolist()
        assert before[name].intercept_p.tolist() == models[0][name].intercept_p.tolist()


def test_every_patient_is_held_out_once_in_a_repeat():
    values, events = cohort(1)
    for repeat in range(3):
        folds = outer_folds(values, 2, fold_of(events, repeat))
        assert sorted(np.concatenate([fold.held_out for fold in folds])) == list(range(60))
        assert all(not set(fold.trained) & set(fold.held_out) for fold in folds)
    assert fold_of(events, 0).tolist() != fold_of(events, 1).tolist()
    assert fold_of(events, 0).tolist() == fold_of(events, 0).tolist()


def test_a_missing_value_is_taken_for_the_median_of_training_patients():
    values = np.array([[1.0, 10], [2, 20], [9, 30], [np.nan, 40], [4, 50], [4, 61]])
    part = training_part(values, 1)
    assert part.medians_d.tolist() == [4, 35]
    assert part.means_d[0] == pytest.approx(24 / 6)
    assert part.covariates.tolist() == [0]
    assert part.usable.tolist() == [1]


def test_a_feature_that_lacks_a_fifth_and_more_is_left_out_and_a_covariate_is_not():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 4))
    values[:5, 0] = np.nan  # a covariate
    values[:5, 1] = np.nan
    values[:4, 2] = np.nan
    part = training_part(values, 1)
    assert part.covariates.tolist() == [0]
    assert part.usable.tolist() == [2, 3]


def test_a_covariate_without_any_value_or_difference_is_no_column_of_a_model():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 4))
    values[:, 0] = np.nan
    values[:, 1] = 7
    part = training_part(values, 3)
    assert part.covariates.tolist() == [2]


def test_log_odds_are_the_formula():
    """Of raw values, whatever their scale."""
    values, events = cohort(2)
    scaled = values * 10.0 ** np.arange(-3, 9)
    plain = fitted_models(training_part(values, 0), events[None], ONLY, 0)["features"]
    of_scaled = fitted_models(training_part(scaled, 0), events[None], ONLY, 0)["features"]
    np.testing.assert_allclose(plain.log_odds(values), of_scaled.log_odds(scaled), atol=1e-6)
    by_hand = plain.intercept_p[0] + sum(
        coefficient * (median if np.isnan(values[5, column]) else values[5, column])
        for column, coefficient, median in zip(plain.columns_pk[0], plain.coefficients_pk[0], plain.medians_pk[0])
    )
    assert plain.log_odds(values)[0, 5] == pytest.approx(by_hand)


def test_orders_of_outcomes_do_not_touch_one_another():
    values, events = cohort(3)
    folds = outer_folds(values, 2, fold_of(events, 0))
    rows = np.stack([events, events[::-1]])
    alone, _ = held_out_probabilities(folds, values, events[None], ONLY, 0)
    # Inner folds are drawn one order after the other, so that the first is the same.
    together, _ = held_out_probabilities(folds, values, rows, ONLY, 0)
    np.testing.assert_allclose(alone["features"][0], together["features"][0], atol=1e-6)


def test_p_is_never_0_and_counts_the_true_order():
    values, events = cohort(4)
    test = permutation_tests(values, 0, events, ONLY, permutations=19)["features"]
    assert len(test.permuted) == 19
    assert test.observed == pytest.approx(
        auc(validate(values, 0, events, ONLY, repeats=1).probabilities["features"], events)
    )
    assert test.p == 1 / 20


def test_a_signal_is_found_and_told_as_large_as_it_is():
    """AUC on held-out patients beside that of the same models on 20 000 new ones, over five cohorts."""
    told = []
    true = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        values, events = simulated(rng, 150)
        new_values, new_events = simulated(rng, 4000)
        found = validate(values, 0, events, ONLY, repeats=2)
        told.append(auc(found.probabilities["features"], events))
        scores = [model.log_odds(new_values)[0] for model in found.models["features"]]
        true.append(np.mean([auc(each[None], new_events) for each in scores]))
    assert np.mean(true) > 0.7
    assert abs(np.mean(told) - np.mean(true)) < 0.05


def test_noise_gives_half_and_the_wrong_way_does_not():
    """The short form of ``python -m bench outcome noise``: 8 cohorts, 39 orders each."""
    runs = [noise_run(seed, permutations=39) for seed in range(8)]
    assert 0.4 < np.mean([run.auc for run in runs]) < 0.56
    assert np.mean([run.auc_chosen_before for run in runs]) > 0.75
    # Of 8 runs 0.2 are expected below 0.05.
    assert sum(run.p < 0.05 for run in runs) <= 1
    assert 0.2 < np.mean([run.p for run in runs]) < 0.8


def test_choosing_before_finds_a_signal_in_anything():
    rng = np.random.default_rng(0)
    assert auc_chosen_before(rng.normal(size=(100, 300)), np.arange(100) < 50) > 0.65


def test_probability_of_extreme_log_odds():
    assert probability(np.array([-1e4, 0, 1e4])).tolist() == [0, 0.5, 1]


def test_no_file_of_the_room_loads_torch():
    folder = Path(segfw.__file__).parent / "outcomes"
    names = [f"segfw.outcomes.{path.stem}" for path in folder.glob("[a-z]*.py")]
    assert len(names) > 8
    program = "\n".join(["import sys; sys.modules['torch'] = None", *(f"import {name}" for name in names)])
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=300).returncode == 0
