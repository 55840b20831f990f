"""What a calibrated model says of its own masks: ``quality.json``, made by ``segfw calibrate``, read by ``predict``.

A predicted Dice (``quality_score``), a lower bound that holds for a stated share of new cases (``conformal``), the
chance that the mask has failed, and a verdict: 'use', 'look' or 'do-not-use'. All of it is promised for images like the
training images, and of single networks: the mean of several is better, so that what is said of it is on the safe side.
"""

# N items

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from segfw.base.records import Record
from segfw.base.words import count
from segfw.planning.published import TILE_STEP
from segfw.quality.input_gate import Gate
from segfw.quality.isotonic import IsotonicMap
from segfw.quality.model_identity import ModelIdentity
from segfw.quality.plausible_thresholds import PlausibleThresholds
from segfw.quality.quality_features import Features, StructurePriors
from segfw.quality.quality_reasons import UsualRange, reasons_for
from segfw.quality.quality_score import QualityScore, inputs_of
from segfw.quality.selective_rule import UseRule
from segfw.quality.volume_intervals import VolumeInterval

CLEAN = "clean"  # the shift of images as they are
SELDOM_ABSENT = 0.05  # share of training masks without a structure, beyond which an empty mask may well be right

Verdict = Literal["use", "look", "do-not-use"]
VERDICTS: tuple[Verdict, ...] = ("use", "look", "do-not-use")


class QualityItem(Record):
    """One structure in one calibration case, as one network that never saw the case found it, with its true Dice.

    ``shift`` is CLEAN or what the image was spoilt by. ``dice`` is None where the structure is in neither mask. Where
    several networks never saw the case, ``pair`` is how far they agree and ``mean_dice`` the Dice of their mean.
    """

    case: str
    patient: str
    structure: str
    fold: str
    shift: str
    features: Features
    dice: float | None
    true_ml: float
    predicted_ml: float
    pair: float | None = None
    mean_dice: float | None = None


class LowerBound(Record):
    """How far below the predicted Dice the true one lies at most, for all but a share ``alpha`` of new cases.

    The margin is ``factor`` times what ``margin_scale`` says of the predicted Dice: good masks are foretold more
    closely than bad ones. ``structure`` is None of all structures together. ``patients`` count once each, whatever
    they have; by chance the share itself has a standard deviation of ``spread``. Without ``factor`` there are too few
    patients.
    """

    structure: str | None
    patients: int
    factor: float | None
    spread: float | None


class EmptyMasks(Record):
    """Calibration cases in which nothing was found of a structure, and in how many of them there was nothing."""

    found_nothing: int
    rightly: int


class CalibrationCounts(Record):
    """What a quality model was fitted on; ``items`` are structures in cases, clean and spoilt."""

    cases: int
    patients: int
    items: int
    clean_items: int
    shifts: tuple[str, ...]


class GateSaid(Protocol):
    """What the input gate says of an image."""

    @property
    def verdict(self) -> str: ...
    @property
    def reasons(self) -> Sequence[str]: ...


class StructureQuality(Record):
    """How far the mask of one structure in one case may be trusted.

    ``value`` is that of the label in masks, of a region the one that it is painted as. ``predicted_dice`` and
    ``lower_bound`` are None where nothing was found, and the bound where there were too few patients. ``ranking`` puts
    the worst first: the predicted Dice, and of a mask that holds nothing the chance that this is right. The agreement
    of the folds by itself ranked worse on kept-out patients of two data sets (docs/benchmarks.md). ``slices`` of the
    written mask hold it, along the first axis of the file's array; None of files that were written before it was told.
    """

    label: str
    value: int
    predicted_dice: float | None
    lower_bound: float | None
    alpha: float
    p_fail: float
    verdict: Verdict
    ranking: float
    features: dict[str, float | None]
    reasons: tuple[str, ...]
    volume_ml: float
    volume_interval_ml: tuple[float, float] | None = None
    slices: int | None = None


class QualityModel(Record):
    """Everything that is needed to judge masks of one configuration of a model."""

    format: Literal["segfw quality 1"] = "segfw quality 1"
    made: str  # day, ISO 8601
    identity: ModelIdentity
    values: dict[str, int]  # of each structure in masks
    counts: CalibrationCounts
    alpha: float
    fail_below: dict[str, float]
    use_target: float
    score: QualityScore
    margin_scale: IsotonicMap
    bounds: tuple[LowerBound, ...]  # of structures, and last of all together
    failure: IsotonicMap
    use_rule: UseRule
    priors: dict[str, StructurePriors]
    usual: dict[str, dict[str, UsualRange]]  # structure -> what its clean masks show
    empty: dict[str, EmptyMasks]
    gate: Gate | None = None
    volumes: dict[str, VolumeInterval] = {}
    plausible: dict[str, PlausibleThresholds] = {}
    notes: tuple[str, ...] = ()
    step: float = TILE_STEP  # of tiles, in calibration
    mirroring: bool = True

    def bound_of(self, structure: str) -> LowerBound:
        """The structure's own bound, or that of all together."""
        own = [bound for bound in self.bounds if bound.structure == structure]
        return own[0] if own else self.bounds[-1]

    def margin(self, structure: str, predicted: float) -> float | None:
        """How far below a predicted Dice the true one lies at most; None of too few patients."""
        factor = self.bound_of(structure).factor
        return None if factor is None else factor * float(self.margin_scale(np.array([predicted]))[0])

    def predicted_dice(self, structure: str, of_members: Sequence[Features], pair: float | None = None) -> float:
        """The mean over members of what each one's features say, and not more than the members agree by pairs."""
        prior = self.priors.get(structure)
        inputs = inputs_of([features.against(prior) for features in of_members])
        found = self.score.predict(inputs, [structure] * len(of_members)).tolist()
        predicted = sum(found) / len(found)
        return predicted if pair is None else min(predicted, pair)

    def judge(
        self,
        features_by_member: Sequence[Mapping[str, Features]],
        pair: Mapping[str, float] | None = None,
        gate_verdict: GateSaid | None = None,
        *,
        volumes_ml: Mapping[str, float] | None = None,
    ) -> list[StructureQuality]:
        """What is to be thought of each structure's mask in one case.

        Parameters
        ----------
        features_by_member
            Of ``structure_features``, for every network that predicted.
        pair
            Of ``pairwise_dice``; None or empty of a single network.
        gate_verdict
            What the input gate says of the image; anything but 'usual' withdraws 'use'.
        volumes_ml
            Of the mask that was written; by default the mean of the members'.

        Returns
        -------
        list
            In the order of the labels.
        """
        result = []
        for structure, value in self.values.items():
            members = [features[structure].against(self.priors.get(structure)) for features in features_by_member]
            agreement = pair.get(structure) if pair else None
            if volumes_ml is not None and structure in volumes_ml:
                volume_ml = volumes_ml[structure]
            else:
                volume_ml = sum(features.volume_mm3 for features in members) / len(members) / 1000
            # By the mask that was written: a decoding, what was removed from it, and the mean of the networks make
            # others than each network by itself.
            if volume_ml == 0:
                judged = self._empty(structure, members, gate_verdict)
            elif all(features.voxels == 0 for features in members):
                judged = _of_no_member(gate_verdict)
            else:
                judged = self._found(structure, members, agreement, gate_verdict)
            result.append(
                StructureQuality(
                    label=structure,
                    value=value,
                    predicted_dice=judged.predicted,
                    lower_bound=judged.lower,
                    alpha=self.alpha,
                    p_fail=judged.p_fail,
                    verdict=judged.verdict,
                    ranking=judged.ranking,
                    features=_told(members, agreement),
                    reasons=judged.reasons,
                    volume_ml=volume_ml,
                    volume_interval_ml=self.volumes[structure].of(volume_ml) if structure in self.volumes else None,
                )
            )
        return result

    def _found(self, structure: str, members: Sequence[Features], pair: float | None, gate: GateSaid | None) -> _Judged:
        predicted = self.predicted_dice(structure, members, pair)
        margin = self.margin(structure, predicted)
        p_fail = float(self.failure(np.array([predicted]))[0])
        is_odd = gate is not None and gate.verdict != "usual"
        verdict: Verdict = "look"
        threshold = self.use_rule.threshold
        if p_fail > 0.5:
            verdict = "do-not-use"
        elif threshold is not None and predicted >= threshold and not is_odd:
            verdict = "use"
        reasons = reasons_for(members, pair, self.usual.get(structure, {}), self.priors.get(structure))
        reasons = [*_gate_reasons(gate), *reasons]
        if not reasons and verdict == "look":
            if threshold is None:
                reasons = [f"no mask is released unseen: {self.use_rule.why}"]
            else:
                reasons = [f"its predicted Dice of {predicted:.2f} is below {threshold:.2f}, the least of 'use'"]
        if not reasons and verdict == "do-not-use":
            reasons = [f"its predicted Dice is {predicted:.2f}"]
        return _Judged(
            predicted=predicted,
            lower=None if margin is None else max(0.0, predicted - margin),
            p_fail=p_fail,
            verdict=verdict,
            ranking=predicted,
            reasons=tuple(reasons),
        )

    def _empty(self, structure: str, members: Sequence[Features], gate: GateSaid | None) -> _Judged:
        """Of a mask that holds nothing: whether that may be right is all that can be told."""
        prior = self.priors.get(structure)
        seen = self.empty.get(structure, EmptyMasks(found_nothing=0, rightly=0))
        may_be_absent = prior is not None and prior.absent_share > SELDOM_ABSENT
        # One case of either kind is added, so that few cases say little.
        p_fail = 1 - (seen.rightly + 1) / (seen.found_nothing + 2) if may_be_absent else 1.0
        if not may_be_absent:
            reason = "nothing was found of it, and it is in nearly all training masks"
        else:
            nothing = count(seen.found_nothing, "calibration case")
            reason = f"nothing was found of it; so it was in {nothing}, rightly in {seen.rightly} of them"
        reasons = [reason, *_found_before(members), *_gate_reasons(gate)]
        return _Judged(
            predicted=None,
            lower=None,
            p_fail=p_fail,
            verdict="do-not-use" if p_fail > 0.5 else "look",
            ranking=1 - p_fail,
            reasons=tuple(reasons),
        )


@dataclass(frozen=True, kw_only=True)
class _Judged:
    predicted: float | None
    lower: float | None
    p_fail: float
    verdict: Verdict
    ranking: float
    reasons: tuple[str, ...]


def _of_no_member(gate: GateSaid | None) -> _Judged:
    """Of a mask that no network has by itself, so that no network's features tell of it."""
    reason = "no network finds it by itself: it comes of their mean, or of how masks are decoded"
    return _Judged(
        predicted=None,
        lower=None,
        p_fail=1.0,
        verdict="do-not-use",
        ranking=0.0,
        reasons=(reason, *_gate_reasons(gate)),
    )


def _found_before(members: Sequence[Features]) -> list[str]:
    """What networks found of a structure of which the mask that was written holds nothing."""
    found_ml = [features.volume_mm3 / 1000 for features in members if features.voxels]
    if not found_ml:
        return []
    who = f"{len(found_ml)} of {count(len(members), 'network')}" if len(members) > 1 else "the network"
    return [f"{who} found up to {max(found_ml):.3g} ml, of which nothing is left in the mask"]


def _gate_reasons(gate: GateSaid | None) -> list[str]:
    if gate is None or gate.verdict == "usual":
        return []
    return [f"the image is {gate.verdict}: {text}" for text in gate.reasons]


def _told(members: Sequence[Features], pair: float | None) -> dict[str, float | None]:
    """Means of features over members, for the record of the case."""
    told: dict[str, float | None] = {"pair": pair}
    for name in Features.model_fields:
        if name in ("voxels", "volume_mm3", "offset_mm"):
            continue
        values = [getattr(features, name) for features in members]
        present = [float(value) for value in values if value is not None]
        told[name] = sum(present) / len(present) if present else None
    return told
