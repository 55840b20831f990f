"""Whether ``segfw outcome`` finds nothing in noise, and what is there in a simulated signal: numbers, no images.

    python -m bench outcome noise [--runs 100]
    python -m bench outcome signal [--runs 100]
    python -m bench outcome table

Noise: 100 patients, 300 features that have nothing to do with an outcome. Each run tells p from 99 permutations of one
repeat, the AUC of that repeat, and the AUC of the wrong way, which chooses 10 features on all patients and
cross-validates afterwards. Of 100 runs 1 to 11 may have p < 0.05 (two standard errors about 5).
Signal: 200 patients, 100 features of which three make the outcome; the true AUC and calibration of the frozen model are
told on 20 000 new patients, and whether the interval of held-out patients holds that AUC.
Every run adds a line to bench/results/outcome.jsonl; runs that are there are not done again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from bench.figures import columns
from bench.result_lines import append_line, sourced_lines
from bench.subcommands import RESULTS
from segfw.base.progress import progress
from segfw.base.records import Record
from segfw.outcomes.feature_choice import f_statistics
from segfw.outcomes.fitting_models import FittedModels, fitted_models, training_part
from segfw.outcomes.model_figures import auc, calibration
from segfw.outcomes.nested_validation import fold_of, permutation_tests, probability, validate
from segfw.outcomes.outcome_report import model_figures
from segfw.outcomes.sparse_logistic import InnerSplits, fitted_weights

KEPT = RESULTS / "outcome.jsonl"
PATIENTS = 100
FEATURES = 300
PERMUTATIONS = 99
CHOSEN_BEFORE = 10  # of the wrong way
SIGNAL_PATIENTS = 200
SIGNAL_FEATURES = 100
NEW_PATIENTS = 20_000
ONLY = ("features",)


class NoiseRun(Record):
    """One data set of noise."""

    kind: Literal["noise"] = "noise"
    seed: int
    p: float
    auc: float
    auc_chosen_before: float


class SignalRun(Record):
    """One data set with a signal: held-out figures, and the truth of the frozen model on new patients."""

    kind: Literal["signal"] = "signal"
    seed: int
    auc: float
    auc_low: float
    auc_high: float
    slope: float | None
    auc_of_mean_scores: float  # the other way to bring repeats together
    true_auc: float
    true_slope: float | None
    p: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench outcome", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("noise", "signal", "table"))
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--results", type=Path, default=KEPT)
    args = parser.parse_args(arguments)
    if args.what != "table":
        _run(args.what, {"noise": noise_run, "signal": signal_run}[args.what], args.runs, args.results)
    print(table(read_runs(args.results)))


def _run(kind: str, run: Callable[[int], Record], runs: int, results: Path) -> None:
    done = {each.seed for each in read_runs(results) if each.kind == kind}
    for seed in progress(kind, [seed for seed in range(runs) if seed not in done]):
        append_line(results, run(seed))


def read_runs(results: Path) -> list[NoiseRun | SignalRun]:
    """All lines of a file of results."""
    found: list[NoiseRun | SignalRun] = []
    for source, line in sourced_lines(results):
        record = NoiseRun if b'"noise"' in line else SignalRun
        found.append(record.parse(line, source))
    return found


def noise_run(seed: int, permutations: int = PERMUTATIONS) -> NoiseRun:
    """p and AUC of features that mean nothing, the right way and the wrong one."""
    rng = np.random.default_rng(seed)
    values_nd = rng.normal(size=(PATIENTS, FEATURES))
    has_event_n = rng.random(PATIENTS) < 0.5
    test = permutation_tests(values_nd, 0, has_event_n, ONLY, permutations=permutations)["features"]
    return NoiseRun(seed=seed, p=test.p, auc=test.observed, auc_chosen_before=auc_chosen_before(values_nd, has_event_n))


def auc_chosen_before(values_nd: np.ndarray, has_event_n: np.ndarray) -> float:
    """The wrong way: the ten features of largest F among all patients, then cross-validation of these alone."""
    everybody = np.ones((1, len(has_event_n)))
    best = np.argsort(-f_statistics(values_nd, has_event_n[None], everybody)[0])[:CHOSEN_BEFORE]
    standard_nk = (values_nd[:, best] - values_nd[:, best].mean(0)) / values_nd[:, best].std(0)
    fold_n = fold_of(has_event_n, 0)
    scores_n = np.empty(len(has_event_n))
    for fold in range(int(fold_n.max()) + 1):
        is_out_n = fold_n == fold
        splits = InnerSplits.of(has_event_n[None, ~is_out_n], np.random.default_rng(fold))
        training_bnk = np.repeat(standard_nk[None, ~is_out_n], splits.folds + 1, axis=0)
        weights_pk, intercept_p = fitted_weights(training_bnk, splits)
        scores_n[is_out_n] = standard_nk[is_out_n] @ weights_pk[0] + intercept_p[0]
    return auc(scores_n[None], has_event_n)


def simulated(rng: np.random.Generator, patients: int, strength: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Features and outcomes: three of the features make it, ten others are like them by 0.7."""
    values_nd = rng.normal(size=(patients, SIGNAL_FEATURES))
    values_nd[:, 10:20] = 0.7 * values_nd[:, :10] + 0.71 * values_nd[:, 10:20]
    log_odds_n = strength * (1.0 * values_nd[:, 0] + 0.7 * values_nd[:, 1] - 0.5 * values_nd[:, 2]) - 0.5
    return values_nd, rng.random(patients) < probability(log_odds_n)


def signal_run(seed: int) -> SignalRun:
    """What is said of a frozen model from held-out patients, and what is true of it."""
    rng = np.random.default_rng(seed)
    values_nd, has_event_n = simulated(rng, SIGNAL_PATIENTS)
    new_nd, new_event_n = simulated(rng, NEW_PATIENTS)
    found = validate(values_nd, 0, has_event_n, ONLY).probabilities["features"]
    test = permutation_tests(values_nd, 0, has_event_n, ONLY, permutations=19)["features"]
    figures = model_figures(found, has_event_n)
    model: FittedModels = fitted_models(training_part(values_nd, 0), has_event_n[None], ONLY, 7)["features"]
    told_n = probability(model.log_odds(new_nd)[0])
    return SignalRun(
        seed=seed,
        auc=figures.auc,
        auc_low=figures.auc_low,
        auc_high=figures.auc_high,
        slope=figures.calibration_slope,
        auc_of_mean_scores=auc(found.mean(0, keepdims=True), has_event_n),
        true_auc=auc_of_many(told_n, new_event_n),
        true_slope=calibration(told_n, new_event_n).slope,
        p=test.p,
    )


def auc_of_many(scores_n: np.ndarray, has_event_n: np.ndarray) -> float:
    """By ranks, for patients whose pairs would not fit into memory."""
    from scipy.stats import mannwhitneyu

    wins = mannwhitneyu(scores_n[has_event_n], scores_n[~has_event_n]).statistic
    return float(wins / has_event_n.sum() / (~has_event_n).sum())


def table(runs: Sequence[NoiseRun | SignalRun]) -> str:
    """Figures of all runs that are there."""
    parts = []
    noise = [run for run in runs if isinstance(run, NoiseRun)]
    if noise:
        small = sum(run.p < 0.05 for run in noise)
        rows = [["noise", "mean AUC", "2.5 %", "97.5 %"]]
        for title, values in (
            ("chosen inside of training parts", [run.auc for run in noise]),
            ("chosen on all patients before", [run.auc_chosen_before for run in noise]),
        ):
            low, high = np.percentile(values, (2.5, 97.5))
            rows.append([title, *(f"{value:.3f}" for value in (np.mean(values), low, high))])
        parts.append(f"{columns(rows)}\np < 0.05 in {small} of {len(noise)} runs ({100 * small / len(noise):.1f} %)")
    signal = [run for run in runs if isinstance(run, SignalRun)]
    if signal:
        covered = sum(run.auc_low <= run.true_auc <= run.auc_high for run in signal)
        rows = [["signal", "mean", "standard deviation"]]
        for title, numbers in (
            ("AUC told", [run.auc for run in signal]),
            ("AUC of scores averaged over repeats", [run.auc_of_mean_scores for run in signal]),
            ("true AUC of the frozen model", [run.true_auc for run in signal]),
            ("slope told", [run.slope for run in signal if run.slope is not None]),
            ("true slope of the frozen model", [run.true_slope for run in signal if run.true_slope is not None]),
        ):
            rows.append([title, f"{np.mean(numbers):.3f}", f"{np.std(numbers):.3f}"])
        parts.append(f"{columns(rows)}\n95 % interval holds the true AUC in {covered} of {len(signal)} runs")
    return "\n\n".join(parts)
