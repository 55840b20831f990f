"""``segfw demo``: a small made-up data set through the whole job, scored on images the model never saw."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.durations import HOUR_S, MINUTE_S, duration_s, typed_duration
from segfw.base.options import DEVICES, Options, option, takes_options
from segfw.base.speech import aside, say_next
from segfw.base.words import count

if TYPE_CHECKING:
    from segfw.evaluation.metrics import Scores
    from segfw.planning.plan import Configuration

TRAINING_CASES = 40
TEST_CASES = 6
MARKER = ".made-by-segfw-demo"  # only such a folder is written into, and tidied up, a second time
CONFIGURATION = "3d_fullres"
FOLD = "0"
# The made-up images are learnt in so many steps of small batches: a mean Dice of 0.87 (docs/benchmarks.md).
ENOUGH_STEPS = 500
SMALL_BATCH = 2
REACHED_DICE = 0.75  # below this the training was too short, or something is wrong
SHORTEST_S = 120.0
LONGEST_S = 20 * 60.0  # a demo that takes longer is not waited for
OTHER_WORK = 1.15  # validation and checkpoints, in steps' time


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """How long and where the demo trains."""

    time_budget_s: float | None = option(
        None,
        f"for training (default: what {ENOUGH_STEPS} steps take, {LONGEST_S / 60:.0f}m at most)",
        metavar="TIME",
        parse=duration_s,
        gt=0,
    )
    device: str = option("auto", DEVICES)


@takes_options(options=DemoOptions)
def demo(folder: Path, options: DemoOptions = DemoOptions()) -> Scores:
    """Makes data, trains one fold, predicts and scores the test images; a second call reuses what is there.

    A second call with a longer time trains the same fold for longer, and predicts and scores anew.

    Parameters
    ----------
    folder
        A new folder, or one that an earlier demo made.
    options
        Length of the training in seconds, in all, and the device.

    Returns
    -------
    Scores
        Of the test images.

    Raises
    ------
    UserError
        If the folder holds other things.
    """
    import shutil

    from segfw.base.files import is_empty
    from segfw.base.records import UserError
    from segfw.dataset.dataset_json import read_labels
    from segfw.dataset.toy import make_toy_dataset
    from segfw.evaluation.evaluate_pairs import evaluate_pairs
    from segfw.evaluation.pairs import LabelledPairs, first_channel_files, pair_masks
    from segfw.evaluation.result_files import ResultFiles
    from segfw.inference.prediction_options import PredictOptions
    from segfw.model.source import fold_folder
    from segfw.model.training_record import read_metrics
    from segfw.planning.request import PlanRequest, PrepareOptions
    from segfw.training.checkpoint import CHECKPOINT_FILE
    from segfw.training.settings import TrainOptions, TrainSettings
    from segfw.verbs.plan_and_preprocess import plan_and_preprocess
    from segfw.verbs.predict import predict
    from segfw.verbs.train import train

    folder = Path(folder)
    data = folder / "data"
    work = folder / "work"
    masks = folder / "predictions"
    if folder.is_dir() and not is_empty(folder) and not (folder / MARKER).is_file():
        raise UserError(f"{folder}: holds other things; give a new folder for the demo")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    if not (data / "dataset.json").is_file():
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted demo left half-made
        print(f"making {TRAINING_CASES} training and {TEST_CASES} test cases in {data}")
        make_toy_dataset(data, cases=TRAINING_CASES, test_cases=TEST_CASES)

    request = PlanRequest(configurations=(CONFIGURATION,))
    budget_s = options.time_budget_s
    prepare = PrepareOptions(device=options.device, folds=(FOLD,), time_budget_s=budget_s or SHORTEST_S)
    plan = plan_and_preprocess(data, work, request, prepare)
    fold = fold_folder(work, CONFIGURATION, FOLD)
    trained_s = _trained_s(fold)
    settings = TrainSettings()
    begin = TrainOptions(device=options.device)
    if trained_s is None:
        settings = TrainSettings(time_budget_s=budget_s or said_budget_s(plan.configuration(CONFIGURATION)))
        begin = TrainOptions(device=options.device, resume=(fold / CHECKPOINT_FILE).is_file())
    elif budget_s is not None and budget_s > trained_s:
        print(f"training for {whole_minutes(budget_s - trained_s)} more")
        shutil.rmtree(masks, ignore_errors=True)  # of the weights before
        begin = TrainOptions(device=options.device, extend_s=budget_s - trained_s)
    train(work, CONFIGURATION, FOLD, settings, begin)  # of a finished fold it scores what is left to be scored
    predict(work, data / "imagesTs", masks, PredictOptions(device=options.device))
    pairs, _ = pair_masks(masks, data / "labelsTs")
    files = ResultFiles(
        title="segfw demo: images the model never saw",
        output=folder / "scores.json",
        report=folder / "report.html",
        images=first_channel_files(data / "imagesTs"),
        curve=read_metrics(fold),
        facts={"Training": f"{TRAINING_CASES} made-up cases, fold {FOLD}", "Predictions": str(masks)},
    )
    return evaluate_pairs(LabelledPairs(files=pairs, labels=read_labels(data / "dataset.json")), files)


def _trained_s(fold: Path) -> float | None:
    """How long the finished fold was trained for; None where it is not finished, or lasted epochs."""
    from segfw.model.source import WEIGHTS_FILE
    from segfw.training.prepare import SETTINGS_FILE
    from segfw.training.settings import TrainSettings

    if not (fold / WEIGHTS_FILE).is_file():
        return None
    return TrainSettings.load(fold / SETTINGS_FILE).time_budget_s


def said_budget_s(configuration: Configuration) -> float:
    """How long is trained: for enough steps at the pace that planning expects here, within bounds; said beforehand."""
    from segfw.planning.published import EPOCHS, STEPS_PER_EPOCH

    hours = configuration.estimate.hours_per_fold
    if hours is None:  # a plan from elsewhere
        return LONGEST_S
    patch_s = hours * HOUR_S / (EPOCHS * STEPS_PER_EPOCH) / configuration.batch_size
    step_s = SMALL_BATCH * patch_s
    needed_s = ENOUGH_STEPS * step_s * OTHER_WORK
    budget_s = min(max(needed_s, SHORTEST_S), LONGEST_S)
    # Whole minutes, and some more than the estimate, which is no promise.
    budget_s = MINUTE_S * math.ceil(budget_s / MINUTE_S)
    pace = f"here a step is expected to take {step_s:.2g} s"
    print(f"{ENOUGH_STEPS} steps are enough; {pace}: training for {whole_minutes(budget_s)}")
    if needed_s > budget_s:
        steps = round(budget_s / step_s / OTHER_WORK)
        print(
            f"warning: this machine is slow: about {max(1, steps)} of the {ENOUGH_STEPS} steps fit into that, which "
            f"shows how it works, with poorer masks; all take {whole_minutes(needed_s)} (--time-budget)"
        )
    return budget_s


def whole_minutes(seconds: float) -> str:
    """'5m' or '1h5m', rounded up to minutes, as ``--time-budget`` takes it."""
    return typed_duration(MINUTE_S * max(1, math.ceil(seconds / MINUTE_S)))


def shortfall(mean_dice: float | None, steps: int, elapsed_s: float) -> tuple[str, float] | None:
    """Why the demo's Dice is low, and for how long it would have to train; None where it is as high as it should be."""
    if mean_dice is not None and mean_dice >= REACHED_DICE:
        return None
    low = f"the mean Dice of {mean_dice or 0:.3f} is low: this demo reaches {REACHED_DICE} and more"
    if steps >= ENOUGH_STEPS:
        return f"{low} after {ENOUGH_STEPS} steps, and {steps} were trained; a longer training may help", 2 * elapsed_s
    were = "step was" if steps == 1 else "steps were"
    needed_s = elapsed_s * ENOUGH_STEPS / max(1, steps) * OTHER_WORK
    return f"{low} after {ENOUGH_STEPS} steps, and {steps} {were} trained", needed_s


def _say_result(typed: argparse.Namespace, scores: Scores) -> None:
    from segfw.evaluation.text import scores_table
    from segfw.model.source import fold_folder
    from segfw.model.training_record import read_metrics

    aside(f"\nscores of {count(len(scores.cases), 'image')} the model never saw\n{scores_table(scores)}\n")
    folder = typed.folder.resolve()
    fold = fold_folder(folder / "work", CONFIGURATION, FOLD)
    for what, page in (("report", folder / "report.html"), ("training", fold / "progress.html")):
        print(f"{what:9} {page.as_uri()}")
    for what, where in (
        ("scores", folder / "scores.json"),
        ("images", folder / "data" / "imagesTs"),
        ("masks", folder / "predictions"),
        ("model", folder / "work"),
    ):
        print(f"{what:9} {where}")
    rows = read_metrics(fold)
    steps = sum(row["steps"] for row in rows)
    short = shortfall(scores.foreground_mean.dice, steps, rows[-1]["elapsed_s"] if rows else LONGEST_S)
    if short is None:
        say_next("info", typed.folder / "work")
        return
    sentence, needed_s = short
    print(f"warning: {sentence}; the line below goes on for as long as that takes here")
    say_next("demo", typed.folder, "--time-budget", whole_minutes(needed_s))


COMMAND = Command(
    function=demo,
    what="Make a small data set, train on it, predict and score images never seen: 5 minutes on two fast cores.",
    example="segfw demo demo",
    arguments=(Argument(name="folder", help="default: demo", nargs="?", default=Path("demo")),),
    say_result=_say_result,
)
