"""``segfw plan-and-preprocess``: a work folder that training can start from; what is done is not done again."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import say_next
from segfw.planning.request import PlanRequest, PrepareOptions
from segfw.planning.work_log import log_in_work

if TYPE_CHECKING:
    import torch

    from segfw.dataset.cases import DatasetManifest, FoundDataset
    from segfw.grid.store import DecodedCases
    from segfw.planning.fingerprint import Fingerprint
    from segfw.planning.plan import Plan
    from segfw.planning.splits import Splits

KEPT_SHARE = 0.1  # of the free memory for cases that were read for planning and wait to be preprocessed


@takes_options(request=PlanRequest, options=PrepareOptions)
def plan_and_preprocess(
    raw: Path,
    work: Path,
    request: PlanRequest = PlanRequest(),
    options: PrepareOptions = PrepareOptions(),
    *,
    when_planned: Callable[[Plan], None] | None = None,
) -> Plan:
    """Verifies the data, plans, draws the folds and preprocesses; what is there from the same files is kept.

    Parameters
    ----------
    raw
        Folder of images and masks, in any layout that is read.
    work
        Folder that gets manifest.json, fingerprint.json, plan.json, splits.json and preprocessed/.
    request
        What is asked of the plan. ``gpu_memory_gb`` is the memory to fill; 'auto' reads that of the device, None takes
        what the preset was published with, or the device's memory if that is less. ``groups`` says which cases are of
        one patient: a CSV file, or a regular expression with one group; None guesses from the names. ``splits`` is a
        file of given folds; ``leave_out_by`` ('sites.csv:site') makes a fold for each value of a table's column, which
        trains without its cases. ``plans`` are nnU-Net's plans to follow to the letter instead of planning. ``cluster``
        is the address of a Dask scheduler, whose workers preprocess; cases are read for the plan by ``workers`` threads
        here.
    options
        Where and how far to go. A plan that was made from the same data for the same request is kept, on whatever
        device, unless ``overwrite``.
    when_planned
        Is called with the plan once it and the folds are in the work folder, before cases are preprocessed.

    Returns
    -------
    Plan
        The plan in ``work``.

    Raises
    ------
    UserError
        If the data have problems or another plan is already trained here.
    CasesFailed
        If cases could not be preprocessed.
    """
    from segfw.base.device import pick_device
    from segfw.base.file_names import PLAN_LOCK_FILE
    from segfw.base.locks import in_turn
    from segfw.base.resources import free_memory_bytes
    from segfw.grid.store import DecodedCases
    from segfw.planning.kept_scan import kept_or_new_scan

    raw = Path(raw)
    work = Path(work)
    device = pick_device(options.device)
    found = _found_and_checked(raw, work, request, options)
    with in_turn(work / PLAN_LOCK_FILE, f"{work}: is being planned or preprocessed"):
        keeps_cases = not options.plan_only and request.cluster is None
        decoded = DecodedCases(KEPT_SHARE * free_memory_bytes() if keeps_cases else 0)
        manifest, fingerprint = kept_or_new_scan(found, work, request.workers, options.overwrite, decoded)
        plan = _decided(found, manifest, fingerprint, work, request, options, device)
        if when_planned is not None:
            when_planned(plan)
        if not options.plan_only:
            _preprocess(plan, manifest, fingerprint, raw, work, request, decoded)
        return plan


def _found_and_checked(
    raw: Path, work: Path, request: PlanRequest, options: PrepareOptions, *, writes: bool = True
) -> FoundDataset:
    """The data set's files; UserError for all that is wrong and can be told before they are read for hours."""
    from segfw.base.cluster import require_cluster
    from segfw.base.output_paths import require_outside
    from segfw.base.records import UserError
    from segfw.dataset.layouts import find_dataset
    from segfw.dataset.pseudonyms import with_pseudonyms
    from segfw.nnunet.followed_plans import require_nothing_else
    from segfw.nnunet.read_plans import read_json
    from segfw.planning.folds_asked_for import expected_folds
    from segfw.planning.plan import REFINE
    from segfw.planning.planner import require_known, require_plannable
    from segfw.planning.splits import require_fold
    from segfw.planning.work_folder import require_own_folder

    found = find_dataset(raw, request.label_names)
    require_own_folder(work)
    require_outside(work, (raw,))
    if request.pseudonyms is not None:
        require_outside(request.pseudonyms, (raw, work))
        found = with_pseudonyms(found, request.pseudonyms, writes=writes)
    require_plannable(request)
    if request.plans is not None and REFINE in (request.configurations or ()):
        raise UserError(
            f"--plans {request.plans}: is followed to the letter, and nnU-Net has no {REFINE}; leave one of them out"
        )
    if request.plans is not None:
        require_nothing_else(request.plans, request)
        require_known(request.configurations or (), read_json(request.plans).get("configurations", ()))
    folds = expected_folds(found, request)
    for fold in options.folds:
        require_fold(fold, folds)
    if request.cluster is not None and not options.plan_only:
        require_cluster(request.cluster, reads=[raw.absolute()])
    return found


def _decided(
    found: FoundDataset,
    manifest: DatasetManifest,
    fingerprint: Fingerprint,
    work: Path,
    request: PlanRequest,
    options: PrepareOptions,
    device: torch.device,
) -> Plan:
    """Decides the plan and the folds, writes them into the work folder and says what was decided."""
    from segfw.base.shell_line import shell_line
    from segfw.base.words import count
    from segfw.planning.folds_asked_for import import_or_draw_splits
    from segfw.planning.plan import PLAN_FILE
    from segfw.planning.planner import require_possible
    from segfw.planning.splits import SPLITS_FILE
    from segfw.planning.work_folder import keep_decision

    plan = _plan(work, manifest, fingerprint, request, options, device)
    keep_decision(work, PLAN_FILE, plan, options.overwrite)
    require_possible(request.configurations or (), plan, is_given=request.plans is not None)
    folds, notes = import_or_draw_splits(found, manifest, fingerprint, request)
    for fold in options.folds:
        folds.fold(fold)  # or a UserError
    keep_decision(work, SPLITS_FILE, folds, options.overwrite)
    print("\n  ".join([folds.source, *notes]))
    explained = f"{shell_line('segfw', 'info', work)} explains it"
    print(f"planned {', '.join(plan.configurations)} for {count(len(manifest.cases), 'case')}; {explained}")
    return plan


def _preprocess(
    plan: Plan,
    manifest: DatasetManifest,
    fingerprint: Fingerprint,
    raw: Path,
    work: Path,
    request: PlanRequest,
    decoded: DecodedCases,
) -> None:
    """Preprocesses the cases, once for configurations that share them; ``decoded`` are still in memory."""
    from segfw.base.cluster import cluster_pool
    from segfw.base.parallel import FAILURES_FILE, CasesFailed
    from segfw.dataset.cases import with_absolute_paths
    from segfw.grid.store import preprocess_dataset
    from segfw.planning.preprocessed_bytes import float32_bytes

    names = _prepared(plan, request)
    if plan.chosen and not request.configurations:
        print(plan.reasons[-1])
    chosen = {plan.configurations[name].data_name: None for name in names}
    recipes = {name: plan.configurations[name].preprocessing for name in chosen}
    case_bytes = {case.id: float32_bytes(case, plan) for case in fingerprint.cases}
    folder = work / "preprocessed"
    if request.cluster is None:
        failures = preprocess_dataset(
            manifest.cases,
            manifest.labels,
            recipes,
            folder,
            case_bytes=case_bytes,
            decoded=decoded,
            workers=request.workers,
        )
    else:
        cases = with_absolute_paths(manifest.cases)
        with cluster_pool(request.cluster, reads=[raw.absolute()], writes=folder.absolute()) as pool:
            failures = preprocess_dataset(
                cases, manifest.labels, recipes, folder.absolute(), case_bytes=case_bytes, pool=pool
            )
    if failures:
        raise CasesFailed("in preprocessing", failures, work)
    (work / FAILURES_FILE).unlink(missing_ok=True)
    print(f"preprocessed {', '.join(recipes)} into {folder}")


def _prepared(plan: Plan, request: PlanRequest) -> tuple[str, ...]:
    """The configurations whose cases are preprocessed: a refiner needs those of what finds the masks as well."""
    names = request.configurations or ((plan.chosen,) if plan.chosen else tuple(plan.configurations))
    firsts = [plan.configurations[name].previous_stage for name in names if plan.configurations[name].is_refiner]
    return (*names, *(first for first in firsts if first is not None))


@dataclass(frozen=True, kw_only=True)
class ForetoldWork:
    """What a work folder would hold: all that is decided before anything is written."""

    manifest: DatasetManifest
    plan: Plan
    splits: Splits
    notes: tuple[str, ...]  # on the folds
    findings: tuple[str, ...]  # of the data that keep nothing from starting
    structure_shares: dict[str, float]  # of the cases


def foretell_work(raw: Path, work: Path, request: PlanRequest, options: PrepareOptions) -> ForetoldWork:
    """Reads the data and decides as ``plan_and_preprocess`` does, and writes nothing.

    What the work folder holds of the same data for the same request is taken from there. Raises UserError for all that
    ``plan_and_preprocess`` would refuse before it preprocesses.
    """
    from segfw.base.device import pick_device
    from segfw.planning.fingerprint import scan_dataset
    from segfw.planning.folds_asked_for import import_or_draw_splits
    from segfw.planning.kept_scan import kept_scan
    from segfw.planning.plan import PLAN_FILE
    from segfw.planning.planner import require_possible
    from segfw.planning.splits import SPLITS_FILE
    from segfw.planning.structure_sizes import structure_shares
    from segfw.planning.work_folder import require_keepable

    device = pick_device(options.device)
    found = _found_and_checked(raw, work, request, options, writes=False)
    manifest, fingerprint = kept_scan(found, work) or scan_dataset(found, workers=request.workers)
    plan = _plan(work, manifest, fingerprint, request, options, device)
    require_possible(request.configurations or (), plan, is_given=request.plans is not None)
    require_keepable(work, PLAN_FILE, plan, options.overwrite)
    splits, notes = import_or_draw_splits(found, manifest, fingerprint, request)
    for fold in options.folds:
        splits.fold(fold)  # or a UserError
    require_keepable(work, SPLITS_FILE, splits, options.overwrite)
    return ForetoldWork(
        manifest=manifest,
        plan=plan,
        splits=splits,
        notes=tuple(notes),
        structure_shares=structure_shares(fingerprint, plan.labels),
        findings=tuple(finding.full_sentence for finding in found.findings),
    )


def _plan(
    work: Path,
    manifest: DatasetManifest,
    fingerprint: Fingerprint,
    request: PlanRequest,
    options: PrepareOptions,
    device: torch.device,
) -> Plan:
    """The plan, kept or new, with a refiner where one is asked for or was planned before."""
    from segfw.base.device import device_name
    from segfw.planning.plan import PLAN_FILE, REFINE, Plan
    from segfw.planning.plan_for_device import measure_plan, training_device, with_estimates
    from segfw.planning.refiner_plan import first_of_refiner, with_refiner
    from segfw.planning.work_folder import trained_by_plan

    refiner = None
    if (work / PLAN_FILE).is_file() and (trained_by_plan(work) or not options.overwrite):
        refiner = Plan.load(work / PLAN_FILE).configurations.get(REFINE)
    plan = _plan_of_others(work, manifest, fingerprint, request, options, device)
    if REFINE in plan.configurations or (refiner is None and REFINE not in (request.configurations or ())):
        return plan
    if refiner is not None and trained_by_plan(work):  # measured anew it might be another one
        return plan.model_copy(update={"configurations": {**plan.configurations, REFINE: refiner}})
    target = training_device(device)
    first = first_of_refiner(plan, request.configurations or (), _wholly_trained(work, plan))
    plan = with_refiner(plan, first, target.probe_flops)
    if target.measure is None or plan.configurations[REFINE].estimate.device not in ("", device_name(device)):
        return plan
    alone = plan.model_copy(update={"configurations": {REFINE: plan.configurations[REFINE]}})
    alone = with_estimates(alone, target, measure_plan(alone, target))
    return plan.model_copy(update={"configurations": {**plan.configurations, **alone.configurations}})


def _wholly_trained(work: Path, plan: Plan) -> list[str]:
    """Configurations of which every fold that validates is trained; first what was selected, and the plan's choice."""
    from segfw.base.file_names import SPLITS_FILE
    from segfw.inference.held_out import validating_folds
    from segfw.inference.ranking import trained_validating_folds
    from segfw.model.selection import load_selection
    from segfw.planning.plan import FULLRES
    from segfw.planning.splits import Splits

    if not (work / SPLITS_FILE).is_file():
        return []
    splits = Splits.load(work / SPLITS_FILE)
    selection = load_selection(work)
    preferred = (*(selection.configurations if selection else ()), plan.chosen, FULLRES, *plan.predicting)
    whole = validating_folds(splits)
    return [
        name
        for name in dict.fromkeys(preferred)
        if name in plan.configurations and trained_validating_folds(work, name, splits) == whole
    ]


def _plan_of_others(
    work: Path,
    manifest: DatasetManifest,
    fingerprint: Fingerprint,
    request: PlanRequest,
    options: PrepareOptions,
    device: torch.device,
) -> Plan:
    """The plan in the work folder if it was made from the same data for the same request, else a new one.

    Where something was trained by it, it also serves folds of another length.
    """
    from segfw.base.device import device_name
    from segfw.nnunet.followed_plans import followed_plan, require_nothing_else
    from segfw.nnunet.read_plans import read_json
    from segfw.planning.for_time import fitted_to_time
    from segfw.planning.plan import PLAN_FILE, Plan
    from segfw.planning.plan_for_device import measure_plan, plan_for_device, training_device, with_estimates
    from segfw.planning.planner import request_digest
    from segfw.planning.structure_sizes import structure_shares
    from segfw.planning.work_folder import trained_by_plan

    decisive = request.decisive
    nnunet_plans: dict[str, object] = {}
    if request.plans is not None:
        require_nothing_else(request.plans, request)
        nnunet_plans = read_json(request.plans)
        decisive = {"plans": {"plans": nnunet_plans, "path": request.plans}}
    digest = request_digest(decisive, manifest, fingerprint)
    path = work / PLAN_FILE
    time_s = None if request.as_published or request.plans is not None else options.time_budget_s
    if path.is_file() and not options.overwrite:
        kept = Plan.load(path)
        is_for_here = time_s is None or all(
            each.estimate.device == device_name(device) for each in kept.configurations.values()
        )
        if kept.request == digest and kept.planned_time_s == time_s and is_for_here:
            return kept
        if kept.request == digest and trained_by_plan(work):
            trained = trained_by_plan(work)
            print(f"{path}: was planned {_length_text(kept)}, and stays so, because {trained} is trained by it")
            return kept
    target = training_device(device)
    if request.plans is not None:
        followed = followed_plan(manifest, nnunet_plans, request.plans)
        plan = with_estimates(followed, target, measure_plan(followed, target))
    else:
        plan = plan_for_device(manifest, fingerprint, request, target)
    if time_s is not None:
        shares = structure_shares(fingerprint, plan.labels)
        plan = fitted_to_time(plan, time_s, target.probe_flops(), shares)
    return plan.model_copy(update={"request": digest})


def _time_budget(plan: Plan) -> tuple[str, ...]:
    """The option that a training in the planned time needs."""
    from segfw.base.durations import typed_duration

    if plan.planned_time_s is None:
        return ()
    return ("--time-budget", typed_duration(plan.planned_time_s))


def _length_text(plan: Plan) -> str:
    """'for trainings of 12 min' or 'for the published length'."""
    from segfw.base.durations import duration_text

    if plan.planned_time_s is None:
        return "for the published length"
    device = next(iter(plan.configurations.values())).estimate.device
    return f"for trainings of {duration_text(plan.planned_time_s)} on {device}"


def _say_result(typed: argparse.Namespace, plan: Plan) -> None:
    ready = typed.configurations[-1] if typed.configurations else "3d_fullres"
    if ready not in plan.configurations:  # nnU-Net's plans may call theirs anything
        ready = "2d" if "2d" in plan.configurations else next(iter(plan.configurations))
    if plan.chosen and not typed.configurations:
        ready = plan.chosen
    first = plan.configurations[ready].previous_stage
    is_first_trained = plan.configurations[ready].is_refiner and first in _wholly_trained(typed.work, plan)
    ready = ready if first is None or is_first_trained else first
    if typed.plan_only:
        say_next(*(each for each in typed.arguments if each != "--plan-only"))
    else:
        say_next("train", typed.work, ready, "0", *_time_budget(plan))


COMMAND = Command(
    function=plan_and_preprocess,
    what="Verify the data, choose spacing, patch, network and batch, and preprocess.",
    example="segfw plan-and-preprocess hippocampus work",
    arguments=(
        Argument(name="raw", help="folder of images and masks"),
        Argument(name="work", help="folder for everything that is made"),
    ),
    say_result=_say_result,
    log_place=log_in_work,
)
