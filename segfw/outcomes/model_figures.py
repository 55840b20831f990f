"""How good probabilities are: discrimination, calibration and what a decision by them gains."""

# R repeats, N patients, E with the event and U without it, B bootstrap samples

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BOOTSTRAPS = 2000
CONFIDENCE = (2.5, 97.5)  # percent
THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(1, 100))  # fixed before anything is seen
EXTREME = 1e-6  # probabilities beyond it are taken for it where log odds are needed


class Interval(NamedTuple):
    """Its ends."""

    low: float
    high: float


def auc(scores_rn: np.ndarray, has_event_n: np.ndarray) -> float:
    """The share of pairs in which the patient with the event has the larger score; ties count a half.

    The mean of all repeats. Scores are not averaged over repeats before: that judges the average of many models where
    one is handed on, and told 0.754 for 0.737 of a simulated signal (``python -m bench outcome``).
    """
    return float(_wins(scores_rn, has_event_n).mean())


def auc_interval(scores_rn: np.ndarray, has_event_n: np.ndarray, seed: int = 0) -> Interval:
    """Bootstrap over patients, each with all of his repeats."""
    return _ends(_bootstrapped(_wins(scores_rn, has_event_n), has_event_n, seed))


def auc_gain(
    first_rn: np.ndarray, second_rn: np.ndarray, has_event_n: np.ndarray, seed: int = 0
) -> tuple[float, Interval]:
    """By how much the second scores are better, and the bootstrap's interval over the same patients."""
    gain_eu = _wins(second_rn, has_event_n) - _wins(first_rn, has_event_n)
    return float(gain_eu.mean()), _ends(_bootstrapped(gain_eu, has_event_n, seed))


def _wins(scores_rn: np.ndarray, has_event_n: np.ndarray) -> np.ndarray:
    """(E, U): 1 where the patient with the event has the larger score, a half where they are the same; over repeats."""
    total_eu = np.zeros((int(has_event_n.sum()), int((~has_event_n).sum())))
    for scores_n in scores_rn:
        total_eu += np.sign(scores_n[has_event_n][:, None] - scores_n[~has_event_n][None])
    return (total_eu / len(scores_rn) + 1) / 2


def _bootstrapped(pairs_eu: np.ndarray, has_event_n: np.ndarray, seed: int) -> np.ndarray:
    """(B,) means of pairs of patients drawn again; draws without one of the outcomes are left out."""
    patients = len(has_event_n)
    rng = np.random.default_rng(seed)
    times_bn = rng.multinomial(patients, np.full(patients, 1 / patients), size=BOOTSTRAPS)
    times_be = times_bn[:, has_event_n]
    times_bu = times_bn[:, ~has_event_n]
    pairs_b = times_be.sum(1) * times_bu.sum(1)
    sums_b = ((times_be @ pairs_eu) * times_bu).sum(1)
    return sums_b[pairs_b > 0] / pairs_b[pairs_b > 0]


def _ends(values_b: np.ndarray) -> Interval:
    low, high = np.percentile(values_b, CONFIDENCE)
    return Interval(low=float(low), high=float(high))


def brier(probabilities_n: np.ndarray, has_event_n: np.ndarray) -> float:
    """Mean squared distance of probability and outcome."""
    return float(((probabilities_n - has_event_n) ** 2).mean())


class Calibration(NamedTuple):
    """``intercept``: log odds by which probabilities are too low on the whole, at slope 1. ``slope``: below 1 where
    probabilities are too extreme; None where all are the same."""

    intercept: float
    slope: float | None


def calibration(probabilities_n: np.ndarray, has_event_n: np.ndarray) -> Calibration:
    """By logistic regression of the outcome on the log odds of the probabilities (Van Calster et al. 2016)."""
    clipped_n = np.clip(probabilities_n, EXTREME, 1 - EXTREME)
    log_odds_n = np.log(clipped_n / (1 - clipped_n))
    ones_n1 = np.ones((len(log_odds_n), 1))
    intercept = _logistic(ones_n1, has_event_n, offset_n=log_odds_n)[0]
    slope = None
    if np.ptp(log_odds_n) > 1e-9:
        centred_n = log_odds_n - log_odds_n.mean()
        slope = _logistic(np.column_stack([ones_n1[:, 0], centred_n]), has_event_n, offset_n=0 * log_odds_n)[1]
    return Calibration(intercept=intercept, slope=slope)


def _logistic(values_nk: np.ndarray, has_event_n: np.ndarray, offset_n: np.ndarray) -> list[float]:
    """Weights of greatest likelihood by Newton's steps, each made shorter until the likelihood grows."""
    weights_k = np.zeros(values_nk.shape[1])
    loss = _loss(values_nk @ weights_k + offset_n, has_event_n)
    for _ in range(50):
        log_odds_n = values_nk @ weights_k + offset_n
        share_n = 1 / (1 + np.exp(-np.clip(log_odds_n, -500, 500)))
        gradient_k = values_nk.T @ (has_event_n - share_n)
        curvature_kk = (values_nk.T * (share_n * (1 - share_n))) @ values_nk
        step_k = np.linalg.lstsq(curvature_kk, gradient_k, rcond=None)[0]
        while np.abs(step_k).max() > 1e-10:
            shorter = _loss(values_nk @ (weights_k + step_k) + offset_n, has_event_n)
            if shorter <= loss:
                break
            step_k = step_k / 2
        if np.abs(step_k).max() <= 1e-10:
            break
        weights_k = weights_k + step_k
        loss = shorter
    return [float(weight) for weight in weights_k]


def _loss(log_odds_n: np.ndarray, has_event_n: np.ndarray) -> float:
    return float(np.logaddexp(0, np.where(has_event_n, -log_odds_n, log_odds_n)).sum())


def net_benefit(
    probabilities_n: np.ndarray, has_event_n: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> np.ndarray:
    """Of treating whoever has at least the threshold: TP / n - FP / n x t / (1 - t) (Vickers and Elkin 2006)."""
    treated_tn = probabilities_n[None] >= np.array(thresholds)[:, None]
    odds_t = np.array(thresholds) / (1 - np.array(thresholds))
    true_t = (treated_tn & has_event_n).mean(1)
    false_t = (treated_tn & ~has_event_n).mean(1)
    return true_t - false_t * odds_t


def mean_net_benefit(probabilities_rn: np.ndarray, has_event_n: np.ndarray) -> np.ndarray:
    """Net benefit at each threshold, the mean of all repeats."""
    curves = [net_benefit(row, has_event_n) for row in probabilities_rn]
    found: np.ndarray = np.mean(curves, axis=0)
    return found


def net_benefit_of_all(has_event_n: np.ndarray, thresholds: Sequence[float] = THRESHOLDS) -> np.ndarray:
    """Of treating everybody; of treating nobody it is 0."""
    return net_benefit(np.ones(len(has_event_n)), has_event_n, thresholds)


def roc_curve(scores_n: np.ndarray, has_event_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive shares at every score, from (0, 0) to (1, 1)."""
    limits = np.unique(scores_n)[::-1]
    false = [0.0, *((scores_n[~has_event_n] >= limit).mean() for limit in limits)]
    true = [0.0, *((scores_n[has_event_n] >= limit).mean() for limit in limits)]
    return np.array(false), np.array(true)
