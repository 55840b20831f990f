"""A predicted Dice from the features of one network's mask: ridge regression, then a monotone map.

Two kinds of features go in. How sure the network is goes in as it is. The form of the mask, its volume and its place
count only where they are unusual, by more than UNUSUAL deviations from clean masks of the structure: within the usual
they say nothing of quality, and would be noise.

The target is the logit of Dice, so that a step from 0.90 to 0.95 counts as much as one from 0.5 to 0.67; each mask
counts as much as its Dice, because how bad a failed mask is does not matter. Everything that is learned is also learned
without each group of patients in turn, so that bounds and thresholds see predictions of masks whose patients took no
part.
"""

# N items, F inputs

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segfw.base.records import Record
from segfw.quality.isotonic import IsotonicMap, fit_isotonic
from segfw.quality.quality_features import Features

LOWEST_DICE = 0.02  # and 1 less this is the highest, beyond which the logit would count for too much
LEAST_WEIGHT = 0.05  # of a mask with a Dice of 0
MOST_DEVIATIONS = 6.0  # at which standardised inputs end
UNUSUAL = 2.0  # deviations
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


Read = Callable[[Features], float | None]
# How sure the network is, by name. Whatever has a logarithm or a logit is nearer to a line with it.
DOUBTS: Mapping[str, Read] = {
    "soft": lambda features: logit(features.soft),
    "confidence": lambda features: _logit_or_none(features.confidence),
    "entropy": lambda features: _log_of(features.entropy),
    "rim_entropy": lambda features: _log_of(features.rim_entropy),
    "core_entropy": lambda features: _log_of(features.core_entropy),
    "unsure": lambda features: features.unsure,
    "slice_dice": lambda features: _logit_or_none(features.slice_dice),
}
# What is odd of a mask's form and place if it is large.
ODDITIES: Mapping[str, Read] = {
    "pieces": lambda features: None if features.largest_share is None else 1 - features.largest_share,
    "components": lambda features: float(np.log1p(features.components)),
    "gaps": lambda features: float(np.log1p(features.gaps)),
    "disagreeing_slices": lambda features: None if features.slice_dice is None else -logit(features.slice_dice),
    "raggedness": lambda features: None if features.roundness is None else -features.roundness,
    "scatter": lambda features: None if features.filling is None else -features.filling,
    "volume_z": lambda features: features.volume_z,
    "place_z": lambda features: features.place_z,
}
INPUTS = (*DOUBTS, *ODDITIES)


class Scale(Record):
    """Means and standard deviations of some inputs."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def __call__(self, inputs_nf: np.ndarray) -> np.ndarray:
        """In deviations from the mean, at most MOST_DEVIATIONS; 0 where there is no number."""
        scaled = (inputs_nf - np.array(self.means)) / np.array(self.deviations)
        return np.where(np.isfinite(scaled), np.clip(scaled, -MOST_DEVIATIONS, MOST_DEVIATIONS), 0.0)

    @staticmethod
    def of(inputs_nf: np.ndarray, weights_n: np.ndarray, least: float) -> Scale:
        """Weighted, over the items that have each; deviations of less than ``least`` are that."""
        is_there = np.isfinite(inputs_nf)
        weights_nf = is_there * weights_n[:, None]
        total = np.maximum(weights_nf.sum(0), 1e-12)
        means = (np.where(is_there, inputs_nf, 0.0) * weights_nf).sum(0) / total
        squares = np.where(is_there, inputs_nf - means, 0.0) ** 2
        deviations = np.maximum(np.sqrt((squares * weights_nf).sum(0) / total), least)
        return Scale(means=tuple(means.tolist()), deviations=tuple(deviations.tolist()))


class LinearScore(Record):
    """A weighted sum of inputs. ``doubts`` scales how sure networks are; ``usual`` the form of each structure's clean
    masks, under '' that of all; ``offsets`` are of structures."""

    doubts: Scale
    usual: dict[str, Scale]
    weights: tuple[float, ...]
    intercept: float
    offsets: dict[str, float]
    penalty: float

    def __call__(self, inputs_nf: np.ndarray, structures: Sequence[str]) -> np.ndarray:
        """Sums (N,) of inputs (N, F) of so many structures."""
        offsets = np.array([self.offsets.get(name, 0.0) for name in structures])
        return (
            _design(inputs_nf, structures, self.doubts, self.usual) @ np.array(self.weights) + self.intercept + offsets
        )


class QualityScore(Record):
    """A predicted Dice of features: a weighted sum of ``inputs``, mapped by ``to_dice``."""

    inputs: tuple[str, ...]
    linear: LinearScore
    to_dice: IsotonicMap

    def predict(self, inputs_nf: np.ndarray, structures: Sequence[str]) -> np.ndarray:
        """Predicted Dice (N,) of inputs (N, F) of so many structures."""
        return self.to_dice(self.linear(inputs_nf, structures))

    def of(self, features: Features, structure: str) -> float:
        """Predicted Dice of one mask."""
        return float(self.predict(inputs_of([features]), [structure])[0])


@dataclass(frozen=True, kw_only=True)
class LearnedFrom:
    """Items that a score is learned from: inputs (N, F), and (N,) each their Dice, how much they count, and more."""

    inputs: np.ndarray
    structures: Sequence[str]
    patients: Sequence[str]
    dice: np.ndarray
    weights: np.ndarray
    is_clean: np.ndarray

    def where(self, is_chosen: np.ndarray) -> LearnedFrom:
        """Some of them."""
        rows: list[int] = np.flatnonzero(is_chosen).tolist()
        return LearnedFrom(
            inputs=self.inputs[rows],
            structures=[self.structures[row] for row in rows],
            patients=[self.patients[row] for row in rows],
            dice=self.dice[rows],
            weights=self.weights[rows],
            is_clean=self.is_clean[rows],
        )


def inputs_of(features: Sequence[Features]) -> np.ndarray:
    """(N, F) in the order of INPUTS; NaN where a mask has none."""
    rows = []
    for each in features:
        values = [read(each) for read in (*DOUBTS.values(), *ODDITIES.values())]
        rows.append([np.nan if value is None else value for value in values])
    return np.array(rows, dtype=float).reshape(len(features), len(INPUTS))


def fit_score(items: LearnedFrom, seed: int = 0) -> QualityScore:
    """Learns to predict Dice.

    Parameters
    ----------
    items
        Those to learn from; those of one patient are left out together.
    seed
        By which patients are put into groups.

    Returns
    -------
    QualityScore
        Its penalty is that of least error in patients that were left out, one after the other; its map is fitted on
        sums of patients that were left out, group by group.
    """
    linear = _fit_linear(items)
    groups = patient_groups(items.patients, INNER_GROUPS, seed)
    sums = np.empty(len(items.dice))
    for group in range(groups.max() + 1):
        is_out = groups == group
        # Of a single patient nobody is left.
        without = linear if is_out.all() else _fit_linear(items.where(~is_out), penalty=linear.penalty)
        out = items.where(is_out)
        sums[is_out] = without(out.inputs, out.structures)
    return QualityScore(inputs=INPUTS, linear=linear, to_dice=fit_isotonic(sums, items.dice, items.weights))


def without_own_patients(
    items: LearnedFrom, seed: int = 0, *, learns_n: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted Dice (N,) of every item by a score that was learned without its patient, and the group (N,) left out.

    Parameters
    ----------
    items, seed
        As of ``fit_score``.
    learns_n
        Which items are learned from; by default all. The others are predicted all the same.
    """
    learns = np.ones(len(items.dice), dtype=bool) if learns_n is None else learns_n
    groups = patient_groups(items.patients, OUTER_GROUPS, seed)
    predicted = np.empty(len(items.dice))
    for group in range(groups.max() + 1):
        is_out = groups == group
        score = fit_score(items.where(learns & ~is_out), seed + 1 + group)
        out = items.where(is_out)
        predicted[is_out] = score.predict(out.inputs, out.structures)
    return predicted, groups


def patient_groups(patients: Sequence[str], groups: int, seed: int) -> np.ndarray:
    """Number of the group of each item, (N,); patients are drawn into groups of equal size."""
    names = sorted(set(patients))
    order = np.random.default_rng(seed).permutation(len(names))
    group_of = {names[index]: place % min(groups, len(names)) for place, index in enumerate(order)}
    return np.array([group_of[patient] for patient in patients], dtype=int)


def _design(inputs_nf: np.ndarray, structures: Sequence[str], doubts: Scale, usual: Mapping[str, Scale]) -> np.ndarray:
    """What is weighted: standardised doubts, and logarithms of how unusual form and place are."""
    first = len(DOUBTS)
    unusual = np.zeros((len(inputs_nf), len(ODDITIES)))
    names = np.array(structures)
    for name in set(structures):
        own = names == name
        deviations = usual.get(name, usual[""])(inputs_nf[own, first:])
        unusual[own] = np.log1p(np.maximum(0, deviations - UNUSUAL))
    return np.hstack([doubts(inputs_nf[:, :first]), unusual])


def _fit_linear(items: LearnedFrom, penalty: float | None = None) -> LinearScore:
    """By the penalty given, or by that of least error in patients left out one after the other."""
    first = len(DOUBTS)
    weights = items.weights * np.clip(items.dice, LEAST_WEIGHT, 1)
    weights = weights / weights.mean()
    names = sorted(set(items.structures))
    is_structure = np.array([[name == structure for name in names] for structure in items.structures], dtype=float)
    doubts = Scale.of(items.inputs[:, :first], weights, 1e-3)
    usual = _usual(items, names)
    design = np.hstack([_design(items.inputs, items.structures, doubts, usual), is_structure])
    targets = np.array([logit(dice) for dice in items.dice.tolist()])
    # The intercept is not penalised: everything is about the weighted means.
    centre = np.average(design, axis=0, weights=weights)
    mean = float(np.average(targets, weights=weights))
    root = np.sqrt(weights)
    design_w = (design - centre) * root[:, None]
    targets_w = (targets - mean) * root
    if penalty is None:
        penalty = _best_penalty(design_w, targets_w, items.patients)
    gram = design_w.T @ design_w + penalty * np.eye(design.shape[1])
    solution = np.linalg.solve(gram, design_w.T @ targets_w)
    return LinearScore(
        doubts=doubts,
        usual=usual,
        weights=tuple(solution[: len(INPUTS)].tolist()),
        intercept=mean - float(centre @ solution),
        offsets=dict(zip(names, solution[len(INPUTS) :].tolist())),
        penalty=penalty,
    )


def _usual(items: LearnedFrom, names: Sequence[str]) -> dict[str, Scale]:
    """Form and place of clean masks, of each structure and under '' of all."""
    rows = np.flatnonzero(items.is_clean) if items.is_clean.any() else np.arange(len(items.dice))
    forms = items.inputs[rows, len(DOUBTS) :]
    structures = np.array(items.structures)[rows]
    ones = np.ones(len(rows))
    usual = {"": Scale.of(forms, ones, 1e-2)}
    for name in names:
        own = structures == name
        if own.any():
            usual[name] = Scale.of(forms[own], ones[own], 1e-2)
    return usual


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
