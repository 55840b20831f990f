"""A predicted Dice from the features of one network's mask: ridge regression, then a monotone map.

The target is the logit of Dice, so that a step from 0.90 to 0.95 counts as much as one from 0.5 to 0.67. Everything
that is learned is also learned without each group of patients in turn, so that bounds and thresholds see predictions of
masks whose patients took no part.
"""

# N items, F inputs

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from segfw.base.records import Record
from segfw.quality.isotonic import IsotonicMap, fit_isotonic
from segfw.quality.quality_features import Features

LOWEST_DICE = 0.02  # and 1 less this is the highest, beyond which the logit would count for too much
MOST_DEVIATIONS = 4.0  # at which standardised inputs end
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)  # of a sum over as many items as there are
OUTER_GROUPS = 10  # of patients, each predicted without itself
INNER_GROUPS = 5


def logit(share: float, lowest: float = LOWEST_DICE) -> float:
    """Log-odds of a share, of which 0 and 1 are brought inside."""
    inside = min(max(share, lowest), 1 - lowest)
    return float(np.log(inside / (1 - inside)))


def _logit_or_none(share: float | None) -> float | None:
    return None if share is None else logit(share)


def _log_of(value: float | None) -> float | None:
    return None if value is None else float(np.log(value + 0.01))


# What the regression sees, by name. Whatever has a logarithm or a logit is nearer to a line with it.
INPUTS: Mapping[str, Callable[[Features], float | None]] = {
    "soft": lambda features: logit(features.soft),
    "confidence": lambda features: _logit_or_none(features.confidence),
    "entropy": lambda features: _log_of(features.entropy),
    "rim_entropy": lambda features: _log_of(features.rim_entropy),
    "core_entropy": lambda features: _log_of(features.core_entropy),
    "unsure": lambda features: features.unsure,
    "largest_share": lambda features: features.largest_share,
    "components": lambda features: float(np.log1p(features.components)),
    "gaps": lambda features: float(np.log1p(features.gaps)),
    "slice_dice": lambda features: _logit_or_none(features.slice_dice),
    "roundness": lambda features: features.roundness,
    "filling": lambda features: features.filling,
    "volume_z": lambda features: features.volume_z,
    "place_z": lambda features: features.place_z,
}


class QualityScore(Record):
    """A predicted Dice of features: inputs are standardised, weighted, added up, and mapped by ``to_dice``.

    ``offsets`` are of each structure. An input that a mask does not have counts as the mean.
    """

    inputs: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    offsets: dict[str, float]
    penalty: float
    to_dice: IsotonicMap

    def sums(self, inputs_nf: np.ndarray, structures: Sequence[str]) -> np.ndarray:
        """The weighted sums (N,), before the map."""
        standard = standardised(inputs_nf, np.array(self.means), np.array(self.deviations))
        offsets = np.array([self.offsets.get(name, 0.0) for name in structures])
        return standard @ np.array(self.weights) + self.intercept + offsets

    def predict(self, inputs_nf: np.ndarray, structures: Sequence[str]) -> np.ndarray:
        """Predicted Dice (N,) of inputs (N, F) of so many structures."""
        return self.to_dice(self.sums(inputs_nf, structures))

    def of(self, features: Features, structure: str) -> float:
        """Predicted Dice of one mask."""
        return float(self.predict(inputs_of([features]), [structure])[0])


def inputs_of(features: Sequence[Features]) -> np.ndarray:
    """(N, F) in the order of INPUTS; NaN where a mask has none."""
    rows = []
    for each in features:
        values = [read(each) for read in INPUTS.values()]
        rows.append([np.nan if value is None else value for value in values])
    return np.array(rows, dtype=float).reshape(len(features), len(INPUTS))


def standardised(inputs_nf: np.ndarray, means_f: np.ndarray, deviations_f: np.ndarray) -> np.ndarray:
    """In deviations from the mean, at most MOST_DEVIATIONS; 0 where there is no number."""
    scaled = np.clip((inputs_nf - means_f) / deviations_f, -MOST_DEVIATIONS, MOST_DEVIATIONS)
    return np.where(np.isfinite(scaled), scaled, 0.0)


def fit_score(
    inputs_nf: np.ndarray,
    structures: Sequence[str],
    dice_n: np.ndarray,
    weights_n: np.ndarray,
    patients: Sequence[str],
    seed: int = 0,
) -> QualityScore:
    """Learns to predict Dice.

    Parameters
    ----------
    inputs_nf
        Of ``inputs_of``.
    structures
        Of each item.
    dice_n
        What is to be predicted.
    weights_n
        How much each item counts.
    patients
        Of each item; those of one patient are left out together.
    seed
        By which patients are put into groups.

    Returns
    -------
    QualityScore
        Its penalty is that of least error in patients that were left out, one after the other; its map is fitted on
        sums of patients that were left out, group by group.
    """
    linear = _Linear.fit(inputs_nf, structures, dice_n, weights_n, patients)
    groups = patient_groups(patients, INNER_GROUPS, seed)
    sums = np.empty(len(dice_n))
    for group in range(groups.max() + 1):
        is_out = groups == group
        if is_out.all():  # a single patient
            without = linear
        else:
            without = _Linear.fit(
                inputs_nf[~is_out],
                [name for name, out in zip(structures, is_out) if not out],
                dice_n[~is_out],
                weights_n[~is_out],
                [name for name, out in zip(patients, is_out) if not out],
                penalty=linear.penalty,
            )
        chosen = [name for name, out in zip(structures, is_out) if out]
        sums[is_out] = without.sums(inputs_nf[is_out], chosen)
    return QualityScore(
        inputs=tuple(INPUTS),
        means=tuple(linear.means.tolist()),
        deviations=tuple(linear.deviations.tolist()),
        weights=tuple(linear.weights.tolist()),
        intercept=linear.intercept,
        offsets=linear.offsets,
        penalty=linear.penalty,
        to_dice=fit_isotonic(sums, dice_n, weights_n),
    )


def without_own_patients(
    inputs_nf: np.ndarray,
    structures: Sequence[str],
    dice_n: np.ndarray,
    weights_n: np.ndarray,
    patients: Sequence[str],
    seed: int = 0,
    *,
    learns_n: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted Dice (N,) of every item by a score that was learned without its patient, and the group (N,) left out.

    Parameters
    ----------
    inputs_nf, structures, dice_n, weights_n, patients, seed
        As of ``fit_score``.
    learns_n
        Which items are learned from; by default all. The others are predicted all the same.
    """
    learns = np.ones(len(dice_n), dtype=bool) if learns_n is None else learns_n
    groups = patient_groups(patients, OUTER_GROUPS, seed)
    predicted = np.empty(len(dice_n))
    for group in range(groups.max() + 1):
        is_out = groups == group
        others = learns & ~is_out
        score = fit_score(
            inputs_nf[others],
            [name for name, other in zip(structures, others) if other],
            dice_n[others],
            weights_n[others],
            [name for name, other in zip(patients, others) if other],
            seed + 1 + group,
        )
        chosen = [name for name, out in zip(structures, is_out) if out]
        predicted[is_out] = score.predict(inputs_nf[is_out], chosen)
    return predicted, groups


def patient_groups(patients: Sequence[str], groups: int, seed: int) -> np.ndarray:
    """Number of the group of each item, (N,); patients are drawn into groups of equal size."""
    names = sorted(set(patients))
    order = np.random.default_rng(seed).permutation(len(names))
    group_of = {names[index]: place % min(groups, len(names)) for place, index in enumerate(order)}
    return np.array([group_of[patient] for patient in patients], dtype=int)


class _Linear:
    """A ridge regression of logit Dice on standardised inputs and structures."""

    def __init__(
        self,
        means: np.ndarray,
        deviations: np.ndarray,
        weights: np.ndarray,
        intercept: float,
        offsets: dict[str, float],
        penalty: float,
    ) -> None:
        self.means = means
        self.deviations = deviations
        self.weights = weights
        self.intercept = intercept
        self.offsets = offsets
        self.penalty = penalty

    def sums(self, inputs_nf: np.ndarray, structures: Sequence[str]) -> np.ndarray:
        offsets = np.array([self.offsets.get(name, 0.0) for name in structures])
        return standardised(inputs_nf, self.means, self.deviations) @ self.weights + self.intercept + offsets

    @staticmethod
    def fit(
        inputs_nf: np.ndarray,
        structures: Sequence[str],
        dice_n: np.ndarray,
        weights_n: np.ndarray,
        patients: Sequence[str],
        penalty: float | None = None,
    ) -> _Linear:
        """By the penalty given, or by that of least error in patients left out one after the other."""
        weights = weights_n / weights_n.mean()
        means, deviations = _means_and_deviations(inputs_nf, weights)
        names = sorted(set(structures))
        is_structure = np.array([[name == structure for name in names] for structure in structures], dtype=float)
        design = np.hstack([standardised(inputs_nf, means, deviations), is_structure])
        targets = np.array([logit(dice) for dice in dice_n.tolist()])
        # The intercept is not penalised: everything is about the weighted means.
        centre = np.average(design, axis=0, weights=weights)
        mean = float(np.average(targets, weights=weights))
        root = np.sqrt(weights)[:, None]
        design_w = (design - centre) * root
        targets_w = (targets - mean) * root[:, 0]
        if penalty is None:
            penalty = _best_penalty(design_w, targets_w, patients)
        gram = design_w.T @ design_w + penalty * np.eye(design.shape[1])
        solution = np.linalg.solve(gram, design_w.T @ targets_w)
        inputs = inputs_nf.shape[1]
        return _Linear(
            means=means,
            deviations=deviations,
            weights=solution[:inputs],
            intercept=mean - float(centre @ solution),
            offsets=dict(zip(names, solution[inputs:].tolist())),
            penalty=penalty,
        )


def _means_and_deviations(inputs_nf: np.ndarray, weights_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each input over the items that have it; deviations that are next to nothing are 1."""
    is_there = np.isfinite(inputs_nf)
    weights_nf = is_there * weights_n[:, None]
    total = np.maximum(weights_nf.sum(0), 1e-12)
    values = np.where(is_there, inputs_nf, 0.0)
    means = (values * weights_nf).sum(0) / total
    deviations = np.sqrt((np.where(is_there, inputs_nf - means, 0.0) ** 2 * weights_nf).sum(0) / total)
    return means, np.where(deviations > 1e-6, deviations, 1.0)


def _best_penalty(design_nf: np.ndarray, targets_n: np.ndarray, patients: Sequence[str]) -> float:
    """That of least error where each patient is left out: the residuals of a group are (I - H_gg)^-1 r_g."""
    names, group_of = np.unique(np.array(patients), return_inverse=True)
    members = [np.flatnonzero(group_of == index) for index in range(len(names))]
    errors = []
    for penalty in PENALTIES:
        inverse = np.linalg.inv(design_nf.T @ design_nf + penalty * np.eye(design_nf.shape[1]))
        residuals = targets_n - design_nf @ (inverse @ (design_nf.T @ targets_n))
        error = 0.0
        for rows in members:
            part = design_nf[rows]
            own = np.eye(len(rows)) - part @ inverse @ part.T
            error += float((np.linalg.solve(own, residuals[rows]) ** 2).sum())
        errors.append(error)
    return PENALTIES[int(np.argmin(errors))]
