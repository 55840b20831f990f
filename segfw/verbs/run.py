"""``segfw run``: the whole job, from images and masks to validated models. Every step goes on where it stopped."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import aside, say_next
from segfw.planning.request import PlanRequest, PrepareOptions
from segfw.planning.work_log import log_in_work
from segfw.training.settings import LENGTH_FIELDS, RunOptions, TrainOptions, TrainSettings
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.train import train

if TYPE_CHECKING:
    from segfw.evaluation.metrics import Scores
    from segfw.planning.plan import Plan
    from segfw.planning.splits import Splits
    from segfw.training.expected_length import ExpectedTraining
    from segfw.verbs.foretell_run import ForetoldRun

Asked = tuple[PlanRequest, TrainSettings, RunOptions]  # as they were typed, before any of it is decided on

SUMMARY_FILE = "summary.txt"
RUN_FILE = "run.toml"


@takes_options(request=PlanRequest, settings=TrainSettings, options=RunOptions)
def run(
    raw: Path,
    work: Path,
    request: PlanRequest = PlanRequest(),
    settings: TrainSettings = TrainSettings(),
    options: RunOptions = RunOptions(),
) -> dict[str, dict[str, Scores]]:
    """Everything from RAW to validated models: plan, preprocess, train and score every fold asked for.

    Call it again after an interruption with the same arguments: what is done is not done again. Writes run.toml, with
    all options, and summary.txt.

    Parameters
    ----------
    raw
        Folder of images and masks.
    work
        Folder for everything that is made.
    request
        How data are planned and prepared, and which configurations are trained.
    settings
        How each fold is trained.
    options
        Which folds are trained, by default all, on which device, and what they begin with. With ``calibrate`` it
        is learned afterwards, beyond any time budget, how far masks may be trusted. With ``dry_run`` all that would be
        done is printed, nothing is written, and there are no scores.

    Returns
    -------
    dict
        The validation scores by configuration and fold.

    Raises
    ------
    UserError
        If the data or an option are wrong; as early as that can be told.
    CasesFailed
        If cases could not be preprocessed, predicted or scored, after all others are done.
    """
    from segfw.base.files import write_text
    from segfw.base.settings_file import settings_text
    from segfw.evaluation.text import folds_table
    from segfw.inference.first_stage import trainable
    from segfw.model.source import fold_folder
    from segfw.planning.splits import SPLITS_FILE, Splits
    from segfw.planning.structure_sizes import kept_structure_shares
    from segfw.training.checkpoint import CHECKPOINT_FILE

    if options.dry_run:
        print(_foretell(raw, work, request, settings, options))
        return {}
    work = Path(work)
    asked = (request, settings, options)
    request = _checked(request, settings, options)
    settings, note = _with_length(raw, work, request, settings, options)

    # Kept before the hours, for whoever looks in then or interrupts them.
    def keep_options(_: Plan) -> None:
        if note:
            print(note)
        write_text(work / RUN_FILE, settings_text(asked, f"of segfw run {raw} WORK --settings {RUN_FILE}"))

    plan = plan_and_preprocess(raw, work, request, _prepare(options, settings), when_planned=keep_options)

    splits = Splits.load(work / SPLITS_FILE)
    folds = options.folds or tuple(str(number) for number in range(len(splits.folds)))
    asked_for = _names(work, request, plan, settings, options)
    folds_of = _folds_of(work, plan, splits, asked_for or tuple(plan.configurations), folds, is_asked=bool(asked_for))
    names = tuple(trainable(work, plan, splits, asked_for and tuple(folds_of), folds_of))
    shares = kept_structure_shares(work, plan.labels)
    expected = _expected(work, plan, {name: folds_of[name] for name in names}, settings, options, shares)
    for line in _length_lines(raw, work, expected, names, folds, asked):
        print(line)
    scores: dict[str, dict[str, Scores]] = {}
    for name in names:
        if name in plan.predicting:
            scores[name] = {}
        for fold in folds_of[name]:
            is_begun = (fold_folder(work, name, fold) / CHECKPOINT_FILE).is_file()
            begin = TrainOptions.of(options, resume=is_begun)
            result = train(work, name, fold, settings, begin)
            if result is not None:
                scores[name][fold] = result
    write_text(work / SUMMARY_FILE, folds_table(scores))
    if options.calibrate:
        _calibrate(work, [name for name in names if name in plan.predicting], request, options)
    return scores


def _calibrate(work: Path, names: Sequence[str], request: PlanRequest, options: RunOptions) -> None:
    """What ``--calibrate`` asks for; a note where there is too little to learn from."""
    from segfw.quality.calibration_options import CalibrateOptions
    from segfw.quality.quality_fitting import TooFewCases
    from segfw.verbs.calibrate import calibrate

    if not names:
        print("note: nothing is calibrated, because only a refiner was trained")
        return
    if len(names) > 1:
        print(
            f"note: nothing is calibrated, because {', '.join(names)} were trained and quality is of one; segfw select "
            "chooses, or --configuration of segfw calibrate"
        )
        return
    asked = CalibrateOptions(configuration=names[0], device=options.device, groups=request.groups)
    try:
        calibrate(work, asked)
    except TooFewCases as few:
        print(f"note: nothing is calibrated: {few}")


def _foretell(
    raw: Path,
    work: Path,
    request: PlanRequest,
    settings: TrainSettings,
    options: RunOptions,
) -> ForetoldRun:
    """All that would be done, and nothing of it is; UserError where the real run would not start."""
    from segfw.verbs.foretell_run import ForetoldRun
    from segfw.verbs.plan_and_preprocess import foretell_work

    work = Path(work)
    asked = (request, settings, options)
    request = _checked(request, settings, options)
    settings, note = _with_length(raw, work, request, settings, options)
    foretold = foretell_work(Path(raw), work, request, _prepare(options, settings))
    plan = foretold.plan
    folds = options.folds or tuple(str(number) for number in range(len(foretold.splits.folds)))
    asked_for = _names(work, request, plan, settings, options)
    names = asked_for or tuple(plan.configurations)
    folds_of = _folds_of(work, plan, foretold.splits, names, folds, is_asked=bool(asked_for))
    names = tuple(folds_of)
    expected = _expected(work, plan, folds_of, settings, options, foretold.structure_shares)
    length = _length_lines(raw, work, expected, names, folds, asked)
    why = plan.reasons[-1] if plan.chosen and request.configurations is None else ""
    length = [*(sentence for sentence in (note, why) if sentence), *length]
    return ForetoldRun.of(work, foretold, [plan.configuration(name) for name in names], folds, expected, length)


def _checked(request: PlanRequest, settings: TrainSettings, options: RunOptions) -> PlanRequest:
    """The request, with the stages of a cascade in order; UserError for what is better told now than in an hour."""
    from segfw.base.device import pick_device
    from segfw.base.gpu_faults import require_right_gpu_for
    from segfw.base.ranks import launched_ranks
    from segfw.base.records import UserError
    from segfw.planning.plan import CASCADE, LOWRES
    from segfw.training.initial_weights import require_start
    from segfw.training.writers import require_writers

    require_right_gpu_for(pick_device(options.device), settings.precision, for_training=True)
    require_writers(options.log)
    names = request.configurations
    if options.init_from is not None:
        require_start(options.init_from, names or ())
    if launched_ranks().count > 1:
        raise UserError("torchrun is for segfw train; call segfw plan-and-preprocess first, once")
    if names is None or CASCADE not in names:
        return request
    in_order = (LOWRES, *(name for name in names if name != CASCADE), CASCADE)
    return replace(request, configurations=tuple(dict.fromkeys(in_order)))


def _with_length(
    raw: Path, work: Path, request: PlanRequest, settings: TrainSettings, options: RunOptions
) -> tuple[TrainSettings, str]:
    """The settings with the length that is proposed where nobody gave one, and what is said of it, or ''.

    Folds of a work folder that was begun with a number of epochs go on with that.
    """
    from segfw.base.device import pick_device
    from segfw.base.durations import duration_text
    from segfw.planning.published import EPOCHS, STEPS_PER_EPOCH
    from segfw.training.expected_length import with_proposed_length

    has_epochs = any(each.time_budget_s is None for each in _begun(work).values())
    if request.as_published or request.plans is not None or has_epochs:
        return settings, ""
    folds = len(options.folds) if options.folds else _all_folds(raw, request)
    proposed = with_proposed_length(settings, pick_device(options.device), folds)
    if proposed.time_budget_s is None or proposed == settings:
        return settings, ""
    return proposed, (
        f"no length was given: on a CPU each fold is trained for {duration_text(proposed.time_budget_s)}; "
        f"--time-budget trains for another time, --epochs {EPOCHS} --steps-per-epoch "
        f"{STEPS_PER_EPOCH} for the published length"
    )


def _all_folds(raw: Path, request: PlanRequest) -> int:
    """How many folds are trained where none are named; UserError where these cannot be made."""
    from segfw.dataset.layouts import find_dataset
    from segfw.planning.folds_asked_for import expected_folds
    from segfw.planning.splits import FOLDS

    if request.leave_out_by is None and request.splits is None:
        return FOLDS
    return expected_folds(find_dataset(Path(raw), request.label_names), request)


def _begun(work: Path) -> dict[str, TrainSettings]:
    """Configurations with a fold that is begun or trained, and what the last of them was begun with."""
    from segfw.base.records import UserError
    from segfw.training.prepare import SETTINGS_FILE

    begun: dict[str, TrainSettings] = {}
    for path in sorted((work / "runs").glob(f"*/*/{SETTINGS_FILE}")):
        with suppress(UserError):  # said where it is needed
            begun[path.parents[1].name] = TrainSettings.load(path)
    return begun


def _prepare(options: RunOptions, settings: TrainSettings) -> PrepareOptions:
    """How the data are prepared for the folds asked for.

    Weights to begin with are of a network of the usual size: then none is planned for the time.
    """
    time_s = settings.time_budget_s if options.init_from is None else None
    return PrepareOptions(device=options.device, folds=options.folds or (), time_budget_s=time_s)


def _names(
    work: Path, request: PlanRequest, plan: Plan, settings: TrainSettings, options: RunOptions
) -> tuple[str, ...] | None:
    """The configurations asked for, or the one that a time is best spent on, or those that were begun; None for all."""
    from segfw.base.device import pick_device
    from segfw.planning.for_time import choice_for_time
    from segfw.planning.plan_for_device import training_flops

    if request.configurations is not None or request.plans is not None:
        return request.configurations
    if plan.chosen:
        return (plan.chosen,)
    if settings.time_budget_s is None:
        return None
    begun = tuple(name for name in plan.configurations if name in _begun(work))
    if begun:
        return begun
    choice = choice_for_time(plan, settings.time_budget_s, training_flops(pick_device(options.device)))
    print(choice.reason)
    return (choice.name,)


def _folds_of(
    work: Path, plan: Plan, splits: Splits, names: Sequence[str], folds: Sequence[str], *, is_asked: bool
) -> dict[str, tuple[str, ...]]:
    """The folds of each configuration that are trained, in order; of what a refiner learns from, all that it needs.

    Only where a refiner is asked for by its name: who trains a single fold of all that is planned wants no more.
    """
    from segfw.inference.held_out import validating_folds
    from segfw.model.source import trained_folds

    folds_of = {name: tuple(folds) for name in names}
    refiners = [each for each in map(plan.configuration, names) if each.is_refiner and is_asked]
    for first in (each.previous_stage for each in refiners):
        if first is None:
            continue
        asked = folds_of.pop(first, ())
        present = trained_folds(work, first)
        missing = [fold for fold in validating_folds(splits) if fold not in present and fold not in asked]
        if missing:
            print(f"a refiner learns from masks of held-out cases, so all folds of {first} are trained before it")
        if asked or missing:
            folds_of = {first: (*asked, *missing), **folds_of}
    return folds_of


def _expected(
    work: Path,
    plan: Plan,
    folds_of: Mapping[str, Sequence[str]],
    settings: TrainSettings,
    options: RunOptions,
    shares: Mapping[str, float],
) -> list[ExpectedTraining]:
    """What is known of the trainings of the folds that are not begun."""
    from segfw.base.device import pick_device
    from segfw.model.source import fold_folder
    from segfw.training.expected_length import expected_training
    from segfw.training.foretold_pace import foretold_pace
    from segfw.training.prepare import SETTINGS_FILE

    device = pick_device(options.device)
    expected = []
    for each in (plan.configuration(name) for name in folds_of):
        new = sum(not (fold_folder(work, each.name, fold) / SETTINGS_FILE).is_file() for fold in folds_of[each.name])
        if not new:
            continue
        pace = foretold_pace(each, settings, device) if settings.time_budget_s else None
        expected.append(
            expected_training(each, settings, new, device, keeps_patch=plan.as_published, pace=pace, shares=shares)
        )
    return expected


def _length_lines(
    raw: Path,
    work: Path,
    expected: Sequence[ExpectedTraining],
    names: Sequence[str],
    folds: Sequence[str],
    asked: Asked,
) -> list[str]:
    """How long the trainings take, and a warning where that is days that nobody asked for."""
    from segfw.base.settings_file import typed_words
    from segfw.training.expected_length import told_length

    request, settings, options = asked
    own = [
        *typed_words(request, ("configurations",)),
        *typed_words(settings, LENGTH_FIELDS),
        *typed_words(options, ("folds", "dry_run")),
    ]
    return told_length(expected, "run", str(raw), str(work), "--configurations", *names, "--folds", *folds, *own)


def _say_result(typed: argparse.Namespace, scores: dict[str, dict[str, Scores]]) -> None:
    from segfw.evaluation.text import folds_table
    from segfw.planning.plan import REFINE

    if not scores and REFINE in (typed.configurations or ()):  # whose folds have said how good they are
        say_next("refine", typed.work, "IMAGE", "MASK", "--clicks", "clicks.json", "--output", "NEW_MASK")
        return
    aside(folds_table(scores).rstrip())
    print(f"reports: {typed.work}/runs/*/fold_*/report.html")
    if not typed.calibrate:
        from segfw.quality.calibration_time import calibration_line

        trained = [name for name, folds in scores.items() if folds]
        line = calibration_line(typed.work, trained, typed.device, typed.groups)
        if line:
            aside(line)
    say_next("predict", typed.work, "NEW_IMAGES", "MASKS")


COMMAND = Command(
    function=run,
    what="From a folder of images and masks to trained, validated models; call it again to go on where it stopped.",
    example="segfw run hippocampus work --configurations 3d_fullres --folds 0 --time-budget 12m",
    arguments=(
        Argument(name="raw", help="folder of images and masks"),
        Argument(name="work", help="folder for everything that is made"),
    ),
    say_result=_say_result,
    takes_settings=True,
    log_place=log_in_work,
    foretell=_foretell,
)
