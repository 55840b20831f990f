"""What training and prediction ask of a GPU, counted without one: launches, bytes over the bus, and what the host does.

    python -m bench asked                        (ten minutes of one core)
    python -m bench asked --only step checkpoint

Launches and bytes are counted on a device that computes shapes only (bench/fake_device.py): those of the networks as
they are, without a compiler, and of PyTorch's loops over weights in place of its fused optimiser, which is counted
apart. Seconds are this processor's: of the thread that does the work, so that others on the machine count little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from bench.fake_device import DEVICE, Asked, fake_device, moved
from bench.published_plan import CLASSES, published_plan
from segfw.base.array_files import open_array, save_array
from segfw.base.ranks import ALONE
from segfw.grid.store import CaseArrays
from segfw.images.geometry import Shape
from segfw.inference.host_memory import LearnedLimits
from segfw.inference.sliding_window import sliding_window
from segfw.inference.summands import summands_of
from segfw.inference.tiles import TiledImage
from segfw.networks import build_network, fastest_layout
from segfw.networks.losses import LABELS, LOSSES
from segfw.networks.spec import NetworkSpec
from segfw.training import augment
from segfw.training.batches import Batches
from segfw.training.checkpoint import Checkpoints, TrainState
from segfw.training.step import Compute, train_step

PRESETS = ("plain", "resenc-m", "resenc-l")
CT = (300, 341, 341)  # on the network's grid, of 300 x 512 x 512 voxels
STORED_CT = (300, 512, 512)
BATCHES = 12
MEGABYTE = 1e6


class PerBatch:
    """What a loss has to know of a configuration."""

    batch_dice = False


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench asked", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), help="parts to be counted")
    for name in parser.parse_args(arguments).only:
        PARTS[name]()


def published(preset: str) -> tuple[NetworkSpec, Shape, int]:
    """Network, patch and batch that a preset plans for bodies of 300^3 voxels of 1 mm."""
    choice = published_plan(preset)
    return choice.network, choice.patch_size, choice.batch_size


def state_of(spec: NetworkSpec, *, is_there: bool) -> TrainState:
    """A network with its optimiser, on the device without values or on the host."""
    if is_there:
        with torch.device("meta"):
            made = build_network(spec)
        with fake_device():
            network = moved(fastest_layout(made))
    else:
        network = fastest_layout(build_network(spec))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99, nesterov=True)
    for parameter in network.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return TrainState(network=network, optimizer=optimizer, scaler=scaler, forward=network)


def step() -> None:
    """Launches of forward, loss and backward; and of the update, which CUDA fuses into a few."""
    for preset in PRESETS:
        spec, patch, batch = published(preset)
        state = state_of(spec, is_there=True)
        compute = Compute(
            device=DEVICE,
            precision=torch.float32,
            loss=LOSSES["dice-ce"](PerBatch(), LABELS),
            ranks=ALONE,
            gradient_clip=12.0,
            in_channels=1,
            patch_size=patch,
        )
        with fake_device():
            image = torch.empty(batch, 1, *patch, device=DEVICE)
            classes = torch.zeros(batch, *patch, dtype=torch.long, device=DEVICE)
            with Asked() as whole:
                train_step(compute, state, image, classes)
            with Asked() as update:
                torch.nn.utils.clip_grad_norm_(state.network.parameters(), compute.gradient_clip)
                state.optimizer.step()
        launches = whole.launch_count - update.launch_count
        print(
            f"step, {preset}, {_sizes(patch)} x {batch}: {launches} launches of forward, loss and backward, "
            f"{update.launch_count} of an update that is not fused; {whole.bytes_out} bytes back to the host"
        )


def _sizes(shape: Shape) -> str:
    return "x".join(map(str, shape))


def made_case(shape: Shape) -> CaseArrays:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, *shape)).astype(np.float16)
    classes = (rng.random(shape) > 0.9).astype(np.uint8)
    return CaseArrays(image=image, classes=classes, foreground={})


def batches_of(case: CaseArrays) -> Batches:
    return Batches(
        cases=[case],
        patch_size=(128, 128, 128),
        batch_size=2,
        seed=0,
        stream=0,
        augmentation="device",
        mirror_axes=(0, 1, 2),
        foreground_share=0,
    )


def batch() -> None:
    """Launches and bytes of the augmentation of a batch, the mean of some."""
    augment._add_noise = lambda image, stds, seeds: image  # nothing can be drawn there: a launch or two less
    batches = batches_of(made_case((160, 200, 200)))
    launches = []
    sent = []
    for number in range(BATCHES):
        cut = batches.cut(number)
        with fake_device(), Asked() as asked:
            batches.finish(cut, DEVICE)
        launches.append(asked.launch_count)
        sent.append(asked.bytes_in)
    print(
        f"augmentation of 2 x 128^3: {np.mean(launches):.0f} launches a batch on average, {max(launches)} at the most; "
        f"{np.mean(sent) / MEGABYTE:.0f} MB to the device"
    )


def prediction() -> None:
    """Bytes to the device and back for a CT of 512 x 512 x 300, with the image there and without."""
    spec, patch, _ = published("plain")
    network = state_of(spec, is_there=True).network.eval()
    image = torch.randn(1, *CT)
    TiledImage.constant = lambda *_: None  # it looks at values
    ways: dict[str, Callable[..., None]] = {
        "tiles are cut on the host": lambda *_: None,
        "the image lies there": _keep_whole,
    }
    for name, way in ways.items():
        TiledImage.keep_on = way
        with fake_device(), Asked() as asked:
            window = sliding_window(image, summands_of([network]), patch, device=DEVICE, limits=LearnedLimits())
            slabs = sum(1 for _ in window)
        print(
            f"prediction, {CLASSES} classes, {_sizes(CT)}, no mirroring, {name}: "
            f"{asked.bytes_in / MEGABYTE:.0f} MB to the device, {asked.launch_count} launches, {slabs} slabs"
        )
    megabytes = int(np.prod(STORED_CT)) / MEGABYTE
    print(f"classes of {_sizes(STORED_CT)} voxels: {megabytes:.0f} MB as bytes, {8 * megabytes:.0f} MB as int64")


def _keep_whole(tiled: TiledImage, device: torch.device, first: int, stop: int) -> None:
    """As a card with room for the whole image, which the made-up device cannot be asked for."""
    if not tiled._slices_there.stop:
        tiled._on_device = tiled.image.to(device)
        tiled._slices_there = slice(0, tiled.padded_shape[0])


def checkpoint() -> None:
    """Seconds in which a step waits for a checkpoint, and in which it is written."""
    for preset in PRESETS[::2]:
        spec, _, _ = published(preset)
        state = state_of(spec, is_there=False)
        weights = sum(parameter.numel() for parameter in state.network.parameters())
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder), is_first=True)
            waits = {False: [], True: []}
            written = []
            for number in range(6):
                is_good = number % 2 == 1
                started_s = time.perf_counter()
                checkpoints.save(state, is_good=is_good)
                waits[is_good].append(time.perf_counter() - started_s)
                if hasattr(checkpoints, "finish"):
                    checkpoints.finish()
                written.append(time.perf_counter() - started_s)
        last, good = (min(waits[kind][1:]) for kind in (False, True))
        print(
            f"checkpoint, {preset}, {weights / 1e6:.0f} million weights, {8 * weights / MEGABYTE:.0f} MB: a step waits "
            f"{last:.2f} s, or {good:.2f} s where it is a good one; on disk after {min(written):.2f} s"
        )


def disk() -> None:
    """Seconds of a processor that cutting a batch of noise takes; of what lies on disk with the interpreter held."""
    case = made_case(CT)
    with tempfile.TemporaryDirectory() as folder:
        stored = []
        for name in ("image", "classes"):
            path = Path(folder) / f"{name}.b2nd"
            save_array(path, getattr(case, name))
            stored.append(open_array(path))
        kinds = {"memory": case, "disk": CaseArrays(image=stored[0], classes=stored[1], foreground={})}
        for name, kept in kinds.items():
            batches = batches_of(kept)
            batches.cut(0)
            seconds = []
            for number in range(1, BATCHES):
                started_s = time.thread_time()
                batches.cut(number)
                seconds.append(time.thread_time() - started_s)
            print(f"a batch of 2 x 128^3 cut from {name}: {1000 * np.mean(seconds):.0f} ms of a processor on average")


PARTS = {"step": step, "batch": batch, "prediction": prediction, "checkpoint": checkpoint, "disk": disk}
