"""How far a training step is from the machine, and what an epoch spends beside it. Parts of scripts/benchmark.py."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from segfw.base.device import autocast, pick_device, pick_precision
from segfw.base.records import GIGABYTE
from segfw.dataset.toy import make_toy_dataset
from segfw.networks import build_network, fastest_layout
from segfw.networks.losses import deep_supervision_loss
from segfw.networks.spec import NetworkSpec
from segfw.planning.memory import step_cost
from segfw.planning.plan import PLAN_FILE, Configuration, Plan
from segfw.planning.splits import Splits
from segfw.training.loop import train
from segfw.training.metrics_log import read_metrics
from segfw.training.settings import TrainSettings
from segfw.verbs.plan_and_preprocess import SPLITS_FILE, plan_and_preprocess

PATCH, BATCH = (40, 56, 40), 2  # the plan of a small-structure MR data set
NETWORK = NetworkSpec(
    architecture="plain-unet",
    in_channels=1,
    classes=3,
    features=(32, 64, 128, 256),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 4,
    encoder_blocks=(2,) * 4,
    decoder_convs=(2,) * 3,
)
MATRIX = {"cpu": 2048, "cuda": 8192, "mps": 4096}  # edge of the matrices by kind of device: large, but not for long
STEPS = {"cpu": 6, "cuda": 100, "mps": 20}  # of an epoch


def alternate(baseline: Callable[[], object], ours: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Median seconds of both, measured in turn after one warm-up each."""
    times: tuple[list[float], list[float]] = ([], [])
    for repetition in range(repetitions + 1):
        for function, kept in zip((baseline, ours), times):
            started = time.perf_counter()
            function()
            if repetition:
                kept.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


def step_of(
    precision: torch.dtype, device: torch.device, batch: int = BATCH, *, fastest: bool | None = None
) -> Callable[[], float]:
    """A closure that does one training step and returns its loss.

    ``fastest`` takes the layout, and on CUDA the compiler, that training takes; None does unless in float32.
    """
    fastest = precision != torch.float32 if fastest is None else fastest
    torch.manual_seed(0)
    network = build_network(NETWORK).to(device).train()
    forward = network
    if fastest:
        network = fastest_layout(network)
        forward = torch.compile(network) if device.type == "cuda" else network
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.99, nesterov=True, weight_decay=3e-5, fused=True)
    image = torch.randn(batch, 1, *PATCH, device=device)
    classes = torch.randint(0, 3, (batch, *PATCH), device=device)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            outputs = forward(image)
        loss = deep_supervision_loss(outputs, classes, False)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        return loss.item()

    return step


def matmuls_of(precision: torch.dtype, device: torch.device, edge: int, count: int) -> Callable[[], float]:
    """A closure that multiplies two square matrices ``count`` times and waits for the results."""
    left, right = (torch.randn(edge, edge, device=device).to(precision) for _ in range(2))
    return lambda: [left @ right for _ in range(count)][-1][0, 0].item()


def machine() -> None:
    """Operations per second of a training step as a percentage of those of a large matrix product, by precision.

    There are as many products as have the operations of a step, so that other load slows both alike.
    """
    device = pick_device("auto")
    edge, batch = MATRIX[device.type], 64 if device.type == "cuda" else BATCH
    operations = step_cost(NETWORK).flops(PATCH, batch)
    count = round(operations / (2 * edge**3))
    if torch.backends.cudnn.allow_tf32:  # as in the convolutions of a float32 step, lest the products be the slower
        torch.set_float32_matmul_precision("high")
    for precision in dict.fromkeys((pick_precision("auto", device), torch.float32)):
        step = step_of(precision, device, batch, fastest=True)
        matmuls_s, step_s = alternate(matmuls_of(precision, device, edge, count), step, 7)
        matmul_flops, step_flops = count * 2 * edge**3 / matmuls_s, operations / step_s
        print(
            f"training step, batch {batch}, {str(precision)[6:]}: {step_s:.3f} s, {operations / 1e9:.0f} GFLOP, "
            f"{step_flops / 1e9:.0f} GFLOP/s = {step_flops / matmul_flops:.0%} of the {matmul_flops / 1e9:.0f} GFLOP/s "
            f"of {edge} x {edge} matrix products"
        )


def epoch() -> None:
    """Training of the toy data set: what share of an epoch is augmentation, and what share is waiting for data."""
    device = pick_device("auto")
    with tempfile.TemporaryDirectory() as folder:
        raw, work = Path(folder) / "raw", Path(folder) / "work"
        make_toy_dataset(raw, cases=8, test_cases=0)
        plan_and_preprocess(raw, work, configurations=("3d_fullres",), device=str(device))
        plan, fold = Plan.load(work / PLAN_FILE), Splits.load(work / SPLITS_FILE).fold("0")
        configuration = plan.configuration("3d_fullres")
        data = work / "preprocessed" / configuration.data_name
        if device.type == "cpu":
            configuration = _small(configuration)
        settings = TrainSettings(epochs=2, steps_per_epoch=STEPS[device.type])
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with utilisation(device) as busy:
            names = list(plan.labels.structures)
            train(work / "run", data, configuration, fold, settings, label_names=names, device=str(device))
        row = read_metrics(work / "run")[-1]  # the first epoch also fills caches
    size = "x".join(map(str, configuration.patch_size))
    print(
        f"second epoch on toy data, {row['steps']} steps of {configuration.batch_size} patches of {size}: "
        f"{row['epoch_s']:.1f} s without validation; augmentation {row['augment_share']:.1%} and waiting for data "
        f"{row['stalled_share']:.1%} of that"
    )
    if device.type == "cuda":
        print(f"  tensors took at most {torch.cuda.max_memory_allocated(device) / GIGABYTE:.2f} GB")
        share = f"{statistics.median(busy):.0f} %" if busy else "not measured, nvidia-smi is missing"
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
