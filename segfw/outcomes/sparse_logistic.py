"""Logistic regression with an L1 penalty, whose strength inner folds choose; many small problems at once.

A permutation test fits thousands of models of few features. One by one they cost a hundred times as much.
"""

# B problems, N patients, K features, M = K + 1 with the intercept last, L penalties, P orders of outcomes, F folds

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segfw.outcomes.patient_folds import events_of, stratified_folds

INNER_FOLDS = 5
PENALTIES = 12  # on the way from the one that leaves no feature
WEAKEST = 10**-2.5  # of the strongest
MOST_STEPS = 50
MOST_SWEEPS = 200
ABOVE_ROUNDING = 1 + 1e-6  # so that the strongest penalty leaves no weight of 1e-16
TOLERANCE = 1e-7  # of weights, per standard deviation


@dataclass(frozen=True, kw_only=True)
class InnerSplits:
    """Each order of outcomes as F + 1 problems: one without each inner fold, and the last with all patients.

    ``counts_bn`` is 1 for the patients that count. B is P x (F + 1), order by order.
    """

    has_event_bn: np.ndarray
    counts_bn: np.ndarray
    folds: int

    @staticmethod
    def of(has_event_pn: np.ndarray, rng: np.random.Generator) -> InnerSplits:
        """Inner folds of each row of outcomes, all of which have the same number of events."""
        folds = min(INNER_FOLDS, events_of(has_event_pn[0]))
        counts = []
        for row in has_event_pn:
            fold_n = stratified_folds(row, folds, rng)
            counts += [fold_n != fold for fold in range(folds)]
            counts.append(np.ones(len(row), bool))
        return InnerSplits(
            has_event_bn=np.repeat(has_event_pn, folds + 1, axis=0),
            counts_bn=np.array(counts, dtype=np.float64),
            folds=folds,
        )


def fitted_weights(values_bnk: np.ndarray, splits: InnerSplits) -> tuple[np.ndarray, np.ndarray]:
    """Weights (P, K) of standardised features and intercepts (P,) of all patients, by the penalty of least inner loss.

    Penalties are shares of the one that leaves no feature; of those that are as good the strongest is taken.
    """
    orders = len(values_bnk) // (splits.folds + 1)
    features = values_bnk.shape[2]
    by_order = (PENALTIES, orders, splits.folds + 1)
    outcome_bn = splits.counts_bn * (splits.has_event_bn - _shares(splits)[:, None])
    slopes_bk = np.matmul(outcome_bn[:, None], values_bnk)[:, 0] / splits.counts_bn.sum(1, keepdims=True)
    strongest_b = np.maximum(np.abs(slopes_bk).max(1, initial=0), 1e-9) * ABOVE_ROUNDING
    penalties_lb = strongest_b * np.geomspace(1, WEAKEST, PENALTIES)[:, None]
    weights_lbk, intercept_lb = l1_path(values_bnk, splits.has_event_bn, splits.counts_bn, penalties_lb)

    # The loss of every patient by the fold that left him out
    loss_lb = np.empty(intercept_lb.shape)
    for place, weights_bk in enumerate(weights_lbk):
        log_odds_bn = _products(values_bnk, weights_bk) + intercept_lb[place][:, None]
        loss_bn = np.logaddexp(0, np.where(splits.has_event_bn, -log_odds_bn, log_odds_bn))
        loss_lb[place] = (loss_bn * (1 - splits.counts_bn)).sum(1)
    loss_lp = loss_lb.reshape(by_order).sum(2)
    best_p = (loss_lp <= loss_lp.min(0) + 1e-9).argmax(0)
    order_p = np.arange(orders)
    weights_lpfk = weights_lbk.reshape(*by_order, features)
    return weights_lpfk[best_p, order_p, -1], intercept_lb.reshape(by_order)[best_p, order_p, -1]


def _shares(splits: InnerSplits) -> np.ndarray:
    """Of events (B,) among the patients that count."""
    found: np.ndarray = (splits.counts_bn * splits.has_event_bn).sum(1) / splits.counts_bn.sum(1)
    return found


def l1_path(
    values_bnk: np.ndarray, has_event_bn: np.ndarray, counts_bn: np.ndarray, penalties_lb: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (L, B, K) and intercepts (L, B) that make mean loss + penalty x sum of |weights| least.

    ``counts_bn`` is how often each patient counts. Newton's steps, as in glmnet (Friedman et al. 2010), each penalty
    from the weights of the one before; a step that makes it worse is halved.
    """
    problems, patients, features = values_bnk.shape
    values_bnm = np.concatenate([values_bnk, np.ones((problems, patients, 1))], axis=2)
    counts_bn = counts_bn / counts_bn.sum(1, keepdims=True)
    share_b = (counts_bn * has_event_bn).sum(1)
    weights_bm = np.zeros((problems, features + 1))
    weights_bm[:, -1] = np.log(share_b / (1 - share_b))
    found = []
    for penalty_b in penalties_lb:
        moving = np.arange(problems)
        for _ in range(MOST_STEPS):
            stepped_bm = _newton_step(
                values_bnm[moving], has_event_bn[moving], counts_bn[moving], penalty_b[moving], weights_bm[moving]
            )
            moved_b = np.abs(stepped_bm - weights_bm[moving]).max(1)
            weights_bm[moving] = stepped_bm
            moving = moving[moved_b > TOLERANCE]
            if not len(moving):
                break
        found.append(weights_bm.copy())
    weights_lbm = np.stack(found)
    return weights_lbm[:, :, :-1], weights_lbm[:, :, -1]


def _newton_step(
    values_bnm: np.ndarray,
    has_event_bn: np.ndarray,
    counts_bn: np.ndarray,
    penalty_b: np.ndarray,
    weights_bm: np.ndarray,
) -> np.ndarray:
    """The weights after one step."""
    from scipy.special import expit

    log_odds_bn = _products(values_bnm, weights_bm)
    share_bn = expit(log_odds_bn)
    gradient_bm = np.matmul((counts_bn * (share_bn - has_event_bn))[:, None], values_bnm)[:, 0]
    spread_bn = counts_bn * share_bn * (1 - share_bn)
    curvature_bmm = np.matmul(values_bnm.transpose(0, 2, 1), values_bnm * spread_bn[..., None])
    places = np.arange(curvature_bmm.shape[1])
    curvature_bmm[:, places, places] += 1e-9
    step_bm = _least_of_parabola(weights_bm, gradient_bm, curvature_bmm, penalty_b) - weights_bm
    before_b = _objective(log_odds_bn, has_event_bn, counts_bn, penalty_b, weights_bm)
    length_b1 = np.ones((len(penalty_b), 1))
    for _ in range(30):
        there_bm = weights_bm + length_b1 * step_bm
        log_odds_bn = _products(values_bnm, there_bm)
        is_worse_b = _objective(log_odds_bn, has_event_bn, counts_bn, penalty_b, there_bm) > before_b + 1e-12
        if not is_worse_b.any():
            break
        length_b1[is_worse_b] /= 2
    return weights_bm + length_b1 * step_bm


def _products(values_bnm: np.ndarray, weights_bm: np.ndarray) -> np.ndarray:
    """Log odds (B, N)."""
    return np.matmul(values_bnm, weights_bm[..., None])[..., 0]


def _objective(
    log_odds_bn: np.ndarray,
    has_event_bn: np.ndarray,
    counts_bn: np.ndarray,
    penalty_b: np.ndarray,
    weights_bm: np.ndarray,
) -> np.ndarray:
    """What is made least (B,)."""
    loss_bn = np.logaddexp(0, np.where(has_event_bn, -log_odds_bn, log_odds_bn))
    return (counts_bn * loss_bn).sum(1) + penalty_b * np.abs(weights_bm[:, :-1]).sum(1)


def _least_of_parabola(
    weights_bm: np.ndarray, gradient_bm: np.ndarray, curvature_bmm: np.ndarray, penalty_b: np.ndarray
) -> np.ndarray:
    """Where the second-order expansion about ``weights_bm`` plus the penalty is least: coordinate by coordinate."""
    there_bm = weights_bm.copy()
    slope_bm = gradient_bm.copy()
    last = weights_bm.shape[1] - 1
    for _ in range(MOST_SWEEPS):
        most_moved = 0.0
        for place in (last, *range(last)):
            steepness_b = curvature_bmm[:, place, place]
            free_b = there_bm[:, place] - slope_bm[:, place] / steepness_b
            reach_b = penalty_b / steepness_b if place != last else 0.0
            moved_b = np.sign(free_b) * np.maximum(np.abs(free_b) - reach_b, 0) - there_bm[:, place]
            there_bm[:, place] += moved_b
            slope_bm += curvature_bmm[:, :, place] * moved_b[:, None]
            most_moved = max(most_moved, float(np.abs(moved_b).max()))
        if most_moved < TOLERANCE / 10:
            break
    return there_bm
