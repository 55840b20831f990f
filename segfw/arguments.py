"""The verbs and their arguments; what several verbs share is in ``options``."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from segfw.options import DEVICES, extension, planning_options, tiling_options, training_options

POSTPROCESSING = "selection.json, to do as it found best, or postprocessing.json of an imported model"


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="segfw",
        description="Self-configuring segmentation of CT, MR and other medical images.",
        epilog="example: segfw run RAW WORK --configurations 3d_fullres --folds 0 --time-budget 30m",
    )
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, add in VERBS.items():
        if add is None:
            import_module(f"segfw.verbs.{verb.replace('-', '_')}").COMMAND.add_to(verbs, verb)
        else:
            add(verbs)
    return parser


def _verb(verbs: argparse._SubParsersAction, name: str, what: str, example: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=what, description=what, epilog=f"example: {example}")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _add_run(verbs: argparse._SubParsersAction) -> None:
    what = "From a folder of images and masks to trained, validated models; call it again to go on where it stopped."
    parser = _verb(
        verbs, "run", what, "segfw run hippocampus work --configurations 3d_fullres --folds 0 --time-budget 12m"
    )
    parser.add_argument("raw", type=Path, help="folder of images and masks")
    parser.add_argument("work", type=Path, help="folder for everything that is made")
    planning_options(parser)
    parser.add_argument("--folds", nargs="+", metavar="FOLD", help="0 to 4, or all (default: 0 1 2 3 4)")
    training_options(parser)


def _add_plan(verbs: argparse._SubParsersAction) -> None:
    what = "Verify the data, choose spacing, patch, network and batch, and preprocess."
    parser = _verb(verbs, "plan-and-preprocess", what, "segfw plan-and-preprocess hippocampus work")
    parser.add_argument("raw", type=Path, help="folder of images and masks")
    parser.add_argument("work", type=Path, help="folder for everything that is made")
    planning_options(parser)
    parser.add_argument("--device", default="auto", help=f"{DEVICES}; a GPU is also used to check the plan's memory")
    parser.add_argument("--plan-only", action="store_true", help="do not preprocess")
    parser.add_argument("--overwrite", action="store_true", help="read and plan anew, whatever is there")


def _add_train(verbs: argparse._SubParsersAction) -> None:
    what = "Train one fold of one configuration and score it on its validation cases."
    parser = _verb(verbs, "train", what, "segfw train work 3d_fullres 0 --time-budget 2h")
    parser.add_argument("work", type=Path, help="work folder of plan-and-preprocess")
    parser.add_argument("configuration", help="2d, 3d_fullres, 3d_lowres, or 3d_cascade_fullres after it")
    parser.add_argument("fold", help="0 to 4, or all")
    training_options(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--extend",
        type=extension,
        default={},
        metavar="MORE",
        help="train a finished fold for longer: 100 epochs or 30m",
    )
    parser.add_argument("--overwrite", action="store_true", help="delete this fold's run and train anew")


def _add_predict(verbs: argparse._SubParsersAction) -> None:
    parser = _verb(verbs, "predict", "Write masks for new images.", "segfw predict work new_scans masks --folds 0")
    parser.add_argument("model", type=Path, help="work folder or model file")
    parser.add_argument("input", type=Path, help="folder of images, or one file")
    parser.add_argument("output", type=Path, help="folder for the masks")
    parser.add_argument("--configuration", help="default: what segfw select chose, or the only one that is trained")
    parser.add_argument("--folds", nargs="+", metavar="FOLD", help="default: all that are trained, averaged")
    parser.add_argument(
        "--save-probabilities",
        type=int,
        nargs="?",
        const=8,
        choices=(8, 16),
        metavar="BITS",
        help="for segfw ensemble, with 8 bits (default) or 16, which take four times the space",
    )
    parser.add_argument("--uncertainty", action="store_true", help="maps of entropy and disagreement of folds")
    parser.add_argument(
        "--max-memory-gb", type=float, metavar="GB", help="of this computer's memory (default: 80 %% of what is free)"
    )
    tiling_options(parser)
    parser.add_argument("--device", nargs="+", default=["auto"], help=f"{DEVICES}; several share the cases")
    parser.add_argument(
        "--part", metavar="K/N", help="only each N-th case from the K-th on, for an array of N jobs: 3/8"
    )
    parser.add_argument("--cluster", metavar="ADDRESS", help="Dask scheduler, whose workers predict: host:8786")
    parser.add_argument(
        "--weights", default="last", choices=("last", "best"), help="of the end of the training, or of its best epoch"
    )
    parser.add_argument("--postprocessing", type=Path, metavar="FILE", help=POSTPROCESSING)
    parser.add_argument("--ending", default=".nii.gz", help="file format of the masks (default: .nii.gz)")
    parser.add_argument("--overwrite", action="store_true", help="predict again what is there")


VERBS: dict[str, object] = {
    "check": None,
    "run": _add_run,
    "plan-and-preprocess": _add_plan,
    "train": _add_train,
    "predict": _add_predict,
    "ensemble": None,
    "select": None,
    "evaluate": None,
    "export": None,
    "import-nnunet": None,
    "info": None,
    "doctor": None,
    "demo": None,
}
