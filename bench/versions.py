"""Two checkouts side by side on the same data: preprocessing, training, prediction and evaluation, as ratios.

    python -m bench versions OLD_CHECKOUT --data ../shared/data/hippocampus --rounds 5

Each job is a whole ``python -m segfw`` process, one of each checkout in turn, so that both see the same machine. What
is printed is the median over rounds of new / old, with its range: below 1 the new one is faster. Training is timed by
what its own log says of the epoch, so that starting up and validating whole cases do not hide a slower step.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

FOLD = "runs/3d_fullres/fold_0"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench versions", description=__doc__.split("\n")[0])
    parser.add_argument("old", type=Path, help="checkout to compare with")
    parser.add_argument("--new", type=Path, default=Path(), help="default: this one")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/hippocampus"), help="data set in nnU-Net's layout"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="of training a round")
    parser.add_argument("--images", type=int, default=40, help="that are predicted a round")
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as scratch:
        rows = compare(given.old.resolve(), given.new.resolve(), given.data.resolve(), Path(scratch), given)
    print(table(rows))


def table(rows: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Markdown of the seconds (old, new) of each round, by job."""
    lines = ["| job | old s | new s | new / old (median, range) |", "|---|---|---|---|"]
    for job, pairs in rows.items():
        ratios = [new_s / old_s for old_s, new_s in pairs]
        old_s = statistics.median(pair[0] for pair in pairs)
        new_s = statistics.median(pair[1] for pair in pairs)
        ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        lines.append(f"| {job} | {old_s:.2f} | {new_s:.2f} | {ratio} |")
    return "\n".join(lines)


def compare(old: Path, new: Path, data: Path, scratch: Path, given: argparse.Namespace) -> dict[str, list]:
    """Seconds (old, new) of each round, by job."""
    images = some_images(data, scratch / "images", given.images)
    rows: dict[str, list] = {job: [] for job in JOBS}
    for number in range(given.rounds):
        seconds: dict[str, list[float]] = {job: [] for job in JOBS}
        order = (old, new) if number % 2 == 0 else (new, old)
        for source in order:
            home = scratch / ("old" if source == old else "new")
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            for job, run in JOBS.items():
                seconds[job].append(run(source, home, data, images, given.steps))
        for job, pair in seconds.items():
            rows[job].append(tuple(pair if order[0] == old else reversed(pair)))
            print(f"round {number + 1}, {job}: old {rows[job][-1][0]:.2f} s, new {rows[job][-1][1]:.2f} s", flush=True)
    return rows


def some_images(data: Path, folder: Path, count: int) -> Path:
    """The first images of a data set; their masks lie in ``labels`` beside them."""
    folder.mkdir()
    labels = folder.with_name("labels")
    labels.mkdir()
    for mask in sorted((data / "labelsTr").iterdir())[:count]:
        shutil.copyfile(mask, labels / mask.name)
        image = mask.name.replace(".nii.gz", "_0000.nii.gz")
        shutil.copyfile(data / "imagesTr" / image, folder / image)
    return folder


def segfw(source: Path, *words: object) -> float:
    """Seconds that a verb of a checkout takes as a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    command = [sys.executable, "-m", "segfw", *map(str, words)]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=source.parent, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} of {source} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds


def preprocess(source: Path, home: Path, data: Path, images: Path, steps: int) -> float:
    return segfw(
        source, "plan-and-preprocess", data, home / "work", "--configurations", "3d_fullres", "--device", "cpu"
    )


def train(source: Path, home: Path, data: Path, images: Path, steps: int) -> float:
    length = ("--epochs", 1, "--steps-per-epoch", steps, "--batch-size", 4)
    segfw(source, "train", home / "work", "3d_fullres", 0, "--device", "cpu", *length)
    rows = [json.loads(line) for line in (home / "work" / FOLD / "metrics.jsonl").read_text().splitlines()]
    return sum(row["epoch_s"] for row in rows)


def predict(source: Path, home: Path, data: Path, images: Path, steps: int) -> float:
    return segfw(source, "predict", home / "work", images, home / "masks", "--folds", 0, "--device", "cpu")


def evaluate(source: Path, home: Path, data: Path, images: Path, steps: int) -> float:
    return segfw(source, "evaluate", home / "masks", images.with_name("labels"), "--output", home / "scores.json")


JOBS: dict[str, Callable[[Path, Path, Path, Path, int], float]] = {
    "preprocessing": preprocess,
    "training": train,
    "prediction": predict,
    "evaluation": evaluate,
}
