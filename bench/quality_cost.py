"""What judging masks adds to a prediction: processor time in turns, with and without, and peak memory of each.

    python -m bench quality MODEL IMAGES [--cases 4] [--repetitions 3] [--parts] [--memory]

MODEL is calibrated. Networks are loaded once; cases are read, predicted and written by the pipeline of ``predict``, in
turn without quality, with the folds told apart alone, and with quality. With ``--memory`` each way runs once more in a
process of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.measure import measure
from segfw.dataset.cases import Case
from segfw.dataset.new_images import find_images
from segfw.grid.slabs import Slab
from segfw.inference.many_cases import predict_cases
from segfw.inference.output_folder import Extra, OutputFolder
from segfw.inference.predict_protocol import PreparedImage
from segfw.inference.prediction_job import PredictionJob
from segfw.inference.prediction_options import PredictOptions
from segfw.networks import build_network
from segfw.quality.calibrated_prediction import judge_of

WAYS = ("without quality", "folds told apart", "with quality")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--cases", type=int, default=4, help="the first ones of the folder")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="peak memory of both, in processes of their own")
    args = parser.parse_args(arguments)
    print(times_text(args.model, args.images, args.cases, args.repetitions, args.device))
    if args.memory:
        print(memory_text(args.model, args.images, args.cases, args.device))


class _OnlyShown:
    """Is shown every slab and writes an empty file: what it costs that folds are told apart, and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, slab: Slab) -> None:
        """Looks at nothing."""

    def finish(self, _: object) -> None:
        """Writes the file that says that the case is done."""
        self._path.parent.mkdir(exist_ok=True)
        self._path.write_bytes(b"")

    def __enter__(self) -> _OnlyShown:
        return self

    def __exit__(self, *_: object) -> None: ...


def _apart() -> Extra:
    def open_sink(path: Path, _: PreparedImage, __: Case) -> _OnlyShown:
        return _OnlyShown(path)

    return Extra(folder="apart", ending=".empty", open=open_sink, bytes_per_image_byte=0.0, by_member=True)


def times_text(model: Path, images: Path, cases: int, repetitions: int, device: str) -> str:
    """Processor seconds a case of each way, and their ratios to the first one in the same turn."""
    options = PredictOptions(device=device)
    with tempfile.TemporaryDirectory() as made:
        job = PredictionJob.of(model, Path(made), options, build_network)
        loaded = job.load()
        judge = judge_of(model, loaded, options)
        if judge is None:
            sys.exit(f"{model}: is not calibrated; run segfw calibrate {model} first")
        job = replace(job, makers=(judge,), quality=judge.digest)
        predictor = job.predictor(loaded, device)
        chosen = find_images(images, loaded[0].plan.channels)[:cases]
        extras = ((), (_apart(),), job.folder(loaded).extras)
        turns = iter(range(1000))

        def predicted(way: int) -> None:
            folder = OutputFolder(path=Path(made) / str(next(turns)), extras=extras[way])
            (folder.path / ".segfw").mkdir(parents=True)
            cohort = predict_cases([predictor], chosen, folder)
            assert cohort.done == len(chosen)

        seconds = in_turns([lambda way=way: predicted(way) for way in range(len(WAYS))], repetitions)
    lines = [f"{model}, {len(chosen)} cases, {repetitions} turns, processor time of the whole pipeline"]
    for way, name in enumerate(WAYS):
        ratios = [turn[way] / turn[0] for turn in seconds]
        each = statistics.median(turn[way] for turn in seconds) / len(chosen)
        ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        lines.append(f"{name}: {each:.2f} s a case, ratio {ratio}")
    return "\n".join(lines)


def in_turns(ways: Sequence[Callable[[], object]], repetitions: int) -> list[list[float]]:
    """Processor seconds of each way in each turn, after one turn that warms up."""
    seconds = []
    for turn in range(repetitions + 1):
        taken = []
        for way in ways:
            started = time.process_time()
            way()
            taken.append(time.process_time() - started)
        if turn > 0:
            seconds.append(taken)
    return seconds


def memory_text(model: Path, images: Path, cases: int, device: str) -> str:
    """Peak memory (PSS) of ``segfw predict`` without and with quality."""
    lines = []
    with tempfile.TemporaryDirectory() as made:
        few = Path(made) / "images"
        few.mkdir()
        plan_channels = PredictionJob.of(model, Path(made), PredictOptions(), build_network).load()[0].plan.channels
        for case in find_images(images, plan_channels)[:cases]:
            for path in case.images:
                (few / path.name).symlink_to(path.resolve())
        for name, option in (("without quality", ["--no-quality"]), ("with quality", [])):
            command = [sys.executable, "-m", "segfw", "predict", str(model), str(few), str(Path(made) / name)]
            taken = measure([*command, "--device", device, *option], env=os.environ, log=Path(made) / "log")
            lines.append(f"{name}: {taken.peak_pss_gb:.2f} GB at most, {taken.wall_s:.0f} s")
    return "\n".join(lines)
