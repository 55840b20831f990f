"""``segfw select``: which configuration or pair of them is best in cross-validation, and what done to masks helps."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import aside, say_next
from segfw.inference.prediction_options import SelectOptions
from segfw.planning.work_log import log_in_work

if TYPE_CHECKING:
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
    from segfw.base.locks import in_turn
    from segfw.planning.work_folder import load_plan_and_splits

    work = Path(work)
    plan, splits = load_plan_and_splits(work)
    with in_turn(work / LOCK_FILE, f"{work}: is being selected from"):
        return _select(work, plan, splits, options, build)


def _select(work: Path, plan: Plan, splits: Splits, options: SelectOptions, build: BuildNetwork | None) -> Selection:
    """All that is written into the work folder, by one process at a time."""
    from itertools import combinations

    from segfw.base.files import write_text
    from segfw.base.parallel import CasesFailed
    from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
    from segfw.dataset.patients import read_groups
    from segfw.evaluation.metrics import mean
    from segfw.inference.decoding_trials import find_rule
    from segfw.inference.held_out import FOLDER, announce_held_out, held_out_items, predict_held_out, validating_folds
    from segfw.inference.held_out_counts import count_cases
    from segfw.inference.predictor import Predictor
    from segfw.inference.ranking import (
        TOLERANCE,
        compared_folds,
        rank,
        selection_table,
        simplest_of_the_best,
        trained_validating_folds,
    )
    from segfw.model.load import load_model, require_predicting
    from segfw.model.selection import Selection
    from segfw.model.source import SELECTION_FILE
    from segfw.networks import build_network

    # What is compared
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

    # Every validation case, by the fold that did not see it
    def predictor_of(configuration: str, fold: str) -> Predictor:
        model = load_model(work, configuration, (fold,), previous_folds=(fold,))
        return Predictor.of(
            model,
            device=options.device,
            precision=options.precision,
            step=options.step,
            mirroring=options.mirroring,
            build=build or build_network,
        )

    options_text = f"step {options.step}, mirroring {options.mirroring}, precision {options.precision}"
    items = held_out_items(work, plan, splits, cases, tuple(trained), folds, options_text)
    waiting = [item for item in items if not item.is_there(work)]
    if waiting:
        waiting_names = dict.fromkeys(item.configuration for item in waiting)
        announce_held_out(work, plan, waiting, {name: predictor_of(name, folds[0]) for name in waiting_names})
    failures = predict_held_out(work, waiting, predictor_of)

    # Which candidate is best
    candidates = [*((name,) for name in trained), *combinations(trained, 2)]
    counted, uncounted = count_cases(work, items, candidates, without={failure.item for failure in failures})
    failures += uncounted
    if failures:
        raise CasesFailed("in cross-validation, so that nothing is selected", failures, work / FOLDER)
    ranked = rank(candidates, counted, plan)
    best = simplest_of_the_best(ranked)

    # Of which structures the mask of largest expected Dice is better, and which postprocessing helps then
    rule = find_rule(work, items, best.configurations, plan.labels, counted, patient_of)
    selection = Selection(
        configurations=best.configurations,
        folds={name: tuple(trained[name]) for name in best.configurations},
        postprocessing=rule.postprocessing,
        compared_folds=tuple(folds),
        cases=len(counted),
        is_whole_cross_validation=set(folds) == set(validating_folds(splits)),
        tolerance=TOLERANCE,
        candidates=tuple(ranked),
        trials=rule.trials,
        decoding_trials=rule.decoding_trials,
        labels=dict(rule.dice_of),
        foreground_mean=mean(rule.dice_of.values()),
        notes=tuple(notes),
    )
    write_text(work / TABLE_FILE, selection_table(selection, plan.labels))
    selection.save(work / SELECTION_FILE)
    return selection


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
