"""``segfw demo``: a small made-up data set through the whole job, scored on images the model never saw."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import DEVICES, Options, duration_s, option, takes_options
from segfw.base.speech import aside, say_next

if TYPE_CHECKING:
    from segfw.evaluation.metrics import Scores

TRAINING_CASES = 40
TEST_CASES = 6
MARKER = ".made-by-segfw-demo"  # only such a folder is written into, and tidied up, a second time


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """How long and where the demo trains."""

    time_budget_s: float = option(285.0, "for training (default: 4m45s)", metavar="TIME", parse=duration_s)
    device: str = option("auto", DEVICES)


@takes_options(options=DemoOptions)
def demo(folder: Path, options: DemoOptions = DemoOptions()) -> Scores:
    """Makes data, trains one fold, predicts and scores the test images; a second call reuses what is there.

    Parameters
    ----------
    folder
        A new folder, or one that an earlier demo made.
    options
        Length of the training in seconds, and the device.

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

    from segfw.base.records import UserError
    from segfw.dataset.dataset_json import read_labels
    from segfw.dataset.toy import make_toy_dataset
    from segfw.evaluation.evaluate_pairs import evaluate_pairs
    from segfw.evaluation.pairs import LabelledPairs, first_channel_files, pair_masks
    from segfw.evaluation.result_files import ResultFiles
    from segfw.inference.prediction_options import PredictOptions
    from segfw.model.source import fold_folder
    from segfw.model.training_record import read_metrics
    from segfw.planning.request import PlanRequest
    from segfw.training.settings import RunOptions, TrainSettings
    from segfw.verbs.predict import predict
    from segfw.verbs.run import run

    folder = Path(folder)
    data = folder / "data"
    work = folder / "work"
    masks = folder / "predictions"
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UserError(f"{folder}: holds other things; give a new folder for the demo")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    if not (data / "dataset.json").is_file():
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted demo left half-made
        print(f"making {TRAINING_CASES} training and {TEST_CASES} test cases in {data}")
        make_toy_dataset(data, cases=TRAINING_CASES, test_cases=TEST_CASES)

    run(
        data,
        work,
        PlanRequest(configurations=("3d_fullres",)),
        TrainSettings(time_budget_s=options.time_budget_s),
        RunOptions(folds=("0",), device=options.device),
    )
    predict(work, data / "imagesTs", masks, PredictOptions(device=options.device))
    pairs, _ = pair_masks(masks, data / "labelsTs")
    files = ResultFiles(
        title="segfw demo: images the model never saw",
        output=folder / "scores.json",
        report=folder / "report.html",
        images=first_channel_files(data / "imagesTs"),
        curve=read_metrics(fold_folder(work, "3d_fullres", "0")),
        facts={"Training": f"{TRAINING_CASES} made-up cases, fold 0", "Predictions": str(masks)},
    )
    return evaluate_pairs(LabelledPairs(files=pairs, labels=read_labels(data / "dataset.json")), files)


def _say_result(typed: argparse.Namespace, scores: Scores) -> None:
    from segfw.evaluation.text import scores_table

    aside(f"\nscores of {len(scores.cases)} images the model never saw\n{scores_table(scores)}\n")
    folder = typed.folder
    for what, where in (
        ("report", folder / "report.html"),
        ("scores", folder / "scores.json"),
        ("images", folder / "data" / "imagesTs"),
        ("masks", folder / "predictions"),
        ("model", folder / "work"),
    ):
        print(f"{what:7} {where}")
    say_next("info", folder / "work")


COMMAND = Command(
    function=demo,
    what="Make a small data set, train on it, predict and score images never seen: about 5 minutes on two cores.",
    example="segfw demo demo",
    arguments=(Argument(name="folder", help="default: demo", nargs="?", default=Path("demo")),),
    say_result=_say_result,
)
