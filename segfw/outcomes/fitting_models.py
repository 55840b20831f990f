"""The three models of an outcome, each fitted on training patients alone: of covariates, of features, and of both."""

# N patients, D columns: covariates first, then features; P orders of outcomes, B inner
# splits of them, K columns of a model

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segfw.outcomes.feature_choice import (
    MOST_MISSING,
    chosen_by_mrmr,
    first_of_those_alike,
    most_features,
    nearly_constant,
    unit_ranks,
)
from segfw.outcomes.patient_folds import events_of
from segfw.outcomes.sparse_logistic import InnerSplits, fitted_weights

ModelName = Literal["covariates", "features", "both"]
MODELS: tuple[ModelName, ...] = ("covariates", "features", "both")


@dataclass(frozen=True, kw_only=True)
class TrainingPart:
    """What is known of training patients before their outcomes are looked at.

    ``usable`` are the features that may be chosen, ``covariates`` those that differ between patients, both as columns.
    ``standard_nd`` are all values in standard deviations, what is missing filled with the median; ``ranks_nu`` are unit
    ranks of the usable ones.
    """

    covariates: np.ndarray
    usable: np.ndarray
    medians_d: np.ndarray
    means_d: np.ndarray
    deviations_d: np.ndarray
    standard_nd: np.ndarray
    ranks_nu: np.ndarray


@dataclass(frozen=True, kw_only=True)
class FittedModels:
    """Models of one kind, a row for each order of outcomes that they were fitted to.

    Log odds are ``intercept_p`` + sum of ``coefficients_pk`` x value of ``columns_pk``; ``medians_pk`` stand in for
    values that are missing. A coefficient of 0 is a feature that the choice handed on and the penalty left out.
    """

    intercept_p: np.ndarray
    columns_pk: np.ndarray
    coefficients_pk: np.ndarray
    medians_pk: np.ndarray

    def log_odds(self, values_nd: np.ndarray) -> np.ndarray:
        """Of patients (P, N), of whom values may be missing."""
        values_npk = values_nd[:, self.columns_pk]
        filled_npk = np.where(np.isnan(values_npk), self.medians_pk, values_npk)
        return np.einsum("npk,pk->pn", filled_npk, self.coefficients_pk) + self.intercept_p[:, None]


def training_part(values_nd: np.ndarray, covariates: int) -> TrainingPart:
    """Medians, spreads and usable features; the first ``covariates`` columns are always kept if they differ at all."""
    missing_d = np.isnan(values_nd)
    is_known_d = missing_d.mean(0) <= MOST_MISSING
    is_known_d[:covariates] = ~missing_d[:, :covariates].all(0)
    medians_d = np.zeros(values_nd.shape[1])
    medians_d[is_known_d] = np.nanmedian(values_nd[:, is_known_d], axis=0)
    filled_nd = np.where(missing_d, medians_d, values_nd)
    filled_nd[:, ~is_known_d] = 0
    means_d = filled_nd.mean(0)
    deviations_d = filled_nd.std(0)
    is_covariate_d = np.arange(len(means_d)) < covariates
    is_usable_d = is_known_d & ~is_covariate_d & ~nearly_constant(filled_nd)
    usable = np.flatnonzero(is_usable_d)
    ranks_nu = unit_ranks(filled_nd[:, usable])
    stays_u = first_of_those_alike(ranks_nu)
    differs_d = deviations_d > 1e-12 * np.abs(filled_nd).max(0)
    deviations_d = np.where(differs_d, deviations_d, 1)
    return TrainingPart(
        covariates=np.flatnonzero(is_covariate_d & is_known_d & differs_d),
        usable=usable[stays_u],
        medians_d=medians_d,
        means_d=means_d,
        deviations_d=deviations_d,
        standard_nd=(filled_nd - means_d) / deviations_d,
        ranks_nu=ranks_nu[:, stays_u],
    )


def fitted_models(
    part: TrainingPart, has_event_pn: np.ndarray, names: Sequence[ModelName], seed: int
) -> dict[ModelName, FittedModels]:
    """The models of ``names`` for each order of outcomes; features are chosen once, for all models that take any.

    Inner folds choose features anew, too: a penalty that is judged on patients who had a say in the choice is too weak.
    """
    splits = InnerSplits.of(has_event_pn, np.random.default_rng(seed))
    most = most_features(events_of(has_event_pn[0]))
    usable_nu = part.standard_nd[:, part.usable]
    places_bk = chosen_by_mrmr(usable_nu, part.ranks_nu, splits.has_event_bn, splits.counts_bn, most)
    chosen_bk = part.usable[places_bk]
    covariates_bk = np.tile(part.covariates, (len(chosen_bk), 1))
    columns_of: dict[ModelName, np.ndarray] = {
        "covariates": covariates_bk,
        "features": chosen_bk,
        "both": np.concatenate([covariates_bk, chosen_bk], axis=1),
    }
    return {name: _fitted(part, splits, columns_of[name]) for name in names}


def _fitted(part: TrainingPart, splits: InnerSplits, columns_bk: np.ndarray) -> FittedModels:
    values_bnk = part.standard_nd[:, columns_bk].transpose(1, 0, 2)
    weights_pk, intercept_p = fitted_weights(values_bnk, splits)
    columns_pk = columns_bk[splits.folds :: splits.folds + 1]  # those of all patients
    coefficients_pk = weights_pk / part.deviations_d[columns_pk]
    return FittedModels(
        intercept_p=intercept_p - (coefficients_pk * part.means_d[columns_pk]).sum(1),
        columns_pk=columns_pk,
        coefficients_pk=coefficients_pk,
        medians_pk=part.medians_d[columns_pk],
    )
