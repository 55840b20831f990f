"""The verbs and their arguments; what several verbs share is in ``options``."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from segfw.options import DEVICES, planning_options

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


def _add_plan(verbs: argparse._SubParsersAction) -> None:
    what = "Verify the data, choose spacing, patch, network and batch, and preprocess."
    parser = _verb(verbs, "plan-and-preprocess", what, "segfw plan-and-preprocess hippocampus work")
    parser.add_argument("raw", type=Path, help="folder of images and masks")
    parser.add_argument("work", type=Path, help="folder for everything that is made")
    planning_options(parser)
    parser.add_argument("--device", default="auto", help=f"{DEVICES}; a GPU is also used to check the plan's memory")
    parser.add_argument("--plan-only", action="store_true", help="do not preprocess")
    parser.add_argument("--overwrite", action="store_true", help="read and plan anew, whatever is there")


VERBS: dict[str, object] = {
    "check": None,
    "run": None,
    "plan-and-preprocess": _add_plan,
    "train": None,
    "predict": None,
    "ensemble": None,
    "select": None,
    "evaluate": None,
    "export": None,
    "import-nnunet": None,
    "info": None,
    "doctor": None,
    "demo": None,
}
