"""From one cohort to judged and frozen models, and from frozen models to figures of another cohort."""

# N patients, R repeats

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfw.base.own_version import own_version
from segfw.base.records import UserError
from segfw.base.words import count
from segfw.outcomes.cohorts import Cohort, LeftOut
from segfw.outcomes.feature_table import listed_features
from segfw.outcomes.fitting_models import MODELS, FittedModels, ModelName
from segfw.outcomes.nested_validation import REPEATS, permutation_tests, validate
from segfw.outcomes.outcome_model import OutcomeModel, frozen_model
from segfw.outcomes.outcome_options import OutcomeOptions
from segfw.outcomes.outcome_report import (
    FEW_TEST_EVENTS,
    FEWEST_EVENTS,
    FeatureShare,
    ModelFigures,
    OutcomeReport,
    SecondCohort,
    feature_shares,
    gain_of_features,
    model_figures,
)

FEWEST_OF_ALL = 4  # events, so that each part of a part has one
ONLY_FEATURES: tuple[ModelName, ...] = ("features",)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Probabilities of a cohort's patients by each model (R, N), of held-out patients or by frozen models."""

    patients: tuple[str, ...]
    has_event_n: np.ndarray
    probabilities: dict[ModelName, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Study:
    """What was found on the cohort that models are fitted to."""

    cohort: Cohort
    model: OutcomeModel
    scored: Scored
    figures: dict[ModelName, ModelFigures]
    shares: tuple[FeatureShare, ...]
    notes: tuple[str, ...]
    features: int
    imputed: float


def require_enough_events(cohort: Cohort, *, explore: bool) -> None:
    """UserError for fewer than 20 events, or with ``explore`` for so few that nothing can be done at all."""
    events = cohort.events
    if events < FEWEST_OF_ALL:
        raise UserError(
            f"{cohort.table}: {count(events, 'patient')} of {len(cohort.patients)} have the rarer outcome; fewer than "
            f"{FEWEST_OF_ALL} cannot be split into training and held-out parts: collect more"
        )
    if events < FEWEST_EVENTS and not explore:
        raise UserError(
            f"{cohort.table}: {count(events, 'patient')} of {len(cohort.patients)} have the rarer outcome, and a model "
            f"of fewer than {FEWEST_EVENTS} says next to nothing; collect more, or give --explore, which is then said "
            "everywhere"
        )


def usable_columns(cohort: Cohort, listed: Path | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Covariates and the features that may be taken, as columns; and what is to be said of those left out."""
    covariates = len(cohort.covariates)
    if listed is None:
        return np.arange(len(cohort.names)), ()
    taken, _ = listed_features(listed)
    is_taken = [index < covariates or name in taken for index, name in enumerate(cohort.names)]
    features = sum(is_taken) - covariates
    if not features:
        raise UserError(
            f"{listed}: none of its features that may be taken is in {cohort.measures}, such as "
            f"{cohort.features[0]!r}; give the table of the same measures"
        )
    note = f"{listed.name} leaves {features} of {count(len(cohort.features), 'feature')}"
    return np.flatnonzero(is_taken), (note,)


def study(
    cohort: Cohort,
    listed: Path | None,
    *,
    permutations: int,
    explore: bool,
    repeats: int = REPEATS,
    progress: Callable[[str, Sequence[int]], Iterable[int]],
) -> Study:
    """Cross-validation, permutations, and the models of all patients."""
    usable, notes = usable_columns(cohort, listed)
    covariates = len(cohort.covariates)
    values_nd = cohort.values_nd[:, usable]
    names = MODELS if covariates else ONLY_FEATURES
    validation = validate(values_nd, covariates, cohort.has_event_n, names, repeats=repeats, progress=progress)
    tests = permutation_tests(
        values_nd, covariates, cohort.has_event_n, names, permutations=permutations, progress=progress
    )
    figures = {
        name: model_figures(
            validation.probabilities[name], cohort.has_event_n, p=tests[name].p, permutations=permutations
        )
        for name in names
    }
    model = frozen_model(cohort, names, usable, own_version(), explore=explore)
    column_names = [cohort.names[index] for index in usable]
    considered, used = _shares(validation.models["features"], column_names)
    if not covariates:
        notes = (*notes, "no covariates were given, so nobody knows whether features add to what is known anyway")
    if explore and cohort.events < FEWEST_EVENTS:
        few = f"{count(cohort.events, 'event')} only: this explores, and no figure here can be relied on"
        notes = (few, *notes)
    missing = np.isnan(values_nd[:, covariates:])
    if missing.any():
        share = f"{100 * missing.mean():.1f} %"
        notes = (
            *notes,
            f"{share} of the features' values are missing: features that lack more than a fifth of the training "
            "patients are left out, others take the median of the training patients",
        )
    return Study(
        cohort=cohort,
        model=model,
        scored=Scored(patients=cohort.patients, has_event_n=cohort.has_event_n, probabilities=validation.probabilities),
        figures=figures,
        shares=feature_shares(considered, used, model),
        notes=(*cohort.notes, *notes),
        features=values_nd.shape[1] - covariates,
        imputed=float(missing.mean()),
    )


def _shares(models: Sequence[FittedModels], names: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Of all training parts, those in which each feature was considered, and used."""
    considered: Counter[str] = Counter()
    used: Counter[str] = Counter()
    for each in models:
        for column, coefficient in zip(each.columns_pk[0], each.coefficients_pk[0]):
            considered[names[column]] += 1
            used[names[column]] += int(coefficient != 0)
    parts = len(models)
    shares = {name: number / parts for name, number in considered.items()}
    return shares, {name: number / parts for name, number in used.items()}


def tested(model: OutcomeModel, cohort: Cohort) -> tuple[SecondCohort, Scored]:
    """How frozen models do on a cohort; ``model.require_for`` is to be asked before."""
    probabilities = {name: found_n[None] for name, found_n in model.probabilities(cohort).items()}
    notes = list(cohort.notes)
    if cohort.events < FEW_TEST_EVENTS:
        notes.append(
            f"{count(cohort.events, 'event')} of the rarer outcome: fewer than {FEW_TEST_EVENTS} say little of "
            "calibration"
        )
    missing = model.missing(cohort)
    if missing:
        notes.append(
            f"{count(sum(missing.values()), 'value')} that the models need are missing; the median of the first cohort "
            "stands in"
        )
    figures = SecondCohort(
        measures=cohort.measures.as_posix(),
        table=cohort.table.as_posix(),
        patients=len(cohort.patients),
        events=cohort.events,
        left_out=cohort.left_out,
        stand_ins=missing,
        models={name: model_figures(found, cohort.has_event_n) for name, found in probabilities.items()},
        gain=gain_of_features(probabilities, cohort.has_event_n),
        notes=tuple(notes),
    )
    scored = Scored(patients=cohort.patients, has_event_n=cohort.has_event_n, probabilities=probabilities)
    return figures, scored


def foretold(cohort: Cohort) -> OutcomeReport:
    """What is known before anything is fitted."""
    covariates = len(cohort.covariates)
    return OutcomeReport(
        version=own_version(),
        measures=cohort.measures.as_posix(),
        table=cohort.table.as_posix(),
        target=cohort.target,
        event=cohort.event,
        explore=cohort.events < FEWEST_EVENTS,
        patients=len(cohort.patients),
        events=cohort.events,
        covariates=tuple(each.name for each in cohort.covariates),
        features=len(cohort.features),
        settings=cohort.settings,
        left_out=cohort.left_out,
        imputed=float(np.isnan(cohort.values_nd[:, covariates:]).mean()),
        models={},
        gain=None,
        shares=(),
        formulas={},
        test=None,
        notes=cohort.notes,
    )


def report_of_study(found: Study, test: SecondCohort | None, options: OutcomeOptions) -> OutcomeReport:
    """Of models that were fitted, and of a second cohort if there is one."""
    scored = found.scored
    changes = {
        "features": found.features,
        "imputed": found.imputed,
        "models": found.figures,
        "gain": gain_of_features(scored.probabilities, scored.has_event_n),
        "shares": found.shares,
        "formulas": {name: equation.text for name, equation in found.model.equations.items()},
        "test": test,
        "notes": found.notes,
        "asked": options.as_json(),
    }
    return foretold(found.cohort).model_copy(update=changes)


def report_of_test(model: OutcomeModel, cohort: Cohort, test: SecondCohort, options: OutcomeOptions) -> OutcomeReport:
    """Of frozen models alone. Patients and events are those that they were fitted to."""
    changes = {
        "explore": model.explore and model.events < FEWEST_EVENTS,
        "patients": model.patients,
        "events": model.events,
        "formulas": {name: equation.text for name, equation in model.equations.items()},
        "test": test,
        "left_out": LeftOut(),
        "notes": (),
        "asked": options.as_json(),
    }
    return foretold(cohort).model_copy(update=changes)
