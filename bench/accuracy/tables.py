"""Arms side by side, as Markdown: means, deviations over seeds, intervals by patient, paired differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bench.accuracy.intervals import Estimate, by_seed, estimate, paired_difference, patients_in, values_of
from bench.accuracy.results import Arm, Result, how, structures_of
from bench.figures import markdown
from segfw.base.words import count
from segfw.evaluation.metrics import METRICS

ALONE = 0.9  # of its cores' time; what is left waits for files, and in the last step of a thread for the others


def tables(
    results: Sequence[Result], *, against: str | None = None, metric: str = "dice", draws_seeds: bool = False
) -> str:
    """A table for each data set, minutes and cores, with a line for each arm in the order of the results.

    Intervals are by patient, with ``draws_seeds`` by patient and seed.
    """
    groups: dict[tuple, list[Result]] = {}
    for result in results:
        groups.setdefault(result.group, []).append(result)
    return "\n\n".join(table(found, against, metric, draws_seeds) for found in groups.values())


def table(results: Sequence[Result], against: str | None, metric: str, draws_seeds: bool) -> str:
    """One table: all results are of one data set and length."""
    structures = structures_of(results)
    by_arm: dict[str, list[Result]] = {}
    for result in results:
        by_arm.setdefault(result.arm.name, []).append(result)
    head = ["arm", "trained", "steps", "folds x seeds", "cases (patients)", METRICS[metric].with_unit, "sd of seeds"]
    head += ["95 % interval", *([f"minus {against}", "95 % interval"] if against else []), *structures]
    rows = []
    for name, found in by_arm.items():
        values = by_seed([(result.seed, values_of(result, structures, metric)) for result in found])
        whole = estimate(values, patients_in(found), draws_runs=draws_seeds)
        row = [name, _trained(found), _steps(found), _runs(found), f"{whole.cases} ({whole.patients})"]
        row += [_number(whole.mean), _deviation(found, structures, metric), _interval(whole, "{:.4f}")]
        if against:
            reference = by_arm.get(against, [])
            row += ["", ""] if name == against else _difference(found, reference, structures, metric, draws_seeds)
        rows.append([*row, *(_number(mean) for mean in whole.of_structures)])
    title = f"### {results[0].data_set}, {results[0].minutes:g} core-minutes on {count(results[0].cores, 'core')}"
    return "\n\n".join([title, markdown([head, *rows]), *_notes(by_arm)])


def seed_means(results: Sequence[Result], structures: Sequence[str], metric: str) -> list[float]:
    """The mean of each seed over the folds that all of them have; none where there is no such fold."""
    folds_of: dict[int, dict[str, Result]] = {}
    for result in results:
        folds_of.setdefault(result.seed, {})[result.fold] = result
    common = set.intersection(*(set(folds) for folds in folds_of.values()))
    means = []
    for folds in folds_of.values():
        several = [values_of(result, structures, metric) for fold, result in folds.items() if fold in common]
        if several:
            merged = {case: value for values in several for case, value in values.items()}
            means.append(estimate([merged], patients_in(results)).mean)
    return means


def _deviation(results: Sequence[Result], structures: Sequence[str], metric: str) -> str:
    means = seed_means(results, structures, metric)
    return f"{statistics.stdev(means):.4f}" if len(means) > 1 else "-"


def _difference(
    results: Sequence[Result], reference: Sequence[Result], structures: Sequence[str], metric: str, draws_seeds: bool
) -> list[str]:
    """Two cells, with dashes where no run is paired."""
    found = paired_difference(results, reference, structures, metric, draws_runs=draws_seeds)
    return ["-", "-"] if found is None else [f"{found.mean:+.4f}", _interval(found, "{:+.4f}")]


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _interval(found: Estimate, form: str) -> str:
    if found.low is None or found.high is None:
        return "- (few patients)"
    return f"{form.format(found.low)} to {form.format(found.high)}"


def _trained(results: Sequence[Result]) -> str:
    """'3d_fullres 40x56x40', each that there is."""
    kinds = (f"{result.configuration} {'x'.join(map(str, result.patch))}" for result in results)
    return ", ".join(dict.fromkeys(kinds))


def _steps(results: Sequence[Result]) -> str:
    """The median, and the range where there is one."""
    steps = [result.steps for result in results]
    text = f"{statistics.median(steps):.0f}"
    return text if min(steps) == max(steps) else f"{text} ({min(steps)} to {max(steps)})"


def _runs(results: Sequence[Result]) -> str:
    """'1 x 3', or how many runs there are where not every fold has every seed."""
    folds = {result.fold for result in results}
    seeds = {result.seed for result in results}
    text = f"{len(folds)} x {len(seeds)}"
    return text if len(results) == len(folds) * len(seeds) else f"{text}, {len(results)} done"


def _notes(by_arm: dict[str, list[Result]]) -> list[str]:
    """What the arms are and what they were computed by, and what a reader must know before comparing them."""
    arms: dict[str, Arm] = {name: found[0].arm for name, found in by_arm.items()}
    lines = [f"- {name}: {how(arm)}{_commits(by_arm[name])}" for name, arm in arms.items()]
    results = [result for found in by_arm.values() for result in found]
    machines = dict.fromkeys(f"{result.processor}, {result.device}, {result.precision}" for result in results)
    lines.append(f"- computed by {'; '.join(machines)}")
    if len(machines) > 1:
        lines.append("- not all by the same processor in the same precision: equal minutes are not equal work")
    shares = [result.core_share for result in results if result.core_share is not None]
    shared = [share for share in shares if share < ALONE]
    if shared:
        lines.append(
            f"- {len(shared)} of {count(len(results), 'run')} had less than {ALONE:.0%} of their cores (down to "
            f"{min(shared):.0%}), because other programs used them: minutes are no measure there"
        )
    return ["\n".join(lines)]


def _commits(results: Sequence[Result]) -> str:
    names = dict.fromkeys(
        f"{result.commit[:8] or 'no commit'}{' with changes' if result.is_changed else ''}" for result in results
    )
    return f" ({', '.join(names)})"
