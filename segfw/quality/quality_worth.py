"""What a quality model and simpler scores are worth on the calibration cases, each judged without its own patient.

Masks are judged as ``predict`` would write them: where several networks never saw a case, what they say is averaged,
and the mask is that of their mean. Of cross-validation each mask is of the one network that did not see the case; then
how far the folds agree cannot be judged, because all others saw it.
"""

# J masks that are judged

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segfw.base.records import Record
from segfw.quality.quality_fitting import FittedQuality, Foretold, foretell
from segfw.quality.quality_model import CLEAN, QualityItem
from segfw.quality.risk_coverage import ScoreWorth, naurc, worth_of

WORTH_FILE = ".worth.json"  # of the folder of the configuration, beside those of cases
RESAMPLES = 200
LEAST_PATIENTS = 5  # of whom an interval can be drawn
ALL = "all"
PREDICTED = "predicted Dice"
AGREEMENT = "agreement of the folds, by pairs"


class WorthOfScore(Record):
    """A score on the clean masks and on all of them, and its nAURC's 95 % interval, by patients drawn anew."""

    score: str
    clean: ScoreWorth
    clean_interval: tuple[float, float] | None
    all: ScoreWorth
    all_interval: tuple[float, float] | None


class WorthUnderShift(Record):
    """What is said of masks of images changed in one way, and what became of it.

    ``covered`` is the share whose Dice is not below its bound, ``used`` that of verdict 'use', and ``wrong_used`` the
    share of failed ones among those; ``good_used`` is the share of all good masks that are used.
    """

    shift: str
    masks: int
    dice: float
    failed: float
    spearman: float | None
    mae: float
    bias: float
    covered: float | None
    used: int
    wrong_used: int
    good_used: float | None


class QualityWorth(Record):
    """All that is known of what a quality model is worth; ``unseen`` is of shifts that the fit never saw."""

    scores: tuple[WorthOfScore, ...]
    shifts: tuple[WorthUnderShift, ...]
    unseen: tuple[WorthUnderShift, ...]


@dataclass(frozen=True, kw_only=True)
class JudgedMasks:
    """Masks as ``predict`` would write them, (J,) each: what was said, and what is true."""

    shifts: tuple[str, ...]
    structures: tuple[str, ...]
    patients: tuple[str, ...]
    predicted: np.ndarray
    lower: np.ndarray
    dice: np.ndarray
    is_wrong: np.ndarray
    scores: Mapping[str, np.ndarray]

    def where(self, is_chosen: np.ndarray) -> JudgedMasks:
        """Some of them."""
        rows = np.flatnonzero(is_chosen).tolist()
        return JudgedMasks(
            shifts=tuple(self.shifts[row] for row in rows),
            structures=tuple(self.structures[row] for row in rows),
            patients=tuple(self.patients[row] for row in rows),
            predicted=self.predicted[rows],
            lower=self.lower[rows],
            dice=self.dice[rows],
            is_wrong=self.is_wrong[rows],
            scores={name: values[rows] for name, values in self.scores.items()},
        )

    @property
    def is_clean(self) -> np.ndarray:
        """Which are of images as they are."""
        return np.array([shift == CLEAN for shift in self.shifts], dtype=bool)


def judged_masks(fitted: FittedQuality, foretold: Foretold | None = None) -> JudgedMasks:
    """The masks of all calibration items, by what was ``foretold`` of them (by default as they were fitted)."""
    said = foretold or fitted.foretold
    items = fitted.scored.items
    rows_of: dict[tuple[str, str, str], list[int]] = {}
    for row, item in enumerate(items):
        rows_of.setdefault((item.case, item.structure, item.shift), []).append(row)
    groups = list(rows_of.values())
    firsts = [items[rows[0]] for rows in groups]
    own_dice = np.array([_mean_of(fitted.scored.dice, rows) for rows in groups])
    dice = np.array([own if first.mean_dice is None else first.mean_dice for own, first in zip(own_dice, firsts)])
    limits = np.array([fitted.request.fail_below[first.structure] for first in firsts])
    pair = np.array([np.nan if first.pair is None else first.pair for first in firsts])
    own = np.array([_mean_of(said.predicted, rows) for rows in groups])
    predicted = np.fmin(own, pair)
    # Of the bound the margin stays; a predicted Dice that the folds' agreement lowers has none that is narrower.
    lower = np.maximum(0, predicted - (own - np.array([_mean_of(said.lower, rows) for rows in groups])))
    constant = _constant(firsts, dice)
    scores = {
        PREDICTED: predicted,
        AGREEMENT: pair,
        "Dice that the network expects of itself": _feature(fitted, groups, "soft"),
        "mean Dice of the structure (constant)": constant,
        "entropy inside": -_feature(fitted, groups, "entropy"),
        "mean entropy of the image (as MONAI Label ranks)": -_feature(fitted, groups, "image_entropy"),
        "doubtful voxels (as AbdomenAtlas counts)": -_feature(fitted, groups, "doubtful_voxels"),
        "doubtful voxels for the volume": -_feature(fitted, groups, "unsure"),
        "volume against the training masks": -_feature(fitted, groups, "volume_z"),
        "place against the training masks": -_feature(fitted, groups, "place_z"),
        "agreement of neighbouring slices": _feature(fitted, groups, "slice_dice"),
    }
    return JudgedMasks(
        shifts=tuple(first.shift for first in firsts),
        structures=tuple(first.structure for first in firsts),
        patients=tuple(first.patient for first in firsts),
        predicted=predicted,
        lower=lower,
        dice=dice,
        is_wrong=dice < limits,
        scores={name: values for name, values in scores.items() if np.isfinite(values).any()},
    )


def _mean_of(values: np.ndarray, rows: Sequence[int]) -> float:
    return float(np.mean(values[list(rows)]))


def _feature(fitted: FittedQuality, groups: Sequence[Sequence[int]], name: str) -> np.ndarray:
    """Mean of a feature over the networks; NaN where there is none."""
    items = fitted.scored.items
    found = []
    for rows in groups:
        values = [getattr(items[row].features, name) for row in rows]
        present = [float(value) for value in values if value is not None]
        found.append(sum(present) / len(present) if present else np.nan)
    return np.array(found)


def _constant(items: Sequence[QualityItem], dice_j: np.ndarray) -> np.ndarray:
    """Mean Dice of each mask's structure over all clean masks.

    With each mask's own among them: without it the worst mask of a structure would have the best mean of the others.
    """
    structures = np.array([item.structure for item in items])
    is_clean = np.array([item.shift == CLEAN for item in items], dtype=bool)
    found = np.full(len(items), np.nan)
    for structure in np.unique(structures).tolist():
        own = structures == structure
        if (own & is_clean).any():
            found[own] = dice_j[own & is_clean].mean()
    return found


def quality_worth(fitted: FittedQuality) -> QualityWorth:
    """Every score on clean and on all masks, and what is said under each shift, seen in the fit and not."""
    masks = judged_masks(fitted)
    clean = masks.where(masks.is_clean)
    scores = []
    for name in masks.scores:
        is_dice = name in (PREDICTED, AGREEMENT) or "Dice" in name
        scores.append(
            WorthOfScore(
                score=name,
                clean=worth_of(clean.scores[name], clean.dice, clean.is_wrong, is_dice=is_dice),
                clean_interval=naurc_interval(clean.scores[name], clean.dice, clean.patients),
                all=worth_of(masks.scores[name], masks.dice, masks.is_wrong, is_dice=is_dice),
                all_interval=naurc_interval(masks.scores[name], masks.dice, masks.patients),
            )
        )
    threshold = fitted.model.use_rule.threshold
    # Of a shift under which nothing is found in any image there is no mask to speak of.
    spoilt = [name for name in fitted.model.counts.shifts if name in masks.shifts]
    shifts = [under_shift(masks, name, threshold) for name in (CLEAN, *spoilt)]
    unseen = []
    for name in spoilt:
        without = judged_masks(fitted, foretell(fitted.scored, fitted.request, without_shift=name))
        unseen.append(under_shift(without, name, threshold))
    return QualityWorth(scores=tuple(scores), shifts=tuple(shifts), unseen=tuple(unseen))


def under_shift(masks: JudgedMasks, shift: str, threshold: float | None) -> WorthUnderShift:
    """What was said of the masks of one shift, and what became of it."""
    chosen = masks.where(np.array([name == shift for name in masks.shifts], dtype=bool))
    has_bound = np.isfinite(chosen.lower)
    is_used = np.zeros(len(chosen.dice), bool) if threshold is None else chosen.predicted >= threshold
    good = ~chosen.is_wrong
    worth = worth_of(chosen.predicted, chosen.dice, chosen.is_wrong, is_dice=True)
    return WorthUnderShift(
        shift=shift,
        masks=len(chosen.dice),
        dice=float(chosen.dice.mean()),
        failed=float(chosen.is_wrong.mean()),
        spearman=worth.spearman,
        mae=float(np.abs(chosen.predicted - chosen.dice).mean()),
        bias=float((chosen.predicted - chosen.dice).mean()),
        covered=float((chosen.dice >= chosen.lower)[has_bound].mean()) if has_bound.any() else None,
        used=int(is_used.sum()),
        wrong_used=int((is_used & chosen.is_wrong).sum()),
        good_used=float(is_used[good].mean()) if good.any() else None,
    )


def naurc_interval(
    confidence_j: np.ndarray, dice_j: np.ndarray, patients: Sequence[str], seed: int = 0
) -> tuple[float, float] | None:
    """95 % of the nAURC over patients drawn anew; None of too few."""
    is_there = np.isfinite(confidence_j)
    names, group_of = np.unique(np.array(patients)[is_there], return_inverse=True)
    if len(names) < LEAST_PATIENTS:
        return None
    confidence = confidence_j[is_there]
    dice = dice_j[is_there]
    members = [np.flatnonzero(group_of == index) for index in range(len(names))]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([members[index] for index in rng.integers(len(names), size=len(names))])
        value = naurc(confidence[rows], dice[rows])
        if value is not None:
            found.append(value)
    if len(found) < RESAMPLES // 2:
        return None
    low, high = np.percentile(found, (2.5, 97.5)).tolist()
    return low, high
