"""The rule of use: hand-counted walks, and how often it keeps its word in simulations."""

import numpy as np
import pytest

from segfw.quality.selective_rule import least_released, share_bound, use_rule


@pytest.mark.parametrize(("target", "first"), [(0.05, 45), (0.1, 22), (0.2, 11)])
def test_the_walk_begins_with_the_fewest_that_can_pass(target, first):
    assert least_released(target) == first
    assert share_bound(0, first) <= target < share_bound(0, first - 1)


def test_bounds_are_those_at_which_so_few_are_seen_in_one_of_ten():
    from math import comb

    for wrong, patients in ((0, 45), (1, 50), (3, 60)):
        bound = share_bound(wrong, patients)
        chance = sum(comb(patients, k) * bound**k * (1 - bound) ** (patients - k) for k in range(wrong + 1))
        assert chance == pytest.approx(0.1, abs=1e-6)
    assert share_bound(4, 4) == 1


def test_too_few_patients_release_nothing_and_say_so():
    found = use_rule(np.linspace(0, 1, 44), np.zeros(44, bool), 0.05)
    assert found.threshold is None
    assert "44 patients are too few" in found.why
    assert "takes 45" in found.why


def test_the_walk_stops_at_the_first_failure_and_not_at_the_best():
    quality = np.linspace(1, 0, 300)
    is_wrong = np.zeros(300, bool)
    is_wrong[60] = True  # 1 of 61 has a bound of 6.2 %
    found = use_rule(quality, is_wrong, 0.05)
    assert share_bound(1, 300) < 0.05  # a scan would release all 300
    assert found.threshold == quality[59]
    assert (found.patients, found.wrong) == (60, 0)


def test_a_wrong_mask_among_the_first_releases_nothing():
    is_wrong = np.zeros(200, bool)
    is_wrong[10] = True
    found = use_rule(np.linspace(1, 0, 200), is_wrong, 0.05)
    assert found.threshold is None
    assert "too many masks are wrong" in found.why


def test_masks_of_equal_quality_are_released_together():
    quality = np.array([0.9] * 45 + [0.8] * 10)
    is_wrong = np.array([False] * 50 + [True] * 5)
    found = use_rule(quality, is_wrong, 0.05)
    assert found.threshold == 0.9


def test_among_released_masks_no_more_are_wrong_than_said():
    rng = np.random.default_rng(0)
    broken = []
    released = []
    for _ in range(300):
        quality = rng.random(200)
        chance = np.clip(0.6 - 0.7 * quality, 0, 1)  # wrong above 0.86 never, below more and more often
        found = use_rule(quality, rng.random(200) < chance, 0.05)
        if found.threshold is None:
            broken.append(False)
            continue
        new = rng.uniform(found.threshold, 1, 20_000)
        share = np.clip(0.6 - 0.7 * new, 0, 1).mean()
        broken.append(share > 0.05)
        released.append(1 - found.threshold)
    assert np.mean(broken) <= 0.1 + 2 * (0.1 * 0.9 / 300) ** 0.5
    assert len(released) > 30  # it says something
