"""What an epoch of training spends beside its steps: shares of augmentation and of waiting for data.

python -m bench epoch
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from bench.small_network import BATCH, NETWORK, PATCH
from segfw.base.device import keep_freed_pages, pick_device
from segfw.base.records import GIGABYTE
from segfw.dataset.toy import make_toy_dataset
from segfw.model.training_record import read_metrics
from segfw.planning.plan import PLAN_FILE, Configuration, Plan
from segfw.planning.splits import SPLITS_FILE, Splits
from segfw.training.loop import train
from segfw.training.settings import TrainSettings
from segfw.training.train_request import TrainRequest
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

STEPS = {"cpu": 6, "cuda": 100, "mps": 20}  # of an epoch


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(prog="python -m bench epoch", description=__doc__.splitlines()[0]).parse_args(arguments)
    keep_freed_pages()
    epoch()


def epoch() -> None:
    """Training of the toy data set: what share of an epoch is augmentation, and what share is waiting for data."""
    device = pick_device("auto")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        work = Path(folder) / "work"
        make_toy_dataset(raw, cases=8, test_cases=0)
        plan_and_preprocess(raw, work, configurations=("3d_fullres",), device=str(device))
        plan = Plan.load(work / PLAN_FILE)
        fold = Splits.load(work / SPLITS_FILE).fold("0")
        configuration = plan.configuration("3d_fullres")
        data = work / "preprocessed" / configuration.data_name
        if device.type == "cpu":
            configuration = _small(configuration)
        settings = TrainSettings(epochs=2, steps_per_epoch=STEPS[device.type])
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with utilisation(device) as percentages:
            request = TrainRequest(
                folder=work / "run",
                preprocessed=data,
                configuration=configuration,
                fold=fold,
                settings=settings,
                label_names=tuple(plan.labels.structures),
                device=str(device),
            )
            train(request)
        row = read_metrics(work / "run")[-1]  # the first epoch also fills caches
    size = "x".join(map(str, configuration.patch_size))
    print(
        f"second epoch on toy data, {row['steps']} steps of {configuration.batch_size} patches of {size}: "
        f"{row['epoch_s']:.1f} s without validation; augmentation {row['augment_share']:.1%} and waiting for data "
        f"{row['stalled_share']:.1%} of that"
    )
    if device.type == "cuda":
        print(f"  tensors took at most {torch.cuda.max_memory_allocated(device) / GIGABYTE:.2f} GB")
        share = f"{statistics.median(percentages):.0f} %" if percentages else "not measured, nvidia-smi is missing"
        print(f"  utilisation, median share of time in which a kernel ran, start and compilation included: {share}")


def _small(configuration: Configuration) -> Configuration:
    """The same data in the small patches and network of the other parts: the plan's would take a CPU minutes."""
    network = NETWORK.model_copy(update={"classes": configuration.network.classes})
    return configuration.model_copy(update={"network": network, "patch_size": PATCH, "batch_size": BATCH})


@contextmanager
def utilisation(device: torch.device) -> Iterator[list[float]]:
    """Percentages that nvidia-smi reads five times a second, in the list once the block is left; empty without it."""
    percentages: list[float] = []
    if device.type != "cuda" or shutil.which("nvidia-smi") is None:
        yield percentages
        return
    query = ["nvidia-smi", f"--id={device.index or 0}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    process = subprocess.Popen([*query, "--loop-ms=200"], stdout=subprocess.PIPE, text=True)
    try:
        yield percentages
    finally:
        process.terminate()
        lines, _ = process.communicate()
        percentages += [float(line) for line in lines.split() if line.isdigit()]
