"""A training that takes a second: four small cases, a network of two stages, and one call to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from builders.data import write_cases
from builders.networks import spec
from segfw.dataset.labels import LabelSet
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import Preprocessing
from segfw.grid.store import preprocess_dataset
from segfw.model.weights import load_tensors
from segfw.networks.losses import Loss, Target, deep_supervision_loss
from segfw.networks.spec import NetworkSpec
from segfw.planning.plan import Configuration, Estimate
from segfw.planning.splits import Fold
from segfw.training.loop import train
from segfw.training.settings import TrainSettings
from segfw.training.train_request import BuildLoss, TrainRequest

IDS = tuple(f"case_{number:02}" for number in range(4))
FOLD = Fold(train=IDS[:3], validation=IDS[3:])
LABELS = LabelSet(names=("background", "bright", "dark"), values=(0, 3, 7))  # of data.blocks_case
ZSCORE = Preprocessing(axis_order=(0, 1, 2), spacing_mm=(4.0, 1.5, 1.0), normalization=(Normalization(kind="zscore"),))
TIMINGS = ("epoch_s", "elapsed_s", "stalled_share", "augment_share")  # of metrics.jsonl: they differ from run to run


def configuration(how: Preprocessing, network: NetworkSpec) -> Configuration:
    return Configuration(
        name="3d_fullres",
        preprocessing=how,
        median_shape=(10.0, 18.0, 20.0),
        patch_size=(8, 16, 16),
        batch_size=2,
        batch_dice=False,
        mirror_axes=(0, 1, 2),
        network=network,
        estimate=Estimate(training_memory_gb=0.1, teraflop_per_step=0.001, ram_gb=0.001, disk_gb=0.001),
        reasons=(),
    )


def prepare(folder: Path) -> tuple[Path, Preprocessing]:
    """Writes and preprocesses the cases; the folder of stored cases, and how they were preprocessed."""
    cases = write_cases(folder, IDS)
    sizes = dict.fromkeys(IDS, 20_000)
    assert not preprocess_dataset(cases, LABELS, {"3d": ZSCORE}, folder, case_bytes=sizes)
    return folder / "3d", ZSCORE


def request(
    prepared: tuple[Path, Preprocessing], folder: Path, *, network: NetworkSpec | None = None, **values
) -> TrainRequest:
    """What ``train`` takes; ``values`` are fields of TrainRequest or settings."""
    preprocessed, how = prepared
    plan = configuration(how, network or spec()).model_copy(update={"batch_dice": values.pop("batch_dice", False)})
    settings = {name: values.pop(name) for name in TrainSettings.__dataclass_fields__ if name in values}
    wanted = {
        "folder": folder,
        "preprocessed": preprocessed,
        "configuration": plan,
        "fold": FOLD,
        "settings": TrainSettings(**{"epochs": 4, "steps_per_epoch": 3, "seed": 5} | settings),
        "label_names": tuple(LABELS.foreground),
        "device": "cpu",
    }
    return TrainRequest(**wanted | values)


def run(prepared: tuple[Path, Preprocessing], folder: Path, **values) -> Path:
    """Trains into ``folder``; ``values`` as for ``request``."""
    train(request(prepared, folder, **values))
    return folder


def usual_loss(
    before: Mapping[int, Callable[[], None]] | None = None, factors: Mapping[int, float] | None = None
) -> BuildLoss:
    """Builds the usual loss, but something is done before some of its calls, or their value is multiplied.

    Calls are counted from 1; there is one for each training step, or for each part of its batch.
    """

    def build(configuration: Configuration, target: Target) -> Loss:
        number = 0

        def loss(outputs: Sequence[torch.Tensor], classes: torch.Tensor) -> torch.Tensor:
            nonlocal number
            number += 1
            if before and number in before:
                before[number]()
            value = deep_supervision_loss(outputs, classes, configuration.batch_dice, target)
            return value * factors[number] if factors and number in factors else value

        return loss

    return build


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The trained weights by name."""
    return load_tensors(folder / "weights.safetensors")[0]


def assert_same_weights(first: Path, second: Path) -> None:
    """Bit for bit."""
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
