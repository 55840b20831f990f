"""Nested cross-validation: outer folds judge, and all that is chosen is chosen inside their training parts."""

# N patients, D columns, R repeats, P orders of outcomes

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from segfw.outcomes.fitting_models import FittedModels, ModelName, TrainingPart, fitted_models, training_part
from segfw.outcomes.model_figures import auc
from segfw.outcomes.patient_folds import events_of, permuted_in_folds, stratified_folds

OUTER_FOLDS = 5
REPEATS = 10
MOST_VALUES = 1_000_000  # of all orders of outcomes that are fitted at the same time

Progress = Callable[[str, Sequence[int]], Iterable[int]]


def without_progress(_: str, steps: Sequence[int]) -> Iterable[int]:
    """Says nothing."""
    return steps


@dataclass(frozen=True, kw_only=True)
class OuterFold:
    """One training part, without its outcomes, and the patients that are held out of it."""

    trained: np.ndarray
    held_out: np.ndarray
    part: TrainingPart


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Held-out probabilities of each model (R, N), and all models that were fitted for them."""

    probabilities: dict[ModelName, np.ndarray]
    models: dict[ModelName, tuple[FittedModels, ...]]


def outer_folds(values_nd: np.ndarray, covariates: int, fold_n: np.ndarray) -> list[OuterFold]:
    """All that does not look at outcomes, once for each fold."""
    folds = []
    for fold in range(int(fold_n.max()) + 1):
        trained = np.flatnonzero(fold_n != fold)
        held_out = np.flatnonzero(fold_n == fold)
        part = training_part(values_nd[trained], covariates)
        folds.append(OuterFold(trained=trained, held_out=held_out, part=part))
    return folds


def held_out_probabilities(
    folds: Sequence[OuterFold],
    values_nd: np.ndarray,
    has_event_pn: np.ndarray,
    names: Sequence[ModelName],
    seed: int,
) -> tuple[dict[ModelName, np.ndarray], list[dict[ModelName, FittedModels]]]:
    """Of every patient (P, N) by the models that were fitted without him, and these models fold by fold."""
    probabilities = {name: np.empty(has_event_pn.shape) for name in names}
    fitted = []
    for number, fold in enumerate(folds):
        models = fitted_models(fold.part, has_event_pn[:, fold.trained], names, seed + number)
        for name, model in models.items():
            probabilities[name][:, fold.held_out] = probability(model.log_odds(values_nd[fold.held_out]))
        fitted.append(models)
    return probabilities, fitted


def probability(log_odds: np.ndarray) -> np.ndarray:
    """Of log odds, also far from 0."""
    from scipy.special import expit

    found: np.ndarray = expit(log_odds)
    return found


def validate(
    values_nd: np.ndarray,
    covariates: int,
    has_event_n: np.ndarray,
    names: Sequence[ModelName],
    *,
    repeats: int = REPEATS,
    progress: Progress = without_progress,
) -> Validation:
    """Every patient is held out once in each repeat."""
    rows: dict[ModelName, list[np.ndarray]] = {name: [] for name in names}
    models: dict[ModelName, list[FittedModels]] = {name: [] for name in names}
    for repeat in progress("cross-validating", range(repeats)):
        folds = outer_folds(values_nd, covariates, fold_of(has_event_n, repeat))
        found, fitted = held_out_probabilities(folds, values_nd, has_event_n[None], names, seed=1000 * repeat)
        for name in names:
            rows[name].append(found[name][0])
            models[name] += [each[name] for each in fitted]
    return Validation(
        probabilities={name: np.stack(rows[name]) for name in names},
        models={name: tuple(models[name]) for name in names},
    )


def fold_of(has_event_n: np.ndarray, repeat: int) -> np.ndarray:
    """The outer fold of each patient in a repeat; fewer folds where there are fewer events."""
    folds = min(OUTER_FOLDS, events_of(has_event_n))
    return stratified_folds(has_event_n, folds, np.random.default_rng((repeat, 1)))


@dataclass(frozen=True, kw_only=True)
class PermutationTest:
    """AUC of one repeat, and those of permuted outcomes."""

    observed: float
    permuted: tuple[float, ...]

    @property
    def p(self) -> float:
        """The share of all orders whose AUC is as large, the true one among them, so that it is never 0."""
        as_large = sum(each >= self.observed - 1e-12 for each in self.permuted)
        return (1 + as_large) / (1 + len(self.permuted))


def permutation_tests(
    values_nd: np.ndarray,
    covariates: int,
    has_event_n: np.ndarray,
    names: Sequence[ModelName],
    *,
    permutations: int,
    progress: Progress = without_progress,
) -> dict[ModelName, PermutationTest]:
    """The first repeat, all of it done again with outcomes dealt anew inside of each outer fold."""
    fold_n = fold_of(has_event_n, 0)
    folds = outer_folds(values_nd, covariates, fold_n)
    rng = np.random.default_rng(2)
    orders = [has_event_n, *(permuted_in_folds(has_event_n, fold_n, rng) for _ in range(permutations))]
    aucs: dict[ModelName, list[float]] = {name: [] for name in names}
    at_once = max(1, MOST_VALUES // values_nd.size)
    for start in progress("permuting", range(0, len(orders), at_once)):
        has_event_pn = np.stack(orders[start : start + at_once])
        found, _ = held_out_probabilities(folds, values_nd, has_event_pn, names, seed=1000 * start)
        for name in names:
            aucs[name] += [auc(scores_n[None], outcome_n) for scores_n, outcome_n in zip(found[name], has_event_pn)]
    return {name: PermutationTest(observed=each[0], permuted=tuple(each[1:])) for name, each in aucs.items()}
