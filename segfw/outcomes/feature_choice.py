"""Which features a model may take, told from training patients alone."""

# N patients, U features, B rows of outcomes, K chosen features

from __future__ import annotations

import numpy as np

SAME_SHARE = 0.95  # of patients with one and the same value make a feature nearly constant
MOST_MISSING = 0.2  # of patients without a value
ALIKE = 0.95  # rank correlation, either way, from which on two features are one
FEWEST_CHOSEN = 3
EVENTS_PER_FEATURE = 10
LEAST_REDUNDANCY = 1e-3  # mean |rho|, so that nothing is divided by 0


def most_features(events: int) -> int:
    """How many features so many events bear: one for ten of them, and at least 3."""
    return max(FEWEST_CHOSEN, events // EVENTS_PER_FEATURE)


def nearly_constant(values_nu: np.ndarray) -> np.ndarray:
    """Which features (U,) have one value in 95 % of patients or more, or differ by rounding alone."""
    patients = len(values_nu)
    many = int(np.ceil(SAME_SHARE * patients))
    ordered_nu = np.sort(values_nu, axis=0)
    # Of sorted values so many are the same if the first and the last of them are.
    repeats_u = (ordered_nu[many - 1 :] == ordered_nu[: patients - many + 1]).any(0)
    size_u = np.abs(ordered_nu).max(0)
    spread_u = ordered_nu[-1] - ordered_nu[0]
    return repeats_u | (spread_u <= 1e-12 * size_u)


def unit_ranks(values_nu: np.ndarray) -> np.ndarray:
    """Ranks about their mean, of length 1: a product of two columns is Spearman's rho."""
    from scipy.stats import rankdata

    ranks_nu = rankdata(values_nu, axis=0)
    ranks_nu -= ranks_nu.mean(0)
    length_u = np.sqrt((ranks_nu**2).sum(0))
    return ranks_nu / np.where(length_u > 0, length_u, 1)


def first_of_those_alike(ranks_nu: np.ndarray) -> np.ndarray:
    """Which features (U,) stay: in their order, each that is like none of those that stayed before it."""
    alike_uu = np.abs(ranks_nu.T @ ranks_nu) > ALIKE
    stays_u = np.ones(len(alike_uu), bool)
    for index in range(len(stays_u)):
        if stays_u[index]:
            stays_u[index + 1 :] &= ~alike_uu[index, index + 1 :]
    return stays_u


def f_statistics(values_nu: np.ndarray, has_event_bn: np.ndarray, counts_bn: np.ndarray) -> np.ndarray:
    """F (B, U) of an analysis of variance of each feature between the two outcomes, among the patients that count."""
    number_b1 = counts_bn.sum(1, keepdims=True)
    share_b1 = (counts_bn * has_event_bn).sum(1, keepdims=True) / number_b1
    mean_bu = counts_bn @ values_nu / number_b1
    spread_bu = counts_bn @ values_nu**2 / number_b1 - mean_bu**2
    common_bu = (counts_bn * (has_event_bn - share_b1)) @ values_nu / number_b1
    total_bu = spread_bu * share_b1 * (1 - share_b1)
    explained_bu = np.where(total_bu > 1e-12, common_bu**2 / np.maximum(total_bu, 1e-12), 0)
    return (number_b1 - 2) * explained_bu / np.maximum(1 - explained_bu, 1e-12)


def chosen_by_mrmr(
    values_nu: np.ndarray, ranks_nu: np.ndarray, has_event_bn: np.ndarray, counts_bn: np.ndarray, most: int
) -> np.ndarray:
    """Indices (B, K) of at most ``most`` features for each row of outcomes, as they were chosen one after the other.

    Minimum redundancy, maximum relevance: each time the one of largest F over its mean |rho| with those chosen
    before (Ding and Peng 2005; Zhao et al. 2019). Outcomes are looked at of those patients alone that count; rho, which
    knows no outcomes, is of all.
    """
    relevance_bu = f_statistics(values_nu, has_event_bn, counts_bn)
    problems, features = relevance_bu.shape
    redundancy_bu = np.zeros((problems, features))
    is_free_bu = np.ones((problems, features), bool)
    chosen: list[np.ndarray] = []
    while len(chosen) < min(most, features):
        mean_rho_bu = np.maximum(redundancy_bu / len(chosen), LEAST_REDUNDANCY) if chosen else 1.0
        best_b = np.argmax(np.where(is_free_bu, relevance_bu / mean_rho_bu, -1), axis=1)
        chosen.append(best_b)
        is_free_bu[np.arange(problems), best_b] = False
        redundancy_bu += np.abs(ranks_nu[:, best_b].T @ ranks_nu)
    return np.array(chosen, dtype=np.int64).reshape(len(chosen), problems).T
