"""Section ``cine``: cine MRI of hearts trained for 60 s, with patches that grow and with constant ones, and scored.

The minute is counted from the first step: what comes before it, such as starting, measuring and opening the cases, is
added to the time budget as it was in the run before, and how long the steps took is told.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from bench.gpu.training import segfw
from bench.gpu.visit import Visit

WAYS = ("grow", "constant")


def cine(visit: Visit, found: dict, until_left_s: float) -> None:
    """Seconds before and of the steps, their number, and the Dice of the whole validation cases, for both ways."""
    if not visit.cine_folder.is_dir():
        found["skipped"] = f"there is no data set {visit.cine_folder}"
        return
    steps_s = visit.pick(60, 2)
    device = [] if visit.on_cuda else ["--device", "cpu"]
    with tempfile.TemporaryDirectory() as folder, (visit.folder / "cine.log").open("w", encoding="utf-8") as log:
        work = Path(folder)
        began = time.monotonic()
        plan = ["plan-and-preprocess", str(visit.cine_folder), str(work), "--configurations", "2d"]
        found["plan_exit_status"] = segfw([*plan, "--time-budget", f"{steps_s}s", *device], log)
        found["plan_s"] = round(time.monotonic() - began, 1)
        if found["plan_exit_status"]:
            raise RuntimeError(f"plan-and-preprocess ended with {found['plan_exit_status']}; see cine.log")
        before_s = visit.pick(10.0, 1.0)
        for way in WAYS:
            patience_s = visit.pick(max(0.0, visit.seconds_left() - until_left_s), 200.0)
            found[way] = _trained(work, way, steps_s + before_s, device, log, patience_s)
            before_s = found[way].get("before_first_step_s", before_s)
            visit.save()


def _trained(work: Path, way: str, budget_s: float, device: list[str], log: IO[str], longest_s: float) -> dict:
    began = time.monotonic()
    options = ["--time-budget", f"{budget_s:.1f}s", "--patches", way, "--overwrite", *device]
    status = segfw(["train", str(work), "2d", "0", *options], log, longest_s=longest_s)
    found = {"exit_status": status, "budget_s": round(budget_s, 1), "wall_s": round(time.monotonic() - began, 1)}
    run = work / "runs" / "2d" / "fold_0"
    if (run / "metrics.jsonl").is_file():
        found |= seconds_and_steps((run / "metrics.jsonl").read_text(encoding="utf-8"))
    scores = run / "validation" / "scores.json"
    if scores.is_file():
        found["dice"] = json.loads(scores.read_text(encoding="utf-8"))["foreground_mean"]["dice"]
    return found


def seconds_and_steps(metrics: str) -> dict[str, float]:
    """Seconds before the first step and from there to the end of the last epoch, and steps, of metrics.jsonl."""
    epochs: list[Mapping[str, float]] = [json.loads(line) for line in metrics.splitlines()]
    if not epochs:
        return {}
    before_s = epochs[0]["elapsed_s"] - epochs[0]["epoch_s"]
    return {
        "before_first_step_s": round(before_s, 1),
        "of_steps_s": round(epochs[-1]["elapsed_s"] - before_s, 1),
        "steps": sum(epoch["steps"] for epoch in epochs),
    }
