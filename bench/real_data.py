"""Trains on real hippocampus MR for 12 minutes and scores cases that were not trained on; prints time and memory.

    python -m bench real-data [--data ../shared/data/hippocampus] [--work real_check] [--time-budget 12m]

Runs the command line as a user would, each verb as its own process. Takes about 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.runs import SEGFW


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench real-data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hippocampus"))
    parser.add_argument("--work", type=Path, default=Path("real_check"))
    parser.add_argument("--time-budget", default="12m")
    args = parser.parse_args(arguments)
    if not args.data.is_dir():
        sys.exit(f"{args.data}: no such folder; give the real data with --data. Nothing was checked.")

    work = args.work / "work"
    run_verb("plan-and-preprocess", args.data, work, "--configurations", "3d_fullres")
    run_verb("info", work, "--device", "cpu")
    chosen = ("--configurations", "3d_fullres", "--folds", "0", "--device", "cpu")
    run_verb("run", args.data, work, *chosen, "--time-budget", args.time_budget)

    held_out = json.loads((work / "splits.json").read_text(encoding="utf-8"))["folds"][0]["validation"]
    images = args.work / "images"
    masks = args.work / "labels"
    copy_cases(args.data, held_out, images, masks)
    predictions = args.work / "predictions"
    run_verb("predict", work, images, predictions, "--device", "cpu")
    written = ("--output", args.work / "scores.json", "--report", args.work / "report.html")
    run_verb("evaluate", predictions, masks, *written, "--images", images)


def run_verb(*arguments: object) -> None:
    """Runs one verb and prints its wall time and peak memory; stops at the first failure."""
    command = [str(SEGFW), *(str(argument) for argument in arguments)]
    print("$ segfw " + " ".join(command[1:]), flush=True)
    started = time.monotonic()
    process = subprocess.Popen(command)
    # wait4 gives the peak of this one process; getrusage of all children would keep the largest so far.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    print(f"  wall {time.monotonic() - started:.0f} s, peak memory {usage.ru_maxrss / 1024**2:.2f} GB", flush=True)
    if process.returncode:
        sys.exit(f"segfw {arguments[0]} failed")


def copy_cases(data: Path, cases: Sequence[str], images: Path, masks: Path) -> None:
    """Copies images, masks and the description of some cases out of a folder in nnU-Net's raw layout."""
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    for case in cases:
        shutil.copy(data / "imagesTr" / f"{case}_0000.nii.gz", images)
        shutil.copy(data / "labelsTr" / f"{case}.nii.gz", masks)
    shutil.copy(data / "dataset.json", images.parent)
