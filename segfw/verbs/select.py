"""``segfw select``: which configuration or pair of them is best in cross-validation, and what done to masks helps."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import aside, say_next
from segfw.inference.prediction_options import SelectOptions
from segfw.planning.work_log import log_in_work

if TYPE_CHECKING:
    from segfw.base.parallel import Outcome
    from segfw.inference.held_out import HeldOut
    from segfw.inference.predictor import Predictor
    from segfw.model.selection import Selection
    from segfw.networks import BuildNetwork
    from segfw.planning.plan import Plan
    from segfw.planning.splits import Splits

TABLE_FILE = "selection.txt"
LOCK_FILE = ".select.lock"


@takes_options(options=SelectOptions)
def select(work: Path, options: SelectOptions = SelectOptions(), *, build: BuildNetwork | None = None) -> Selection:
    """Scores all trained configurations and all pairs, and writes selection.json and selection.txt.

    Each validation case is predicted by the fold that did not see it; what is there from the same weights is kept. Only
    folds that all configurations have trained are compared.

    Parameters
    ----------
    work
        Work folder with trained folds.
    options
        The configurations to compare, by default all that are trained, and how they predict. ``groups`` tells the
        patient of every case (see ``read_groups``), which are drawn anew for intervals.
    build
        Makes the network of a NetworkSpec, where another one than the plan's was trained.

    Returns
    -------
    Selection
        What was chosen, which ``predict`` does without further options, and why.

    Raises
    ------
    UserError
        If there is nothing to compare.
    CasesFailed
        If cases could not be predicted or scored, after all others are done.
    """
    from segfw.base.files import write_text
    from segfw.base.locks import in_turn
    from segfw.inference.ranking import selection_table
    from segfw.model.source import SELECTION_FILE
    from segfw.networks import build_network
    from segfw.planning.work_folder import load_plan_and_splits

    work = Path(work)
    plan, splits = load_plan_and_splits(work)
    with in_turn(work / LOCK_FILE, f"{work}: is being selected from"):
        compared = _compared(work, plan, splits, options)
        failures = _predict(compared, options, build or build_network)
        selection = _selected(compared, failures)
        write_text(work / TABLE_FILE, selection_table(selection, plan.labels))
        selection.save(work / SELECTION_FILE)
        return selection


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """What is compared: configurations, with their trained folds, in the cases that ``folds`` held out."""

    work: Path
    plan: Plan
    splits: Splits
    trained: Mapping[str, Sequence[str]]
    folds: Sequence[str]  # that all of them have trained
    items: Sequence[HeldOut]  # each of these cases by each configuration
    patient_of: Mapping[str, str]
    notes: Sequence[str]


def _compared(work: Path, plan: Plan, splits: Splits, options: SelectOptions) -> _Compared:
    """What there is to compare, with notes of what is left out; UserError if there is nothing."""
    from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
    from segfw.dataset.patients import read_groups
    from segfw.inference.held_out import held_out_items
    from segfw.inference.ranking import compared_folds, trained_validating_folds
    from segfw.model.load import require_predicting

    for name in options.configurations or ():
        require_predicting(plan.configuration(name), work)
    cases = DatasetManifest.load(work / MANIFEST_FILE).cases
    ids = [case.id for case in cases]
    patient_of = read_groups(options.groups, ids, splits.patients_of(ids))
    names = options.configurations or plan.predicting
    every_trained = {name: trained_validating_folds(work, plan.configuration(name).name, splits) for name in names}
    folds, notes = compared_folds(every_trained, splits)
    trained = {name: of_this for name, of_this in every_trained.items() if of_this}
    for note in notes:
        print(f"note: {note}")
    how = f"step {options.step}, mirroring {options.mirroring}, precision {options.precision}"
    return _Compared(
        work=work,
        plan=plan,
        splits=splits,
        trained=trained,
        folds=folds,
        items=held_out_items(work, plan, splits, cases, tuple(trained), folds, how),
        patient_of=patient_of,
        notes=notes,
    )


def _predict(compared: _Compared, options: SelectOptions, build: BuildNetwork) -> list[Outcome[str, None]]:
    """Predicts every case that is not there yet by the fold that did not see it; returns the failures."""
    from segfw.inference.held_out import announce_held_out, predict_held_out
    from segfw.inference.predictor import Predictor
    from segfw.model.load import load_model

    work = compared.work

    def predictor_of(configuration: str, fold: str) -> Predictor:
        model = load_model(work, configuration, (fold,), previous_folds=(fold,))
        return Predictor.of(
            model,
            device=options.device,
            precision=options.precision,
            step=options.step,
            mirroring=options.mirroring,
            build=build,
        )

    waiting = [item for item in compared.items if not item.is_there(work)]
    if waiting:
        names = dict.fromkeys(item.configuration for item in waiting)
        predictors = {name: predictor_of(name, compared.folds[0]) for name in names}
        announce_held_out(work, compared.plan, waiting, predictors)
    return predict_held_out(work, waiting, predictor_of)


def _selected(compared: _Compared, failures: Sequence[Outcome[str, None]]) -> Selection:
    """Which candidate is best, and what done to its masks helps; CasesFailed where a case could not be looked at."""
    from itertools import combinations

    from segfw.base.parallel import CasesFailed
    from segfw.evaluation.metrics import mean
    from segfw.inference.decoding_trials import find_rule
    from segfw.inference.held_out import FOLDER, validating_folds
    from segfw.inference.held_out_counts import count_cases
    from segfw.inference.ranking import TOLERANCE, rank, simplest_of_the_best
    from segfw.model.selection import Selection

    work = compared.work
    plan = compared.plan

    # Which candidate is best
    candidates = [*((name,) for name in compared.trained), *combinations(compared.trained, 2)]
    failed_cases = {failure.item for failure in failures}
    counted, uncounted = count_cases(work, compared.items, candidates, without=failed_cases)
    failures = [*failures, *uncounted]
    if failures:
        raise CasesFailed("in cross-validation, so that nothing is selected", failures, work / FOLDER)
    ranked = rank(candidates, counted, plan)
    best = simplest_of_the_best(ranked)

    # Of which structures the mask of largest expected Dice is better, and which postprocessing helps then
    rule = find_rule(work, compared.items, best.configurations, plan.labels, counted, compared.patient_of)
    return Selection(
        configurations=best.configurations,
        folds={name: tuple(compared.trained[name]) for name in best.configurations},
        postprocessing=rule.postprocessing,
        compared_folds=tuple(compared.folds),
        cases=len(counted),
        is_whole_cross_validation=set(compared.folds) == set(validating_folds(compared.splits)),
        tolerance=TOLERANCE,
        candidates=tuple(ranked),
        trials=rule.trials,
        decoding_trials=rule.decoding_trials,
        labels=dict(rule.dice_of),
        foreground_mean=mean(rule.dice_of.values()),
        notes=tuple(compared.notes),
    )


def _say_result(typed: argparse.Namespace, selection: Selection) -> None:
    from segfw.model.source import SELECTION_FILE
    from segfw.quality.calibration_time import calibration_line

    aside((typed.work / TABLE_FILE).read_text(encoding="utf-8").rstrip())
    print(f"written: {typed.work / SELECTION_FILE}")
    line = calibration_line(typed.work, selection.configurations, typed.device, typed.groups)
    if line:
        aside(line)
    say_next("predict", typed.work, "NEW_IMAGES", "MASKS")


COMMAND = Command(
    function=select,
    what="Cross-validate all trained configurations and all pairs, and choose one and its postprocessing for predict.",
    example="segfw select work",
    arguments=(Argument(name="work", help="work folder with trained folds"),),
    say_result=_say_result,
    log_place=log_in_work,
)
