"""The predicted Dice: what goes in, what is left out, and that nobody's own mask is learned from."""

import numpy as np
import pytest

from builders.quality import features_of, items_of
from segfw.quality.quality_score import (
    DOUBTS,
    INPUTS,
    UNUSUAL,
    LearnedFrom,
    Scale,
    fit_score,
    inputs_of,
    logit,
    patient_groups,
    without_own_patients,
)


def learned_from(patients: int, seed: int = 0) -> LearnedFrom:
    items = items_of(patients, seed, shifts=("noise",))
    return LearnedFrom(
        inputs=inputs_of([item.features for item in items]),
        structures=[item.structure for item in items],
        patients=[item.patient for item in items],
        dice=np.array([item.dice for item in items]),
        weights=np.ones(len(items)),
        is_clean=np.array([item.shift == "clean" for item in items]),
    )


def test_logits_end_at_two_hundredths():
    assert logit(0.5) == 0
    assert logit(0.9) == pytest.approx(np.log(9))
    assert logit(0.0) == pytest.approx(np.log(0.02 / 0.98))
    assert logit(1.0) == pytest.approx(np.log(0.98 / 0.02))


def test_inputs_that_a_mask_lacks_count_as_the_mean():
    scale = Scale.of(np.array([[1.0, 5.0], [3.0, np.nan]]), np.array([1.0, 1.0]), 0.5)
    assert scale.means == (2, 5)
    assert scale.deviations == (1, 0.5)
    assert scale(np.array([[4.0, np.nan], [900.0, 4.0]])).tolist() == [[2, 0], [6, -2]]


def test_a_usual_form_says_nothing_and_an_odd_one_something():
    items = learned_from(60)
    column = INPUTS.index("volume_z")
    rng = np.random.default_rng(0)
    inputs = items.inputs.copy()
    inputs[:, column] = np.abs(rng.normal(1, 0.3, len(inputs)))
    is_bad = items.dice < 0.6
    inputs[is_bad, column] = 9
    score = fit_score(LearnedFrom(**(vars(items) | {"inputs": inputs})))
    mask = inputs_of([features_of(0.8, rng, 0.0)])
    found = []
    for volume_z in (0.2, 1.0, 1 + 0.3 * UNUSUAL * 0.9, 8.0):
        mask[0, column] = volume_z
        found.append(float(score.linear(mask, ["a"])[0]))
    assert found[0] == found[1] == found[2]
    assert found[3] < found[0] - 0.05
    assert column >= len(DOUBTS)


def test_a_patients_own_masks_are_not_learned_from():
    items = learned_from(40)
    before, groups = without_own_patients(items)
    # The Dice of one patient's masks change nothing of what is predicted of that patient's group.
    own = groups == groups[0]
    changed = items.dice.copy()
    changed[own] = 1 - changed[own]
    after, _ = without_own_patients(LearnedFrom(**(vars(items) | {"dice": changed})))
    assert after[own] == pytest.approx(before[own])
    assert np.abs(after[~own] - before[~own]).max() > 1e-3


def test_items_that_are_not_learned_from_change_nothing():
    items = learned_from(40)
    first, _ = without_own_patients(items, learns_n=items.is_clean)
    changed = np.where(items.is_clean, items.dice, 0.5)
    second, _ = without_own_patients(LearnedFrom(**(vars(items) | {"dice": changed})), learns_n=items.is_clean)
    assert second == pytest.approx(first)


def test_all_masks_of_a_patient_are_in_one_group():
    patients = [f"patient {number % 13}" for number in range(60)]
    groups = patient_groups(patients, 5, 0)
    assert set(groups) == set(range(5))
    for patient in set(patients):
        assert len({group for group, name in zip(groups, patients) if name == patient}) == 1
    assert set(patient_groups(["a", "b"], 5, 0)) == {0, 1}


def test_the_penalty_is_that_of_least_error_in_patients_left_out():
    from segfw.quality.quality_score import PENALTIES, _best_penalty

    rng = np.random.default_rng(2)
    design = rng.normal(size=(40, 6))
    targets = design @ rng.normal(size=6) + rng.normal(0, 3, 40)
    patients = [f"patient {number // 3}" for number in range(40)]
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for patient in set(patients):
            out = np.array([name == patient for name in patients])
            gram = design[~out].T @ design[~out] + penalty * np.eye(6)
            solution = np.linalg.solve(gram, design[~out].T @ targets[~out])
            error += ((targets[out] - design[out] @ solution) ** 2).sum()
        errors.append(error)
    assert _best_penalty(design, targets, patients) == PENALTIES[int(np.argmin(errors))]
