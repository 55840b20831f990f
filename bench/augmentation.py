"""Trains with augmentation on the device and with the reference pipeline, the same number of steps, and compares Dice.

    python -m bench augmentation --data ../shared/data/hippocampus --keep work_augmentation
    python -m bench augmentation --data ... --keep ... --augmentations none device     (any two kinds)

Every kind trains with the same seeds, and the fold's whole held-out cases score. Nothing is timed, so several trainings
run at once (``--parallel``), each with ``--threads`` threads. Finished runs in ``--keep`` are kept and interrupted
ones resumed: call it again with the same arguments to go on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scipy.stats import t as student

from bench.figures import columns, spread_text
from bench.measure import failure
from bench.runs import SEGFW, keep_or_refuse, linked_work, once
from segfw.model.source import WEIGHTS_FILE, fold_folder
from segfw.training.checkpoint import CHECKPOINT_FILE


def prepare(args: argparse.Namespace) -> dict[str, str]:
    """Plans and preprocesses, once for all runs."""
    work = args.keep / "work"
    segfw(args, "prepare", ["plan-and-preprocess", args.data, work, "--configurations", args.configuration])
    return {"work": str(work)}


def train(args: argparse.Namespace, work: Path, augmentation: str, seed: int) -> dict[str, float]:
    """One training, or what is left of it; returns the held-out Dice of every label and their mean."""
    name = f"{augmentation}_seed_{seed}"
    folder = linked_work(work, args.keep / name)
    run = fold_folder(folder, args.configuration, args.fold)
    scores = run / "validation" / "scores.json"
    if not scores.is_file():
        print(f"{name} ...", flush=True)
        segfw(args, name, ["train", folder, args.configuration, args.fold, *options(args, augmentation, seed, run)])
    found = json.loads(scores.read_text(encoding="utf-8"))
    dice = {label: score["dice"] for label, score in found["labels"].items()}
    dice["mean"] = found["foreground_mean"]["dice"]
    return {label: value for label, value in dice.items() if value is not None}  # None: no held-out case has it


def options(args: argparse.Namespace, augmentation: str, seed: int, run: Path) -> list[object]:
    """Options of ``segfw train``; --resume where a run was interrupted before its weights were written."""
    chosen = ["--augmentation", augmentation, "--seed", seed, "--batch-size", args.batch_size, "--device", args.device]
    chosen += ["--epochs", args.epochs, "--steps-per-epoch", steps_per_epoch(args.steps_total, args.epochs)]
    is_interrupted = (run / CHECKPOINT_FILE).is_file() and not (run / WEIGHTS_FILE).is_file()
    return [*chosen, "--resume"] if is_interrupted else chosen


def steps_per_epoch(steps_total: int, epochs: int) -> int:
    """Steps of each epoch; ends the program if the epochs cannot share the steps evenly."""
    if steps_total % epochs:
        sys.exit(f"--steps-total {steps_total} is no multiple of --epochs {epochs}; change one of them")
    return steps_total // epochs


def segfw(args: argparse.Namespace, name: str, arguments: Sequence[object]) -> None:
    """Runs a verb of segfw, its output in a log; raises RuntimeError with the last lines if it fails."""
    log = args.keep / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(SEGFW), *(str(argument) for argument in arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    with log.open("w", encoding="utf-8") as output:
        code = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT).returncode
    if code:
        raise RuntimeError(failure(command, code, log))


def paired_difference(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> dict[str, float | None]:
    """Mean of first - second over pairs, and the half width of its t interval; None for a single pair."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean = statistics.fmean(differences)
    pairs = len(differences)
    if pairs < 2:
        return {"mean": mean, "half_width": None}
    error = statistics.stdev(differences) / math.sqrt(pairs)
    return {"mean": mean, "half_width": float(student.ppf(0.5 + level / 2, pairs - 1)) * error}


def table(dice: dict[str, dict[int, dict[str, float]]]) -> str:
    """{augmentation: {seed: {label or 'mean': Dice}}} as text: every run, means and spreads, paired differences."""
    first, second = dice
    seeds = list(dice[first])
    labels = list(dice[first][seeds[0]])
    rows = [["augmentation", "seed", *labels]]
    for augmentation, runs in dice.items():
        for seed, scores in runs.items():
            rows.append([augmentation, str(seed), *(f"{scores[label]:.4f}" for label in labels)])
    lines = [columns(rows), ""]
    for augmentation, runs in dice.items():
        lines.append(f"{augmentation}: mean Dice {spread_text([runs[seed]['mean'] for seed in seeds])}")
    for label in labels:
        found = paired_difference(
            [dice[first][seed][label] for seed in seeds], [dice[second][seed][label] for seed in seeds]
        )
        interval = ""
        if found["half_width"] is not None:
            interval = f" +- {found['half_width']:.4f} (95 % t interval)"
        lines.append(f"{first} - {second}, {label}: {found['mean']:+.4f}{interval}, {len(seeds)} pairs of runs")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(arguments)
    steps_per_epoch(args.steps_total, args.epochs)
    args.keep = args.keep.resolve()
    names = ("configuration", "fold", "steps_total", "epochs", "batch_size", "device")
    keep_or_refuse(args.keep, {"data": args.data.resolve()} | {name: getattr(args, name) for name in names})
    work = Path(once(args.keep / "prepare.json", prepare, args)["work"])
    runs = list(itertools.product(args.seeds, args.augmentations))
    with ThreadPoolExecutor(args.parallel) as pool:
        scores = list(pool.map(lambda run: train(args, work, augmentation=run[1], seed=run[0]), runs))
    dice: dict[str, dict[int, dict[str, float]]] = {augmentation: {} for augmentation in args.augmentations}
    for (seed, augmentation), found in zip(runs, scores):
        dice[augmentation][seed] = found
    print(
        f"{args.data.name}, {args.configuration}, fold {args.fold}: {args.steps_total} steps of {args.batch_size} "
        f"patches in {args.epochs} epochs, whole held-out cases"
    )
    print(table(dice))
    (args.keep / "result.json").write_text(json.dumps(dice, indent=1) + "\n", encoding="utf-8")
    print(f"written: {args.keep / 'result.json'}")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench augmentation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of images and masks")
    parser.add_argument("--keep", type=Path, required=True, help="folder for everything; the same one goes on")
    parser.add_argument(
        "--augmentations", nargs=2, default=["device", "reference"], metavar="KIND", help="the two to compare"
    )
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--fold", default="0")
    parser.add_argument("--steps-total", type=int, default=400, help="steps of each training (default: 400)")
    parser.add_argument("--epochs", type=int, default=10, help="that share the steps (default: 10)")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    parser.add_argument("--parallel", type=int, default=2, help="trainings at once")
    parser.add_argument("--device", default="cpu")
    return parser
