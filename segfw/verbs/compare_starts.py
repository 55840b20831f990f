"""``segfw compare-starts``: whether pretraining, or another model's weights, make a better model in the same time."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.planning.work_log import log_in_work
from segfw.pretraining.compare_options import CompareOptions

if TYPE_CHECKING:
    from segfw.model.pretraining_record import PretrainingRecord
    from segfw.planning.plan import Configuration, Plan
    from segfw.planning.splits import Splits
    from segfw.pretraining.start_results import StartResult, StartsSummary
    from segfw.pretraining.start_trainings import StartsPlan

OUTPUT = "compare_starts"
LOCK_FILE = ".compare.lock"
ASKED_FILE = "asked.json"


@takes_options(options=CompareOptions)
def compare_starts(work: Path, options: CompareOptions = CompareOptions()) -> StartsSummary:
    """Trains networks from nothing and from pretrained weights on few labelled patients, and says what is gained.

    The network is pretrained once on all images that the fold does not validate on. Each training from it is compared
    with one from nothing that lasts longer by the time of the pretraining, and with one that lasts as long as itself.
    All are scored on the fold's validation cases, after a quarter of their schedule and at its end. Every finished
    training is a line of compare_starts.jsonl; the same call goes on after an interruption. compare_starts.html shows
    the gains, the arms over time, what was held equal and what stayed unseen.

    Parameters
    ----------
    work
        Work folder of ``plan_and_preprocess``.
    options
        How many labelled patients, how many seeds, for how long; ``init_from`` adds an arm.

    Returns
    -------
    StartsSummary
        Every gain with its 95 % interval by patient; 'no gain shown' where that spans 0.

    Raises
    ------
    UserError
        If there is no such plan, there are too few patients, it was begun with other options, or the model of
        ``init_from`` has seen images that are scored, without ``may_have_seen``.
    CasesFailed
        If cases could not be predicted or scored.
    """
    from segfw.base.locks import in_turn
    from segfw.planning.work_folder import load_plan_and_splits

    work = Path(work)
    plan, splits = load_plan_and_splits(work)
    output = options.output or work / OUTPUT
    chosen = _chosen(plan, options)
    _require_numbers(options)
    with in_turn(output / LOCK_FILE, f"{output}: starts are being compared"):
        return _compare(work, output, plan, splits, chosen, options)


def _chosen(plan: Plan, options: CompareOptions) -> Configuration:
    from segfw.planning.plan import FULLRES
    from segfw.verbs.pretrain import require_pretrainable

    names = list(plan.predicting)
    by_default = next(name for name in (plan.chosen, FULLRES, *names) if name in names)
    chosen = plan.configuration(options.configuration or by_default)
    require_pretrainable(chosen)
    return chosen


def _require_numbers(options: CompareOptions) -> None:
    from segfw.base.records import UserError

    for each in options.labelled.split(","):
        if each != "all" and not (each.isdecimal() and int(each) > 0):
            raise UserError(f"--labelled {options.labelled}: {each!r} is no number of patients; give such as 10,25,all")


def _compare(
    work: Path, output: Path, plan: Plan, splits: Splits, chosen: Configuration, options: CompareOptions
) -> StartsSummary:
    """All that is written, by one process at a time."""
    from segfw.pretraining.start_results import (
        ARMS,
        MODEL,
        RESULTS_FILE,
        append_result,
        read_results,
    )
    from segfw.pretraining.start_trainings import (
        labelled_cases,
        require_one_rule,
        train_and_score,
        training_patients,
    )

    fold = splits.fold(options.fold)
    common = _common(work, output, plan, chosen, splits, options)
    numbers = options.numbers(len(training_patients(splits, fold)))
    drawn = {(n, seed): labelled_cases(splits, fold, n, seed) for n in numbers for seed in range(options.seeds)}
    _keep_asked(output, options)
    path = output / RESULTS_FILE
    before = read_results(path)
    _require_same_folds(before, drawn, {case.id for case in common.cases}, output)
    done = {result.key for result in before}
    arms = [arm for arm in ARMS if arm != MODEL or options.init_from is not None]
    unfinished = [arm for arm in arms if any((*number, arm) not in done for number in drawn)]
    require_one_rule(common, [(*number, arm) for number in drawn for arm in unfinished])
    pretraining = _pretrain(work, plan, splits, chosen, common, options)
    for seed in range(options.seeds):  # a whole comparison of one seed first: it tells most
        for labelled in numbers:
            for arm in arms:
                if (labelled, seed, arm) not in done:
                    cases = drawn[labelled, seed]
                    print(f"{labelled} labelled ({len(cases)} cases), seed {seed}: {arm}")
                    append_result(path, train_and_score(common, labelled, seed, arm, cases))
    return _write(common, pretraining, splits.patients_of(fold.validation) or {}, options)


def _write(
    common: StartsPlan, pretraining: PretrainingRecord, patient_of: Mapping[str, str], options: CompareOptions
) -> StartsSummary:
    """The summary of all finished trainings, as JSON, as a table and as a page."""
    from segfw.base.files import write_text
    from segfw.base.own_version import own_version
    from segfw.pretraining.start_results import (
        MODEL,
        PRETRAINED,
        RESULTS_FILE,
        SUMMARY_FILE,
        TABLE_FILE,
        Arm,
        StartsSummary,
        gains_csv,
        gains_of,
        read_results,
    )
    from segfw.pretraining.starts_page import PAGE_FILE, ComparedStarts, write_starts_page
    from segfw.pretraining.unseen_images import model_guard, pretraining_guard

    output = common.output
    results = read_results(output / RESULTS_FILE)
    guards: dict[Arm, str] = {PRETRAINED: pretraining_guard(pretraining, options.fold)}
    seen = tuple(common.seen_by_model)
    if common.model is not None:
        guards[MODEL] = model_guard(common.model, options.fold, common.seen_by_model)
    elif (output / SUMMARY_FILE).is_file():  # of an earlier call
        earlier = StartsSummary.load(output / SUMMARY_FILE)
        guards = {**earlier.guards, **guards}
        seen = earlier.seen_by_model
    summary = StartsSummary(
        asked=options.decisive(),
        pretrain_s=common.pretrain_s,
        gains=gains_of(results, patient_of),
        guards=guards,
        seen_by_model=seen,
        fewest_steps=min((result.steps for result in results), default=None),
    )
    summary.save(output / SUMMARY_FILE)
    write_text(output / TABLE_FILE, gains_csv(summary.gains))
    compared = ComparedStarts(
        output=output,
        configuration=common.configuration.name,
        summary=summary,
        results=tuple(results),
        patient_of=patient_of,
        pretraining=pretraining,
        version=own_version(),
    )
    write_starts_page(output / PAGE_FILE, compared)
    return summary


def _common(
    work: Path, output: Path, plan: Plan, chosen: Configuration, splits: Splits, options: CompareOptions
) -> StartsPlan:
    from segfw.base.ranks import local_device
    from segfw.base.records import UserError
    from segfw.dataset.annotated_structures import annotated_outputs_of
    from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
    from segfw.pretraining.given_start import given_start
    from segfw.pretraining.start_trainings import StartsPlan, scored_cases
    from segfw.pretraining.unseen_images import require_not_scored

    fold = splits.fold(options.fold)
    if not fold.validation:
        raise UserError(f"fold {options.fold} validates on no case, so there is none that no arm sees; give another")
    scored = scored_cases(splits, fold, options.test_patients)
    cases = DatasetManifest.load(work / MANIFEST_FILE).cases
    model = None
    seen: dict[str, str] = {}
    if options.init_from is not None:
        model = given_start(options.init_from, chosen, options.fold)
        validation = [case for case in cases if case.id in set(fold.validation)]
        preprocessed = work / "preprocessed" / chosen.data_name
        seen = require_not_scored(model, validation, preprocessed, options.fold, may_have_seen=options.may_have_seen)
    return StartsPlan(
        work=work,
        output=output,
        plan=plan,
        configuration=chosen,
        cases=tuple(case for case in cases if case.id in scored),
        annotated=annotated_outputs_of(plan.labels, cases),
        time_budget_s=options.time_budget_s,
        pretrain_s=options.pretrain_s or options.time_budget_s,
        pretrained=output / "pretrained",
        model=model,
        seen_by_model=seen,
        device=str(local_device(options.device)),
    )


def _require_same_folds(
    results: Sequence[StartResult],
    drawn: Mapping[tuple[str, int], tuple[str, ...]],
    scored: Set[str],
    output: Path,
) -> None:
    """UserError if finished trainings are of other folds, as after planning anew: they cannot be compared."""
    from segfw.base.records import UserError

    for result in results:
        if drawn.get((result.labelled, result.seed), result.cases) != result.cases or set(result.end) != scored:
            raise UserError(f"{output}: was begun with other folds than the work folder has now; give another --output")


def _pretrain(
    work: Path, plan: Plan, splits: Splits, chosen: Configuration, common: StartsPlan, options: CompareOptions
) -> PretrainingRecord:
    from segfw.pretraining.pretrain_options import PretrainOptions
    from segfw.verbs.pretrain import pretrain_into

    asked = PretrainOptions(
        images=options.images,
        keep_out=options.keep_out,
        folds=(options.fold,),
        time_budget_s=common.pretrain_s,
        device=options.device,
    )
    return pretrain_into(common.pretrained, work, plan, splits, chosen, asked)


def _keep_asked(output: Path, options: CompareOptions) -> None:
    """UserError if the folder was begun with other options."""
    import json

    from segfw.base.files import write_text
    from segfw.base.records import UserError
    from segfw.base.written_by_people import read_json

    path = output / ASKED_FILE
    asked = options.decisive()
    if options.init_from is not None:  # a third arm may be added later, and is then of this model alone
        asked["init_from"] = str(options.init_from.resolve())
    before = read_json(path) if path.is_file() else {}
    for name, now in asked.items():
        if before and before.get(name, now if name == "init_from" else None) != now:
            raise UserError(f"{output}: was begun with {name} {before.get(name)}, not {now}; give another --output")
    if not asked.keys() <= before.keys():
        write_text(path, json.dumps({**before, **asked}, indent=1) + "\n")


def _say_result(typed: argparse.Namespace, summary: StartsSummary) -> None:
    from segfw.pretraining.start_results import SUMMARY_FILE, table_text
    from segfw.pretraining.starts_page import PAGE_FILE

    print(table_text(summary))
    output = typed.output or typed.work / OUTPUT
    print(f"written: {output / PAGE_FILE}, {output / SUMMARY_FILE}")


COMMAND = Command(
    function=compare_starts,
    what="Tell whether pretraining, or another model's weights, make a better model in the same time.",
    example="segfw compare-starts work --time-budget 12m",
    arguments=(Argument(name="work", help="work folder of plan-and-preprocess"),),
    say_result=_say_result,
    log_place=log_in_work,
)
