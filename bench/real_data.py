"""Trains on real hippocampus MR for 12 minutes and scores cases that were not trained on; prints time and memory.

    python scripts/check_real_data.py [--data ../shared/data/hippocampus] [--work real_check] [--time-budget 12m]

Runs the command line as a user would, each verb as its own process. Takes about 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

SEGFW = Path(sys.executable).with_name("segfw")


def verb(*arguments: object) -> None:
    """Runs one verb and prints its wall time and peak memory; stops at the first failure."""
    command = [str(SEGFW), *(str(argument) for argument in arguments)]
    print("$ segfw " + " ".join(command[1:]), flush=True)
    started = time.monotonic()
    process = subprocess.Popen(command)
    # wait4 gives the peak of this one process; getrusage of all children would keep the largest so far.
    _, status, usage = _wait(process)
    print(f"  wall {time.monotonic() - started:.0f} s, peak memory {usage.ru_maxrss / 1024**2:.2f} GB", flush=True)
    if status:
        sys.exit(f"segfw {arguments[0]} failed")


def _wait(process: subprocess.Popen) -> tuple[int, int, resource.struct_rusage]:
    result = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(result[1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hippocampus"))
    parser.add_argument("--work", type=Path, default=Path("real_check"))
    parser.add_argument("--time-budget", default="12m")
    args = parser.parse_args()
    if not args.data.is_dir():
        sys.exit(f"{args.data}: no such folder; give the real data with --data. Nothing was checked.")
    work = args.work / "work"
    verb("plan-and-preprocess", args.data, work, "--configurations", "3d_fullres")
    verb("info", work, "--device", "cpu")
    chosen = ("--configurations", "3d_fullres", "--folds", "0", "--device", "cpu")
    verb("run", args.data, work, *chosen, "--time-budget", args.time_budget)
    held_out = json.loads((work / "splits.json").read_text())["folds"][0]["validation"]
    images, masks = args.work / "images", args.work / "labels"
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for case in held_out:
        shutil.copy(args.data / "imagesTr" / f"{case}_0000.nii.gz", images)
        shutil.copy(args.data / "labelsTr" / f"{case}.nii.gz", masks)
    shutil.copy(args.data / "dataset.json", args.work)
    verb("predict", work, images, args.work / "predictions", "--device", "cpu")
    output, report = args.work / "scores.json", args.work / "report.html"
    verb("evaluate", args.work / "predictions", masks, "--output", output, "--report", report, "--images", images)


if __name__ == "__main__":
    main()
