"""Exact bounds of shares: of masks that would fail among those nobody looked at, and of planted errors that are seen.

They hold for a simple random sample that was drawn before anything was seen. To look twice and stop when the figure
pleases voids them; whoever looks L times, or asks for S structures each, divides ``alpha`` by L or S.
"""

from __future__ import annotations

from math import lgamma, log

import numpy as np

from segfw.quality.selective_rule import share_bound

ALPHA = 0.05  # chance that a bound does not hold
SMALL_POOL = 1000  # items; below it the sample is a part of the pool worth counting


def failure_bound(failures: int, read: int, *, pool: int | None = None, alpha: float = ALPHA) -> float:
    """The largest share of failures that a sample with so many of them leaves believable.

    Parameters
    ----------
    failures
        Items of the sample that failed.
    read
        Items of the sample, all of them read; with none of them nothing is known and the bound is 1.
    pool
        Items that the sample was drawn from, itself among them. Below SMALL_POOL they are counted exactly
        (hypergeometric); of more, or of None, the sample counts as drawn from infinitely many (Clopper-Pearson).
    alpha
        Chance that the share is larger after all.

    Raises
    ------
    ValueError
        If the numbers cannot belong together.
    """
    if not 0 <= failures <= read or (pool is not None and read > pool):
        raise ValueError(f"{failures} failures among {read} read of {pool} do not go together")
    if read == 0:
        return 1.0
    if pool is None or pool >= SMALL_POOL:
        return share_bound(failures, read, 1 - alpha)
    believable = failures
    too_many = pool - (read - failures) + 1
    while too_many - believable > 1:  # the chance falls with the number of bad ones
        between = (believable + too_many) // 2
        if _chance_of_at_most(failures, read, between, pool) > alpha:
            believable = between
        else:
            too_many = between
    return believable / pool


def caught_bound(caught: int, planted: int, *, alpha: float = ALPHA) -> float:
    """The lower end of Clopper and Pearson's one-sided interval of the share of errors that are seen."""
    if not 0 <= caught <= planted:
        raise ValueError(f"{caught} of {planted} planted errors cannot be caught")
    return 0.0 if planted == 0 else 1 - share_bound(planted - caught, planted, 1 - alpha)


def sample_needed(target: float, *, failures: int = 0, alpha: float = ALPHA) -> int:
    """How many must be read so that so many failures among them still show a share of at most ``target``."""
    read = failures + 1
    while share_bound(failures, read, 1 - alpha) > target:
        read += 1
    return read


def _chance_of_at_most(failures: int, read: int, bad: int, pool: int) -> float:
    """Chance that a sample without replacement holds at most so many of the ``bad`` ones."""
    counts = np.arange(max(0, read - (pool - bad)), min(failures, bad, read) + 1)
    logs = [_log_choose(bad, int(k)) + _log_choose(pool - bad, read - int(k)) for k in counts]
    return float(sum(np.exp(value - _log_choose(pool, read)) for value in logs))


def _log_choose(all_of: int, some: int) -> float:
    if some in (0, all_of):
        return 0.0
    if some == 1:
        return log(all_of)
    return lgamma(all_of + 1) - lgamma(some + 1) - lgamma(all_of - some + 1)
