"""Which configuration or pair of them is best in cross-validation, and which postprocessing helps: selection.json."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from segfw.base.files import write_text
from segfw.base.parallel import CasesFailed, Outcome
from segfw.base.progress import progress
from segfw.dataset.cases import DatasetManifest
from segfw.evaluation.metrics import mean
from segfw.inference.held_out import FOLDER, HeldOut, announce_held_out, model_digest, predict_held_out
from segfw.inference.held_out_counts import count_case, masks_of
from segfw.inference.postprocessing_trials import find_postprocessing
from segfw.inference.predictor import Predictor
from segfw.inference.ranking import (
    TOLERANCE,
    compared_folds,
    rank,
    selection_table,
    simplest_of_the_best,
    trained_validating_folds,
    validating_folds,
)
from segfw.model.load import load_model
from segfw.model.selection import Selection
from segfw.model.source import SELECTION_FILE
from segfw.networks import BuildNetwork, build_network
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.planning.splits import Splits
from segfw.verbs.plan_and_preprocess import MANIFEST_FILE, SPLITS_FILE

TABLE_FILE = "selection.txt"


def select(
    work: Path,
    *,
    configurations: Sequence[str] | None = None,
    step: float = 0.5,
    mirroring: bool = True,
    precision: str = "auto",
    device: str = "auto",
    build: BuildNetwork = build_network,
) -> Selection:
    """Scores all trained configurations (or those asked for) and all pairs, and writes selection.json and .txt.

    Each validation case is predicted by the fold that did not see it; what is there from the same weights is kept. Only
    folds that all configurations have trained are compared. Raises UserError if there is nothing to compare, and
    CasesFailed if cases could not be predicted, after all others are done.
    """
    work = Path(work)
    plan, splits, manifest = (
        kind.load(work / name)
        for kind, name in ((Plan, PLAN_FILE), (Splits, SPLITS_FILE), (DatasetManifest, MANIFEST_FILE))
    )
    names = tuple(configurations or plan.configurations)
    trained = {name: trained_validating_folds(work, plan.configuration(name).name, splits) for name in names}
    folds, notes = compared_folds(trained, splits)
    trained = {name: own for name, own in trained.items() if own}
    for note in notes:
        print(f"note: {note}")
    options = f"step {step}, mirroring {mirroring}, precision {precision}"
    digests = {(name, fold): model_digest(work, plan, name, fold, options) for name in trained for fold in folds}
    cases = {case.id: case for case in manifest.cases}
    fold_of = {case: fold for fold in reversed(folds) for case in splits.fold(fold).validation if case in cases}
    items = [
        HeldOut.of(cases[case], name, fold, digests[name, fold])
        for name in trained
        for case, fold in sorted(fold_of.items())
    ]

    def predictor_of(configuration: str, fold: str) -> Predictor:
        model = load_model(work, configuration, (fold,), previous_folds=(fold,))
        return Predictor.of(model, device=device, precision=precision, step=step, mirroring=mirroring, build=build)

    waiting = [item for item in items if not item.is_there(work)]
    if waiting:
        names = dict.fromkeys(item.configuration for item in waiting)
        announce_held_out(work, plan, waiting, {name: predictor_of(name, folds[0]) for name in names})
    failures = predict_held_out(work, waiting, predictor_of)
    candidates = [*((name,) for name in trained), *combinations(trained, 2)]
    counted, failed = {}, {failure.item for failure in failures}  # of which probabilities of old weights may be there
    for case in progress("scoring", sorted(fold_of.keys() - failed)):
        try:
            own = [item for item in items if item.case.id == case]
            counted[case] = count_case(work, cases[case], own, candidates)
        except Exception as error:  # one bad case must not cost the user the others
            failures.append(Outcome(item=case, error=error))
    if failures:
        raise CasesFailed("in cross-validation, so that nothing is selected", failures, work / FOLDER)
    ranked = rank(candidates, counted, plan)
    best = simplest_of_the_best(ranked)
    pairs = masks_of(work, items, best.configurations, plan.labels)
    postprocessing, trials, dice_of = find_postprocessing(pairs, plan.labels)
    selection = Selection(
        configurations=best.configurations,
        folds={name: tuple(trained[name]) for name in best.configurations},
        postprocessing=postprocessing,
        compared_folds=tuple(folds),
        cases=len(counted),
        is_whole_cross_validation=set(folds) == set(validating_folds(splits)),
        tolerance=TOLERANCE,
        candidates=tuple(ranked),
        trials=tuple(trials),
        labels=dice_of,
        foreground_mean=mean(dice_of.values()),
        notes=tuple(notes),
    )
    write_text(work / TABLE_FILE, selection_table(selection, plan.labels))
    selection.save(work / SELECTION_FILE)
    return selection
