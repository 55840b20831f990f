"""Frozen models of an outcome, as a file: formulas with their coefficients, and what they may be applied to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from segfw.base.records import Record, UserError
from segfw.base.words import count, listed
from segfw.outcomes.cohorts import Cohort, require_same_settings
from segfw.outcomes.fitting_models import FittedModels, ModelName, fitted_models, training_part
from segfw.outcomes.nested_validation import probability
from segfw.outcomes.outcome_table import Covariate

DIGITS = 10  # significant ones, of what is written for readers
SEED = 7


class Term(Record):
    """``coefficient`` x the value, of ``stand_in`` where that is missing."""

    name: str
    coefficient: float
    stand_in: float


class Equation(Record):
    """Log odds of the event: ``intercept`` + the sum of all terms."""

    intercept: float
    terms: tuple[Term, ...]

    @property
    def text(self) -> str:
        """'log odds = -1.2 + 0.034 x age'."""
        parts = [f"{self.intercept:.4g}"]
        for term in self.terms:
            sign = "-" if term.coefficient < 0 else "+"
            parts.append(f"{sign} {abs(term.coefficient):.4g} x [{term.name}]")
        return "log odds = " + " ".join(parts)


class OutcomeModel(Record):
    """Models that were fitted to all patients of one cohort, and are not changed any more.

    ``fitted_on`` are digests of these patients' features of the names ``digested``, by which they are known again in a
    cohort that is said to be another one; files of before there were names have those of all. ``fitted_on_needed`` are
    digests of the features in the equations alone, which every cohort must have; earlier files have none.
    """

    kind: Literal["outcome model"] = "outcome model"
    format: Literal[1] = 1
    version: str
    target: str
    event: str
    covariates: tuple[Covariate, ...]
    settings: str
    patients: int
    events: int
    explore: bool
    equations: dict[ModelName, Equation]
    fitted_on: tuple[str, ...]
    digested: tuple[str, ...] = ()
    fitted_on_needed: tuple[str, ...] = ()

    def probabilities(self, cohort: Cohort) -> dict[ModelName, np.ndarray]:
        """Of the event, for every patient of a cohort, by each model."""
        places = {name: index for index, name in enumerate(cohort.names)}
        found = {}
        for name, equation in self.equations.items():
            log_odds_n = np.full(len(cohort.patients), equation.intercept)
            for term in equation.terms:
                values_n = cohort.values_nd[:, places[term.name]]
                log_odds_n += term.coefficient * np.where(np.isnan(values_n), term.stand_in, values_n)
            found[name] = probability(log_odds_n)
        return found

    def missing(self, cohort: Cohort) -> dict[str, int]:
        """Of how many patients a value that a model needs is missing, and its stand-in is taken."""
        needed = needed_names(self.equations)
        found = {}
        for index, name in enumerate(cohort.names):
            lacking = int(np.isnan(cohort.values_nd[:, index]).sum())
            if name in needed and lacking:
                found[name] = lacking
        return found

    def require_for(self, cohort: Cohort, file: Path) -> None:
        """UserError if the cohort was measured otherwise, lacks a feature, or holds patients of the fit."""
        require_same_settings(cohort, self.settings, file)
        known = set(cohort.names)
        for equation in self.equations.values():
            lacking = [term.name for term in equation.terms if term.name not in known]
            if lacking:
                raise UserError(
                    f"{cohort.measures}: has no feature {lacking[0]!r}, which the model of {file} needs; measure this "
                    "cohort as the first one was measured"
                )
        what = f"the model of {file} was"
        digests = cohort.digests_of(self.digested or cohort.features)
        require_other_patients(cohort, digests, self.fitted_on, what)
        # Those of all features tell nothing where the cohort lacks one that no equation needs.
        needed = cohort.digests_of(needed_names(self.equations))
        require_other_patients(cohort, needed, self.fitted_on_needed, what)


def needed_names(equations: Mapping[ModelName, Equation]) -> tuple[str, ...]:
    """The columns that are in at least one of the equations, by their names."""
    return tuple(sorted({term.name for equation in equations.values() for term in equation.terms}))


def require_other_patients(cohort: Cohort, digests: Iterable[str], fitted_on: Iterable[str], what: str) -> None:
    """UserError if patients of the cohort have ``digests`` of those to whom ``what`` ('the models are') fitted."""
    known = set(fitted_on) - {""}
    again = [patient for patient, digest in zip(cohort.patients, digests) if digest in known]
    if again:
        raise UserError(
            f"{cohort.measures}: {count(len(again), 'patient')} ({listed(again[:3], 'and')}"
            f"{', ...' if len(again) > 3 else ''}) have exactly the features of patients that {what} fitted to; a test "
            "needs others"
        )


def frozen_model(
    cohort: Cohort, names: tuple[ModelName, ...], usable: np.ndarray, version: str, *, explore: bool
) -> OutcomeModel:
    """The models of all patients: fitted once more, in the same way as in each training part."""
    covariates = len(cohort.covariates)
    values_nd = cohort.values_nd[:, usable]
    column_names = [cohort.names[index] for index in usable]
    fitted = fitted_models(training_part(values_nd, covariates), cohort.has_event_n[None], names, SEED)
    equations = {name: _equation(models, column_names) for name, models in fitted.items()}
    return OutcomeModel(
        version=version,
        target=cohort.target,
        event=cohort.event,
        covariates=cohort.covariates,
        settings=cohort.settings,
        patients=len(cohort.patients),
        events=cohort.events,
        explore=explore,
        equations=equations,
        fitted_on=cohort.digests_of(cohort.features),
        digested=cohort.features,
        fitted_on_needed=cohort.digests_of(needed_names(equations)),
    )


def _equation(models: FittedModels, names: list[str]) -> Equation:
    """What is 0 is left out."""
    terms = []
    for column, coefficient, median in zip(models.columns_pk[0], models.coefficients_pk[0], models.medians_pk[0]):
        if coefficient:
            terms.append(Term(name=names[column], coefficient=float(coefficient), stand_in=float(median)))
    return Equation(intercept=float(models.intercept_p[0]), terms=tuple(terms))
