"""``segfw outcome``: what features of masks say of an outcome, judged on patients that were not fitted to."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.outcomes.outcome_options import OutcomeOptions

if TYPE_CHECKING:
    from segfw.outcomes.cohorts import Cohort
    from segfw.outcomes.outcome_model import OutcomeModel
    from segfw.outcomes.outcome_report import OutcomeReport


@takes_options(options=OutcomeOptions)
def outcome(
    measures: Path, table: Path, target: str, output: Path, options: OutcomeOptions = OutcomeOptions()
) -> OutcomeReport:
    """Fits logistic models of an outcome to features and covariates, and tells how they do on held-out patients.

    Nested cross-validation with whole patients: 5 folds, 10 times. Inside of each training part alone, features that
    are nearly constant or like another one are left out, at most one feature for ten events (and at least 3) is handed
    on by minimum redundancy and maximum relevance, and a logistic regression with an L1 penalty, chosen on inner folds,
    is fitted. There are always three models where covariates are given: of them, of features, and of both.

    Parameters
    ----------
    measures
        The table that ``measure`` wrote (NAME.csv or NAME_radiomics.csv), or another one of cases and numbers.
    table
        A row for each patient or case, with the outcome and the covariates.
    target
        The column of the outcome.
    output
        Folder for outcome.json, outcome_model.json, outcome.html and tables.
    options
        ``covariates`` are columns of the table. ``features`` is NAME_stability.csv of ``measure``. ``test`` are
        measures and table of a second cohort, on which the frozen models are tried; with ``model`` those of a file
        are tried on ``measures`` and ``table``, and nothing is fitted.

    Returns
    -------
    OutcomeReport
        ``models`` has AUC, calibration and p of each model; ``test`` the same of the second cohort. With ``dry_run``
        both are empty, and what would be fitted is told.

    Raises
    ------
    UserError
        If a table, a column or a value is wrong, all patients have one outcome, or fewer than 20 have the rarer one
        and ``explore`` is not given.
    """
    from segfw.outcomes.outcome_files import write_study
    from segfw.outcomes.outcome_study import foretold, report_of_study, report_of_test, study, tested

    cohort, second, model = _read(measures, table, target, output, options)
    if options.dry_run:
        return foretold(cohort)
    if model is not None:
        figures, scored = tested(model, cohort)
        report = report_of_test(model, cohort, figures, options)
        write_study(Path(output), report, None, None, scored)
        return report
    found = study(
        cohort,
        options.features,
        permutations=options.permutations,
        explore=options.explore,
        progress=_progress(),
    )
    report = report_of_study(found, None, options)
    write_study(Path(output), report, found.model, found.scored, None)
    if second is None:
        return report
    # The study is written by now: a second cohort that lacks a feature of the model costs no second fit.
    found.model.require_for(second, Path(output) / "outcome_model.json")
    test, scored_test = tested(found.model, second)
    report = report_of_study(found, test, options)
    write_study(Path(output), report, found.model, found.scored, scored_test)
    return report


def _read(
    measures: Path, table: Path, target: str, output: Path, options: OutcomeOptions
) -> tuple[Cohort, Cohort | None, OutcomeModel | None]:
    """The cohort, the second one, and the model that is only tried; all that can be wrong is told here."""
    from segfw.base.records import UserError
    from segfw.outcomes.outcome_files import require_own_outputs
    from segfw.outcomes.outcome_model import OutcomeModel
    from segfw.outcomes.outcome_study import require_enough_events, usable_columns

    require_own_outputs(Path(output))
    if options.model is not None:
        for name, value in (
            ("--test", options.test),
            ("--covariates", options.covariates),
            ("--features", options.features),
        ):
            if value is not None:
                raise UserError(f"{name} is of fitting, and --model only tries a frozen model; leave one of them out")
        if Path(options.model).resolve().parent == Path(output).resolve():
            raise UserError(f"--output {output}: holds the study that the model is of; give another folder")
        model = OutcomeModel.load(options.model)
        cohort = _cohort(measures, table, target, options, model)
        model.require_for(cohort, options.model)
        return cohort, None, model
    cohort = _cohort(measures, table, target, options, None)
    require_enough_events(cohort, explore=options.explore)
    usable_columns(cohort, options.features)
    second = None
    if options.test is not None:
        second = _second_cohort(cohort, target, options)
    return cohort, second, None


def _cohort(measures: Path, table: Path, target: str, options: OutcomeOptions, model: OutcomeModel | None) -> Cohort:
    from segfw.outcomes.cohorts import joined_cohort
    from segfw.outcomes.feature_table import read_features
    from segfw.outcomes.outcome_table import read_outcomes

    columns = _columns(options.covariates) if model is None else [each.column for each in model.covariates]
    return joined_cohort(
        read_features(Path(measures)),
        read_outcomes(Path(table), target, columns),
        event=options.event if model is None else options.event or model.event,
        covariates=None if model is None else model.covariates,
        by_patient=options.by_patient,
    )


def _second_cohort(cohort: Cohort, target: str, options: OutcomeOptions) -> Cohort:
    from segfw.outcomes.cohorts import joined_cohort, require_same_settings, with_note_of_names
    from segfw.outcomes.feature_table import read_features
    from segfw.outcomes.outcome_model import require_other_patients
    from segfw.outcomes.outcome_table import read_outcomes

    assert options.test is not None
    measures, table = options.test
    columns = [each.column for each in cohort.covariates]
    # A table of the first cohort's patients says nothing of the second's; an expression may.
    is_table = options.by_patient is not None and Path(options.by_patient).is_file()
    second = joined_cohort(
        read_features(measures),
        read_outcomes(table, target, columns),
        event=cohort.event,
        covariates=cohort.covariates,
        by_patient=None if is_table else options.by_patient,
    )
    require_same_settings(second, cohort.settings, cohort.measures)
    # Another table of the same patients may have other columns: what both have is compared.
    shared = cohort.digests_of(second.features)
    require_other_patients(second, second.digests_of(cohort.features), shared, "the models are")
    return with_note_of_names(second, cohort.patients)


def _columns(typed: Sequence[str] | None) -> list[str]:
    """Names with commas between them, or several of them."""
    return [name.strip() for each in typed or () for name in each.split(",") if name.strip()]


def _progress() -> Callable[[str, Sequence[int]], Iterable[int]]:
    from segfw.base.progress import progress_bar

    def shown(what: str, steps: Sequence[int]) -> Iterator[int]:
        with progress_bar(what, len(steps), unit="step") as bar:
            for step in steps:
                yield step
                bar.update()

    return shown


def _foretell(measures: Path, table: Path, target: str, output: Path, options: OutcomeOptions) -> OutcomeReport:
    from segfw.outcomes.outcome_study import foretold

    cohort, _, _ = _read(measures, table, target, output, options)
    return foretold(cohort)


def _say_result(typed: argparse.Namespace, report: OutcomeReport) -> None:
    print(report)
    print(f"written: {typed.output / 'outcome.html'}, {typed.output / 'outcome.json'}")


COMMAND = Command(
    function=outcome,
    what="Fit models of an outcome to measures of masks and judge them on held-out patients, without leaks.",
    example="segfw outcome measures.csv patients.csv --target died --covariates age,sex --output outcome",
    arguments=(
        Argument(name="measures", help="table of segfw measure, such as NAME_radiomics.csv; or of cases and numbers"),
        Argument(name="table", help="table of patients or cases with their outcome"),
        Argument(name="target", help="column of TABLE with the outcome", parse=str, shown="--target"),
        Argument(name="output", help="folder for the report, the frozen model and tables", shown="--output"),
    ),
    say_result=_say_result,
    gives_json=True,
    foretell=_foretell,
)
