"""``segfw run``: the whole job, from images and masks to validated models. Every step goes on where it stopped."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import aside, say_next
from segfw.planning.request import PlanRequest, PrepareOptions
from segfw.planning.work_log import log_in_work
from segfw.training.settings import RunOptions, TrainOptions, TrainSettings
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.train import train

if TYPE_CHECKING:
    from segfw.evaluation.metrics import Scores
    from segfw.planning.plan import Configuration, Plan

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
        Which folds are trained, by default all five, on which device, and what they begin with. With ``dry_run`` all
        that would be done is printed, nothing is written, and there are no scores.

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
    from segfw.base.device import pick_device
    from segfw.base.files import write_text
    from segfw.base.ranks import launched_ranks
    from segfw.base.records import UserError
    from segfw.base.settings_file import settings_text
    from segfw.evaluation.text import folds_table
    from segfw.inference.first_stage import trainable
    from segfw.model.source import fold_folder
    from segfw.planning.plan import CASCADE, LOWRES
    from segfw.planning.splits import SPLITS_FILE, Splits
    from segfw.training.checkpoint import CHECKPOINT_FILE
    from segfw.training.initial_weights import require_start
    from segfw.training.writers import require_writers

    # Wrong arguments are better found now than after an hour of preprocessing.
    work = Path(work)
    pick_device(options.device)
    require_writers(options.log)
    if options.init_from is not None:
        require_start(options.init_from, request.configurations or ())
    if launched_ranks().count > 1:
        raise UserError("torchrun is for segfw train; call segfw plan-and-preprocess first, once")

    asked = (request, settings, options)
    names = request.configurations
    if names is not None and CASCADE in names:  # the first stage comes first, the second last
        names = tuple(dict.fromkeys((LOWRES, *(name for name in names if name != CASCADE), CASCADE)))
        request = replace(request, configurations=names)
    prepare = PrepareOptions(device=options.device, folds=options.folds or ())
    if options.dry_run:
        _foretell(Path(raw), work, request, settings, options, prepare)
        return {}

    # Kept before the hours, for whoever looks in then or interrupts them.
    def keep_options(_: Plan) -> None:
        write_text(work / RUN_FILE, settings_text(asked, f"of segfw run {raw} WORK --settings {RUN_FILE}"))

    plan = plan_and_preprocess(raw, work, request, prepare, when_planned=keep_options)

    splits = Splits.load(work / SPLITS_FILE)
    folds = options.folds or tuple(str(number) for number in range(len(splits.folds)))
    names = tuple(trainable(work, plan, splits, names, folds))
    _tell_length(Path(raw), work, [plan.configuration(name) for name in names], settings, options, folds)
    scores: dict[str, dict[str, Scores]] = {}
    for name in names:
        scores[name] = {}
        for fold in folds:
            is_begun = (fold_folder(work, name, fold) / CHECKPOINT_FILE).is_file()
            begin = TrainOptions.of(options, resume=is_begun)
            result = train(work, name, fold, settings, begin)
            if result is not None:
                scores[name][fold] = result
    write_text(work / SUMMARY_FILE, folds_table(scores))
    return scores


def _foretell(
    raw: Path,
    work: Path,
    request: PlanRequest,
    settings: TrainSettings,
    options: RunOptions,
    prepare: PrepareOptions,
) -> None:
    """Says all that would be done, and does nothing of it; UserError where the real run would not start."""
    from segfw.verbs.foretell_run import foretold_text
    from segfw.verbs.plan_and_preprocess import foretell_work

    foretold = foretell_work(raw, work, request, prepare)
    folds = options.folds or tuple(str(number) for number in range(len(foretold.splits.folds)))
    chosen = [foretold.plan.configuration(name) for name in request.configurations or foretold.plan.configurations]
    print(foretold_text(work, foretold, chosen, folds))
    _tell_length(raw, work, chosen, settings, options, folds)


def _tell_length(
    raw: Path,
    work: Path,
    configurations: Sequence[Configuration],
    settings: TrainSettings,
    options: RunOptions,
    folds: Sequence[str],
) -> None:
    """Says how long the folds that are not begun will take, and warns where that is days that nobody asked for."""
    from segfw.base.device import pick_device
    from segfw.model.source import fold_folder
    from segfw.training.expected_length import expected_training, told_length
    from segfw.training.prepare import SETTINGS_FILE

    device = pick_device(options.device)
    expected = []
    for each in configurations:
        new = sum(not (fold_folder(work, each.name, fold) / SETTINGS_FILE).is_file() for fold in folds)
        if new:
            expected.append(expected_training(each, settings, new, device))
    names = [each.name for each in configurations]
    for line in told_length(expected, "run", str(raw), str(work), "--configurations", *names, "--folds", *folds):
        print(line)


def _say_result(typed: argparse.Namespace, scores: dict[str, dict[str, Scores]]) -> None:
    from segfw.evaluation.text import folds_table

    if typed.dry_run:
        aside("nothing was written; the same command without --dry-run trains")
        return
    aside(folds_table(scores).rstrip())
    print(f"reports: {typed.work}/runs/*/fold_*/report.html")
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
)
