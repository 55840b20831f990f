"""What was found about an outcome: the record, and its text for a reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import JsonValue

from segfw.base.answers import Answer
from segfw.base.records import Record
from segfw.base.words import count
from segfw.outcomes.cohorts import LeftOut
from segfw.outcomes.fitting_models import ModelName
from segfw.outcomes.model_figures import auc, auc_gain, auc_interval, brier, calibration
from segfw.outcomes.outcome_model import OutcomeModel

FEWEST_EVENTS = 20
FEW_TEST_EVENTS = 100  # below, a test says little of calibration (Vergouwe et al. 2005)
OF_MODELS: Mapping[str, str] = {"covariates": "covariates alone", "features": "features alone", "both": "both"}
CAUTION = (
    "cross-validation on one cohort is no validation: only other patients, of another place, say how it does there"
)


class ModelFigures(Record):
    """How one model does on patients that it was not fitted to.

    Means of all repeats. ``auc_of_repeats`` are the least and the largest AUC of a repeat. ``calibration_intercept`` is
    0 and ``calibration_slope`` 1 where probabilities are right; the slope is None where all of them are the same.
    """

    auc: float
    auc_low: float
    auc_high: float
    auc_of_repeats: tuple[float, float] | None = None
    p: float | None = None
    permutations: int = 0
    brier: float
    calibration_intercept: float
    calibration_slope: float | None


class Gain(Record):
    """By how much the AUC of both is above that of the covariates, over the same patients."""

    auc: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval shows."""
        if self.low > 0:
            return "a gain"
        return "a loss" if self.high < 0 else "no gain shown"


class FeatureShare(Record):
    """How often a feature was in the models of features: ``considered`` by the choice, ``used`` with a coefficient.

    Shares of all training parts; ``coefficient`` is that of the frozen model, 0 where it has none.
    """

    feature: str
    considered: float
    used: float
    coefficient: float


class SecondCohort(Record):
    """How frozen models do on a second cohort."""

    measures: str
    table: str
    patients: int
    events: int
    left_out: LeftOut
    stand_ins: dict[str, int]
    models: dict[ModelName, ModelFigures]
    gain: Gain | None
    notes: tuple[str, ...]


class OutcomeReport(Answer):
    """All of it. ``models`` is empty where frozen models were only tried, and of a dry run.

    ``asked`` are the options, as JSON; nothing of a dry run, and in reports of before they were kept.
    """

    kind: Literal["outcome"] = "outcome"
    version: str
    measures: str
    table: str
    target: str
    event: str
    explore: bool
    patients: int
    events: int
    covariates: tuple[str, ...]
    features: int
    settings: str
    left_out: LeftOut
    imputed: float  # the share of values of features that are missing
    models: dict[ModelName, ModelFigures]
    gain: Gain | None
    shares: tuple[FeatureShare, ...]
    formulas: dict[ModelName, str]
    test: SecondCohort | None
    notes: tuple[str, ...]
    asked: dict[str, JsonValue] = {}

    def text(self) -> str:
        """For the terminal."""
        lines = []
        if self.test is None or self.models:
            lines.append(_cohort_line(self))
            lines += [f"note: {note}" for note in self.notes]
        if self.models:
            lines += _figure_lines(self.models, self.gain)
            lines += [f"{OF_MODELS[name]}: {formula}" for name, formula in self.formulas.items()]
            lines.append(CAUTION)
        if self.test is not None:
            test = self.test
            lines.append(f"second cohort: {count(test.patients, 'patient')}, {count(test.events, 'event')}")
            lines += [f"left out: {text}" for text in test.left_out.texts()]
            lines += [f"note: {note}" for note in test.notes]
            lines += _figure_lines(test.models, test.gain)
        return "\n".join(lines)


def _cohort_line(report: OutcomeReport) -> str:
    explored = " (exploring: too few events for a model that is used)" if report.explore else ""
    left_out = report.left_out.texts()
    return (
        f"{count(report.patients, 'patient')}, {count(report.events, 'event')} of the rarer outcome{explored}, "
        f"{count(report.features, 'feature')}" + (f"; left out: {', '.join(left_out)}" if left_out else "")
    )


def _figure_lines(models: Mapping[ModelName, ModelFigures], gain: Gain | None) -> list[str]:
    lines = []
    for name, each in models.items():
        p = "" if each.p is None else f", p {each.p:.3f}"
        slope = "-" if each.calibration_slope is None else f"{each.calibration_slope:.2f}"
        lines.append(
            f"{OF_MODELS[name]}: AUC {each.auc:.3f} [{each.auc_low:.3f}, {each.auc_high:.3f}]{p}, "
            f"Brier {each.brier:.3f}, calibration intercept {each.calibration_intercept:+.2f}, slope {slope}"
        )
    if gain is not None:
        lines.append(
            f"features add {gain.auc:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] of AUC to the covariates: {gain.verdict}"
        )
    return lines


def model_figures(
    probabilities_rn: np.ndarray, has_event_n: np.ndarray, *, p: float | None = None, permutations: int = 0
) -> ModelFigures:
    """Of all repeats of one model."""
    interval = auc_interval(probabilities_rn, has_event_n)
    by_repeat = [auc(row[None], has_event_n) for row in probabilities_rn]
    calibrations = [calibration(row, has_event_n) for row in probabilities_rn]
    slopes = [each.slope for each in calibrations if each.slope is not None]
    return ModelFigures(
        auc=auc(probabilities_rn, has_event_n),
        auc_low=interval.low,
        auc_high=interval.high,
        auc_of_repeats=(min(by_repeat), max(by_repeat)) if len(by_repeat) > 1 else None,
        p=p,
        permutations=permutations,
        brier=float(np.mean([brier(row, has_event_n) for row in probabilities_rn])),
        calibration_intercept=float(np.mean([each.intercept for each in calibrations])),
        calibration_slope=float(np.mean(slopes)) if slopes else None,
    )


def gain_of_features(probabilities: Mapping[ModelName, np.ndarray], has_event_n: np.ndarray) -> Gain | None:
    """None where there are no covariates."""
    if "covariates" not in probabilities or "both" not in probabilities:
        return None
    gain, interval = auc_gain(probabilities["covariates"], probabilities["both"], has_event_n)
    return Gain(auc=gain, low=interval.low, high=interval.high)


def feature_shares(
    considered: Mapping[str, float], used: Mapping[str, float], model: OutcomeModel
) -> tuple[FeatureShare, ...]:
    """The most used first."""
    coefficients = {term.name: term.coefficient for term in model.equations["features"].terms}
    found = [
        FeatureShare(feature=name, considered=share, used=used.get(name, 0.0), coefficient=coefficients.get(name, 0.0))
        for name, share in considered.items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.used, -each.considered, each.feature)))
