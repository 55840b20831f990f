"""A quantile by patients: by hand, against a slow oracle, and what it promises."""

import numpy as np
import pytest

from segfw.quality.patient_quantile import fewest_patients, patient_quantile, patient_weights


def test_of_one_image_each_it_is_the_conformal_rank():
    # ceil((9 + 1) 0.9) = 9: the largest of nine; ceil((10 + 1) 0.8) = 9: the second largest of ten.
    nine = [5.0, 1, 9, 3, 7, 2, 8, 4, 6]
    assert patient_quantile(nine, list("abcdefghi"), 0.9) == 9
    assert patient_quantile([*nine, 10.0], list("abcdefghij"), 0.8) == 9


def test_images_of_a_patient_count_together_as_one():
    # Patient a has three images. Weights by value: 1: 1/3, 2: 1, 3: 1/3, 4: 1, 5: 1/3; of (3 + 1) 0.5 = 2 are reached
    # at 4 (1/3 + 1 + 1/3 + 1), and not at 3.
    assert patient_quantile([1, 3, 5, 2, 4], ["a", "a", "a", "b", "c"], 0.5) == 4
    assert patient_weights(["a", "b", "a", "a"]).tolist() == [1 / 3, 1, 1 / 3, 1 / 3]


def test_thirds_that_add_up_to_a_whole_patient_count_as_a_whole_one():
    assert patient_quantile([1, 2, 3], ["a", "a", "a"], 0.5) == 3


@pytest.mark.parametrize(("level", "fewest"), [(0.9, 9), (0.95, 19), (0.975, 39), (0.5, 1)])
def test_below_the_fewest_patients_there_is_no_finite_quantile(level, fewest):
    assert fewest_patients(level) == fewest
    patients = [str(number) for number in range(fewest)]
    assert patient_quantile(list(range(fewest)), patients, level) == fewest - 1
    assert patient_quantile(list(range(fewest - 1)), patients[1:], level) == float("inf")


def test_it_agrees_with_trying_every_value():
    rng = np.random.default_rng(0)
    for _ in range(200):
        number = int(rng.integers(1, 30))
        values = rng.integers(0, 12, number).astype(float)
        patients = [str(patient) for patient in rng.integers(0, 6, number)]
        level = float(rng.uniform(0.05, 0.95))
        reached = []
        for value in values:
            share = sum(
                np.mean([other <= value for other, of in zip(values, patients) if of == patient])
                for patient in set(patients)
            )
            if share >= (len(set(patients)) + 1) * level - 1e-9:
                reached.append(value)
        assert patient_quantile(values, patients, level) == (min(reached) if reached else float("inf"))


def test_of_new_patients_as_many_are_below_it_as_promised():
    # 4000 draws of 19 patients of one to four images that are alike, and of one image of a new patient.
    rng = np.random.default_rng(1)
    below = []
    for _ in range(4000):
        counts = rng.integers(1, 5, 20)
        values = [rng.normal() + 0.3 * rng.normal(size=count) for count in counts]
        patients = [str(patient) for patient, count in enumerate(counts[:-1]) for _ in range(count)]
        limit = patient_quantile(np.concatenate(values[:-1]), patients, 0.8)
        below.append(values[-1][0] <= limit)
    assert 0.78 < np.mean(below) < 0.85  # 0.8 is promised; standard error 0.006


def test_lists_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="2 values of 1 patients"):
        patient_quantile([1, 2], ["a"], 0.5)
