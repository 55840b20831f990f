"""Section ``train``: a real data set for the time that is left; killed on the way, resumed, scored."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from bench import CLONE
from bench.gpu.visit import Visit

RESERVE_S = 65  # of the time of the section: planning, starting twice, what is lost when it is killed, validation
LONGEST_BUDGET_S = 240
CONFIGURATION = "3d_fullres"


def training(visit: Visit, found: dict, until_left_s: float) -> None:
    """plan-and-preprocess, ``train --time-budget`` that is killed, ``train --resume``: statuses, seconds, scores."""
    if not visit.data_folder.is_dir():
        found["skipped"] = f"there is no data set {visit.data_folder}"
        return
    budget_s = budget(visit.seconds_left() - until_left_s) if visit.on_cuda else 2
    device = [] if visit.on_cuda else ["--device", "cpu"]
    fold = ["train", "WORK", CONFIGURATION, "0", *device]
    with tempfile.TemporaryDirectory() as folder, (visit.folder / "train.log").open("w", encoding="utf-8") as log:
        work = Path(folder)
        fold[1] = str(work)
        began = time.monotonic()
        plan = ["plan-and-preprocess", str(visit.data_folder), str(work), *device]
        found["budget_s"] = budget_s
        found["plan_exit_status"] = segfw(plan, log)
        found["plan_s"] = round(time.monotonic() - began, 1)
        if found["plan_exit_status"]:
            raise RuntimeError(f"plan-and-preprocess ended with {found['plan_exit_status']}; see train.log")

        found |= _killed(visit, [*fold, "--time-budget", f"{budget_s}s"], work, log, budget_s)

        began = time.monotonic()
        patience_s = visit.pick(max(0.0, visit.seconds_left() - until_left_s), 200.0)
        found["resumed_exit_status"] = segfw([*fold, "--resume"], log, longest_s=patience_s)
        found["resumed_s"] = round(time.monotonic() - began, 1)
        found |= _results(visit, work)


def budget(section_s: float) -> int:
    """Seconds to train, of those that the section may take."""
    return int(min(LONGEST_BUDGET_S, section_s - RESERVE_S))


def segfw(arguments: Sequence[str], log: IO[str], *, longest_s: float | None = None) -> int:
    """Exit status of a command of segfw, which is killed after ``longest_s``, and with the section."""
    with started(arguments, log) as process, contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=longest_s)
    return process.returncode


@contextlib.contextmanager
def started(arguments: Sequence[str], log: IO[str]) -> Iterator[subprocess.Popen]:
    """A command of segfw, which is killed where it still runs at the end of the block."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CLONE), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "segfw", *arguments]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _killed(visit: Visit, arguments: Sequence[str], work: Path, log: IO[str], budget_s: float) -> dict:
    """Starts a training and kills it a while after its first checkpoint, or when it takes too long."""
    longest_s = visit.pick(min(130.0, budget_s), 200.0)
    after_checkpoint_s = visit.pick(20.0, 0.5)
    found = {}
    began = time.monotonic()
    checkpoint_s = None
    with started(arguments, log) as process:
        while process.poll() is None:
            time.sleep(0.2)
            now_s = time.monotonic() - began
            if checkpoint_s is None and any(work.rglob("last.safetensors")):
                checkpoint_s = now_s
                found["first_checkpoint_s"] = round(now_s, 1)
            is_enough = checkpoint_s is not None and now_s - checkpoint_s > after_checkpoint_s
            if is_enough or now_s > longest_s:
                break
    return found | {"killed_exit_status": process.returncode}


def _results(visit: Visit, work: Path) -> dict:
    """Steps and the last epoch of metrics.jsonl, which is copied beside the result, and the scores."""
    found = {}
    for path in sorted(work.rglob("metrics.jsonl")):
        text = path.read_text(encoding="utf-8")
        (visit.folder / "metrics.jsonl").write_text(text, encoding="utf-8")
        epochs = [json.loads(line) for line in text.splitlines()]
        found["epochs"] = len(epochs)
        found["steps"] = sum(epoch.get("steps", 0) for epoch in epochs)
        found["last_epoch"] = epochs[-1] if epochs else None
    for path in sorted(work.rglob("scores.json")):
        scores = json.loads(path.read_text(encoding="utf-8"))
        found["scores"] = {name: value for name, value in scores.items() if name != "cases"}
    return found
