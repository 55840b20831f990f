"""Near copies of what must stay unseen, by their signatures."""

import numpy as np

from segfw.checkup.duplicates import same_scans
from segfw.checkup.signature import signature


def scan(seed, shape=(20, 40, 32)):
    return np.random.default_rng(seed).normal(size=(1, *shape)).cumsum(1).cumsum(2).cumsum(3).astype(np.float32)


def test_a_scan_in_other_numbers_is_found_and_others_are_not():
    others = {f"unseen_{seed}": signature(scan(seed)) for seed in range(4)}
    offered = {
        "scaled": signature(37 * scan(2) + 500),
        "noisy": signature(scan(1) + 0.02 * scan(1).std() * np.random.default_rng(9).normal(size=(1, 20, 40, 32))),
        "another": signature(scan(7)),
    }
    assert same_scans(offered, others) == {"scaled": "unseen_2", "noisy": "unseen_1"}


def test_without_anything_to_keep_out_all_stay():
    assert same_scans({"a": signature(scan(0))}, {}) == {}
