"""``segfw train``: one fold, trained and scored; here training meets inference and evaluation."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import aside, say_next
from segfw.planning.work_log import log_in_work
from segfw.training.settings import TrainOptions, TrainSettings
from segfw.verbs.training_notes import refined_text, say_what_is_not_followed, tell_length

if TYPE_CHECKING:
    import torch

    from segfw.evaluation.metrics import Scores
    from segfw.inference.first_stage import FirstStage
    from segfw.networks import BuildNetwork
    from segfw.planning.plan import Configuration, Plan
    from segfw.planning.splits import Splits
    from segfw.training.batches import Augment
    from segfw.training.begun_run import BegunRun
    from segfw.training.train_request import BuildLoss, TrainRequest


@takes_options(settings=TrainSettings, options=TrainOptions)
def train(
    work: Path,
    configuration: str,
    fold: str | int,
    settings: TrainSettings = TrainSettings(),
    options: TrainOptions = TrainOptions(),
    *,
    build: BuildNetwork | None = None,
    build_loss: BuildLoss | None = None,
    augment: Augment | None = None,
) -> Scores | None:
    """Trains one fold and scores it on its validation cases, whole and in their original geometry.

    Under ``torchrun`` all processes train one network together. The second stage of a cascade needs all folds of the
    first one, which predict the training cases for it; so does a refiner, which is validated on patches alone.

    Parameters
    ----------
    work
        Work folder of ``plan_and_preprocess``.
    configuration
        2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres after it, or 3d_refine after what finds its masks.
    fold
        0 to 4, or 'all'.
    settings
        How the fold is trained. A run that goes on does so with the settings that it was started with.
    options
        With ``resume`` an interrupted run goes on. A finished fold is not trained again unless ``overwrite``;
        ``extend_epochs`` or ``extend_s`` (seconds) train it for so much longer. ``init_from`` is a model whose weights,
        as far as they fit, a new run begins with. ``log`` names writers of the figures besides metrics.jsonl.
    build
        Makes another network from the plan's NetworkSpec: (batch, C, Z, Y, X) to logits (batch, K, Z, Y, X).
    build_loss
        Makes another loss from the configuration and what the outputs mean.
    augment
        Changes samples on the device.

    Returns
    -------
    Scores or None
        Of the validation cases; None for fold 'all', which has none, and for a refiner, which predicts none.

    Raises
    ------
    UserError
        If there is no such plan, configuration or fold, an option does not fit what is there, or the loss stays no
        number.
    CasesFailed
        At the end, if validation cases could not be predicted or scored.
    """
    from segfw.base.ranks import joined
    from segfw.inference.first_stage import remember_first_stage
    from segfw.inference.whole_cases import RESULTS
    from segfw.training.begun_run import find_begun_run
    from segfw.training.progress_page import finish_page

    asked = _asked(Path(work), configuration, str(fold), settings, options, build, build_loss, augment)
    request = asked.request
    with _alone_with(request), joined(request.ranks, asked.device):
        begun = find_begun_run(request.folder, options, request.ranks, results=RESULTS)
        has_begun = begun.is_started or begun.is_trained
        if asked.first_stage is not None and request.ranks.is_first:
            remember_first_stage(request.folder, asked.first_stage, is_started=has_begun)
        if has_begun:
            say_what_is_not_followed(request.folder, settings)
        if not begun.is_trained:
            asked = replace(asked, request=_train(asked, begun))  # scored as it was begun, which may be otherwise
        else:
            print(f"{configuration} fold {fold} is already trained ({request.folder})")
            if request.ranks.is_first:
                finish_page(request.folder, request.configuration, request.fold, request.label_names)
        return _scored(asked)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a call asks for, after all that can be wrong with it was looked at, and before anything is written."""

    work: Path
    plan: Plan
    splits: Splits
    fold: str
    options: TrainOptions
    device: torch.device
    first_stage: FirstStage | None
    request: TrainRequest


def _asked(
    work: Path,
    configuration: str,
    fold: str,
    settings: TrainSettings,
    options: TrainOptions,
    build: BuildNetwork | None,
    build_loss: BuildLoss | None,
    augment: Augment | None,
) -> _Asked:
    """Reads the plan; raises UserError where it, the options and what a caller makes himself do not go together."""
    from segfw.base.ranks import launched_ranks, local_device
    from segfw.base.records import UserError
    from segfw.inference.first_stage import first_stage_of
    from segfw.model.source import fold_folder
    from segfw.networks import build_network
    from segfw.planning.mirroring import output_orders
    from segfw.planning.plan import target_of
    from segfw.planning.structure_sizes import kept_structure_shares
    from segfw.planning.work_folder import load_plan_and_splits
    from segfw.training.refiner_validation import NAMES
    from segfw.training.train_request import TrainRequest
    from segfw.training.writers import require_writers

    plan, splits = load_plan_and_splits(work)
    chosen = _planned(work, plan, configuration)
    if chosen.is_refiner:
        _require_refiners_own(settings, build_loss, augment)
    first_stage = first_stage_of(work, chosen, splits)
    device = local_device(options.device)
    if options.overwrite and (options.resume or options.is_extended):
        raise UserError("--overwrite deletes the run that --resume or --extend would go on with; leave out one of them")
    require_writers(options.log)
    request = TrainRequest(
        folder=fold_folder(work, configuration, fold),
        preprocessed=work / "preprocessed" / chosen.data_name,
        configuration=chosen,
        fold=splits.fold(fold),
        settings=settings,
        label_names=NAMES if chosen.is_refiner else tuple(plan.labels.structures),
        structures=tuple(plan.labels.structures.values()),
        target=target_of(plan.labels),
        annotated=_annotated_in_part(work, plan),
        output_orders=output_orders(chosen.swapped_pairs, plan.labels),
        device=str(device),
        resume=options.resume or options.is_extended,
        extend_epochs=options.extend_epochs,
        extend_s=options.extend_s,
        build=build or build_network,
        build_loss=build_loss,
        augment=augment,
        keeps_patch=plan.as_published,
        structure_shares=kept_structure_shares(work, plan.labels),
        log=options.log,
        ranks=launched_ranks(),
    )
    return _Asked(
        work=work,
        plan=plan,
        splits=splits,
        fold=fold,
        options=options,
        device=device,
        first_stage=first_stage,
        request=request,
    )


def _planned(work: Path, plan: Plan, name: str) -> Configuration:
    """The configuration of that name; UserError, which says how a refiner is added to a plan, if there is none."""
    from segfw.base.records import UserError
    from segfw.base.shell_line import shell_line
    from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
    from segfw.planning.plan import REFINE

    if name == REFINE and name not in plan.configurations:
        raw = DatasetManifest.load(work / MANIFEST_FILE).root if (work / MANIFEST_FILE).is_file() else "RAW"
        adding = shell_line("segfw", "plan-and-preprocess", raw, work, "--configurations", REFINE)
        raise UserError(f"{work}: no {REFINE} is planned yet; add it, which leaves all else as it is, by: {adding}")
    return plan.configuration(name)


def _require_refiners_own(settings: TrainSettings, build_loss: BuildLoss | None, augment: Augment | None) -> None:
    """Raises UserError for what a refiner, whose samples and loss are its own, cannot be combined with."""
    from segfw.base.records import UserError
    from segfw.planning.plan import REFINE

    if settings.loss != "dice-ce":
        raise UserError(f"--loss {settings.loss} is not for {REFINE}, whose own loss weighs voxels around clicks")
    if build_loss is not None or augment is not None:
        raise UserError(f"build_loss and augment are not for {REFINE}, which draws and weighs its samples itself")


def _train(asked: _Asked, begun: BegunRun) -> TrainRequest:
    """Trains a fold to its end: a new run, or from where an interrupted one stopped and as it was begun.

    Returns what was trained, with the settings that were followed.
    """
    import segfw.training.loop
    from segfw.base.records import UserError
    from segfw.base.words import count
    from segfw.training.metrics_log import clock
    from segfw.training.prepare import SETTINGS_FILE

    request = asked.request
    if not begun.is_started:
        request = _begin(asked)
    elif request.resume:
        request = replace(request, settings=TrainSettings.load(request.folder / SETTINGS_FILE))
    else:
        raise UserError(
            f"{request.folder}: holds an interrupted run; go on with --resume, or start anew with --overwrite"
        )
    request = _with_predictions(asked, request)
    time_s = request.settings.time_budget_s
    length = f"in {clock(time_s)}" if time_s else f"for {count(request.settings.epochs, 'epoch')}"
    doing = "going on, as begun, with" if begun.is_started else "training"
    cases = count(len(request.fold.train), "case")
    print(f"{doing} {request.configuration.name} fold {asked.fold} {length} on {cases}")
    segfw.training.loop.train(request)
    return request


def _begin(asked: _Asked) -> TrainRequest:
    """The request of a new run, with the weights that it begins with; says how long the run will be.

    Called before the first stage predicts for hours, so that a wrong start is told at once.
    """
    request = asked.request
    if request.resume and not asked.options.is_extended:
        print(f"{request.folder}: has no checkpoint yet to go on from, so the training begins")
        request = replace(request, resume=False)
    if asked.options.init_from is not None:
        request = _with_start(asked, request, asked.options.init_from)
    if asked.options.tells_length and request.ranks.is_first:
        # asked.request: the command that is proposed repeats only what was typed, not what a start brings along.
        tell_length(asked.work, asked.plan, asked.fold, asked.request, asked.options, asked.device)
    return request


def _with_start(asked: _Asked, request: TrainRequest, init_from: Path) -> TrainRequest:
    """A run that begins with other weights; UserError where it must not, or these are of no use.

    Weights that were pretrained warm up for longer, and their encoder learns more slowly, unless the settings say so.
    """
    from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
    from segfw.pretraining.fine_tuning import fine_tuning_settings
    from segfw.pretraining.given_start import given_start
    from segfw.pretraining.unseen_images import require_unseen

    start = given_start(init_from, request.configuration, asked.fold, request.build)
    if start.pretraining is not None:
        validation = set(request.fold.validation)
        cases = [case for case in DatasetManifest.load(asked.work / MANIFEST_FILE).cases if case.id in validation]
        require_unseen(start, cases, request.preprocessed, may_have_seen=asked.options.may_have_seen)
    settings = fine_tuning_settings(request.settings) if start.is_gentle else request.settings
    return replace(request, start=start.begin, start_facts=start.facts, settings=settings)


def _annotated_in_part(work: Path, plan: Plan) -> dict[str, tuple[bool, ...]]:
    """Which outputs are annotated, of every case in which not all are."""
    from segfw.dataset.annotated_structures import annotated_outputs_of
    from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest

    if not (work / MANIFEST_FILE).is_file():
        return {}
    return annotated_outputs_of(plan.labels, DatasetManifest.load(work / MANIFEST_FILE).cases)


def _alone_with(request: TrainRequest) -> AbstractContextManager[None]:
    """Keeps other processes off the fold while the block lasts; raises Busy, with who trains it, where one is at it.

    Of the processes of ``torchrun``, which train it together, the first one does so for all.
    """
    from segfw.base.locks import held
    from segfw.model.source import fold_lock

    if not request.ranks.is_first:
        return nullcontext()
    return held(
        fold_lock(request.folder), f"{request.folder}: is being trained", "wait until it ends, or train another fold"
    )


def _with_predictions(asked: _Asked, request: TrainRequest) -> TrainRequest:
    """The request with what inference does for training: the first stage's labels, and scores of whole cases."""
    from segfw.base.device import pick_precision
    from segfw.inference.first_stage import hand_on_labels
    from segfw.inference.whole_cases import whole_case_counter

    previous = None
    if asked.first_stage is not None:
        previous = hand_on_labels(
            asked.work,
            request.configuration,
            asked.splits,
            asked.first_stage,
            device=request.device,
            precision=request.settings.precision,
            build=request.build,
            share=request.ranks.share,
        )
        request.ranks.wait()
    if request.configuration.is_refiner:  # predicts no whole case
        return replace(request, previous=previous)
    count_whole_case = whole_case_counter(
        request.preprocessed,
        previous,
        request.configuration,
        request.target,
        asked.device,
        pick_precision(request.settings.precision, asked.device),
        annotated=request.annotated,
    )
    return replace(request, previous=previous, count_whole_case=count_whole_case)


def _scored(asked: _Asked) -> Scores | None:
    """Scores of the whole validation cases, which the page of all folds tells as well."""
    from segfw.model.training_record import validation_dice
    from segfw.training.progress_page import renew_work_page

    folder = asked.request.folder
    told_before = validation_dice(folder)
    scores = _validate(asked)
    if asked.request.ranks.is_first and validation_dice(folder) != told_before:
        renew_work_page(folder)
    return scores


def _validate(asked: _Asked) -> Scores | None:
    """Scores of the whole validation cases; None where there are none."""
    from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
    from segfw.inference.whole_cases import validate
    from segfw.model.load import load_model
    from segfw.model.training_record import read_curve

    work = asked.work
    request = asked.request
    validation = set(request.fold.validation)
    if request.configuration.is_refiner:
        if request.ranks.is_first:
            print(refined_text(work, asked.fold, request.folder))
        return None
    if not validation:
        return None
    cases = [case for case in DatasetManifest.load(work / MANIFEST_FILE).cases if case.id in validation]
    # The first stage's other folds were trained on these cases.
    model = load_model(work, request.configuration.name, (asked.fold,), previous_folds=(asked.fold,))
    return validate(
        model,
        cases,
        request.folder,
        device=request.device,
        precision=request.settings.precision,
        build=request.build,
        ranks=request.ranks,
        curve=read_curve(request.folder),
    )


def _say_result(typed: argparse.Namespace, scores: Scores | None) -> None:
    from segfw.base.ranks import launched_ranks
    from segfw.evaluation.text import folds_table
    from segfw.model.source import fold_folder
    from segfw.planning.plan import REFINE

    if not launched_ranks().is_first:
        return
    if typed.configuration == REFINE:
        say_next("refine", typed.work, "IMAGE", "MASK", "--clicks", "clicks.json", "--output", "NEW_MASK")
        return
    if scores is not None:
        aside(folds_table({typed.configuration: {typed.fold: scores}}).rstrip())
        print(f"report: {fold_folder(typed.work, typed.configuration, typed.fold)}/report.html")
    say_next("predict", typed.work, "NEW_IMAGES", "MASKS", "--configuration", typed.configuration)


COMMAND = Command(
    function=train,
    what="Train one fold of one configuration and score it on its validation cases.",
    example="segfw train work 3d_fullres 0 --time-budget 2h",
    arguments=(
        Argument(name="work", help="work folder of plan-and-preprocess"),
        Argument(name="configuration", help="2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres, 3d_refine", parse=str),
        Argument(name="fold", help="0 to 4, or all: one network of all cases, validated on none", parse=str),
    ),
    say_result=_say_result,
    takes_settings=True,
    log_place=log_in_work,
)
