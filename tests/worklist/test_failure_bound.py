"""Exact bounds, against figures that can be counted, and against pools that were made up."""

from math import comb

import numpy as np
import pytest

from segfw.worklist.failure_bound import caught_bound, failure_bound, sample_needed


def test_the_numbers_of_the_design_come_out():
    assert sample_needed(0.05) == 59
    assert sample_needed(0.05, failures=1) == 93
    assert sample_needed(0.02) == 149
    assert sample_needed(0.01) == 299
    assert failure_bound(0, 59, pool=200) == 0.04
    assert caught_bound(18, 20) == pytest.approx(0.717, abs=5e-4)
    assert caught_bound(20, 20) == pytest.approx(0.861, abs=5e-4)


def test_nothing_read_tells_nothing_and_everything_read_tells_all():
    assert failure_bound(0, 0, pool=40) == 1.0
    assert failure_bound(3, 40, pool=40) == 3 / 40
    assert failure_bound(5, 5) == 1.0
    assert caught_bound(0, 10) == 0.0
    assert caught_bound(0, 0) == 0.0


def test_a_small_pool_counted_by_hand():
    # 2 of 4 are read, none fails. With one bad item the chance of that is C(3,2)/C(4,2) = 1/2, with two 1/6, with
    # three 0: at alpha 0.2 one bad item is believable and two are not.
    assert failure_bound(0, 2, pool=4, alpha=0.2) == 1 / 4
    assert failure_bound(0, 2, pool=4, alpha=0.1) == 2 / 4


def test_a_small_pool_bounds_no_more_than_an_endless_one():
    for failures in range(4):
        for read in (10, 30, 59):
            small = failure_bound(failures, read, pool=120)
            assert failures / read * read / 120 <= small <= failure_bound(failures, read)


def test_numbers_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="do not go together"):
        failure_bound(3, 2)
    with pytest.raises(ValueError, match="do not go together"):
        failure_bound(0, 30, pool=20)
    with pytest.raises(ValueError, match="cannot be caught"):
        caught_bound(3, 2)


@pytest.mark.parametrize("pool", [60, 200, 999])
def test_the_bound_of_a_pool_fails_in_at_most_a_share_alpha_of_all_samples_exactly(pool):
    """Not drawn but added up: over all samples of 40, for each number of bad items."""
    read = 40
    bounds = [failure_bound(k, read, pool=pool, alpha=0.05) for k in range(read + 1)]
    for bad in range(0, pool + 1, max(1, pool // 40)):
        missed = 0.0
        for k in range(max(0, read - (pool - bad)), min(read, bad) + 1):
            if bounds[k] < bad / pool - 1e-12:
                missed += comb(bad, k) * comb(pool - bad, read - k) / comb(pool, read)
        assert missed <= 0.05 + 1e-9


def test_ten_thousand_made_up_pools_keep_the_promise():
    rng = np.random.default_rng(21)
    held = 0
    for _ in range(10_000):
        pool = int(rng.integers(60, 3000))
        bad = int(rng.integers(0, max(1, pool // 4)))
        failures = int(rng.hypergeometric(bad, pool - bad, 59))
        held += failure_bound(failures, 59, pool=pool) >= bad / pool - 1e-12
    assert held >= 9_500
