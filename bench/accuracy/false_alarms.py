"""How often the comparison of two arms sees a difference where there is none: one arm is split into two.

Every two groups of runs of one arm are compared as two arms would be, by case and with patients drawn anew. An honest
95 % interval leaves 0 out in 5 % of them. The groups overlap, so that the share is less sure than as many
independent comparisons would make it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from bench.accuracy.intervals import differences, estimate, patients_in, values_of
from bench.accuracy.results import Result, structures_of
from bench.figures import markdown
from segfw.base.records import UserError

MOST_SPLITS = 500  # compared of all that there are; drawn, lest runs that come first are in most
ACCEPTED = 0.08  # of the intervals may leave out 0

Split = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Alarms:
    """What came of comparing groups of ``runs`` runs each; ``draws_runs`` is how intervals were made."""

    runs: int
    draws_runs: bool
    comparisons: int
    false: int

    @property
    def share(self) -> float:
        """Of the comparisons that saw a difference."""
        return self.false / self.comparisons


def splits(number: int, size: int) -> Iterator[Split]:
    """Every way to take two groups of ``size`` out of ``number`` runs, each pair of groups once."""
    for first in combinations(range(number), size):
        rest = [run for run in range(number) if run not in first]
        for second in combinations(rest, size):
            if first < second:
                yield first, second


def drawn_splits(number: int, size: int, *, seed: int = 0) -> list[Split]:
    """All splits, or as many as MOST_SPLITS of them."""
    found = list(splits(number, size))
    if len(found) <= MOST_SPLITS:
        return found
    chosen = np.random.default_rng(seed).choice(len(found), MOST_SPLITS, replace=False)
    return [found[index] for index in sorted(chosen)]


def false_alarms(results: Sequence[Result], size: int, metric: str = "dice", *, draws_runs: bool = False) -> Alarms:
    """Compares groups of ``size`` runs; all results are of one arm, data set and fold and differ in their seeds.

    Intervals are by patient, with ``draws_runs`` by patient and run.
    Raises UserError if there are too few.
    """
    if len(results) < 2 * size:
        raise UserError(f"{len(results)} runs cannot be split into two groups of {size}; give more --seeds")
    structures = structures_of(results)
    patients = patients_in(results)
    values = [values_of(result, structures, metric) for result in results]
    found = []
    for first, second in drawn_splits(len(results), size):
        pairs = [differences(values[one], values[two], metric) for one, two in zip(first, second)]
        found.append(estimate(pairs, patients, draws_runs=draws_runs))
    return Alarms(
        runs=size,
        draws_runs=draws_runs,
        comparisons=len(found),
        false=sum(each.excludes_zero for each in found),
    )


def table(alarms: Sequence[Alarms]) -> str:
    """As Markdown."""
    head = ["runs in an arm", "drawn anew", "comparisons", "intervals without 0", "share", f"at most {ACCEPTED:.0%}"]
    rows = []
    for each in alarms:
        drawn = "patients and seeds" if each.draws_runs else "patients"
        counted = [str(each.comparisons), str(each.false), f"{each.share:.1%}"]
        rows.append([str(each.runs), drawn, *counted, "yes" if each.share <= ACCEPTED else "no"])
    return markdown([head, *rows])
