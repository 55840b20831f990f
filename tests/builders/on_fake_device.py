"""Small networks of every architecture, steps and batches on a device that has no values (bench/fake_device.py)."""

from __future__ import annotations

import numpy as np
import torch

from bench.fake_device import DEVICE, fake_device, moved
from builders.networks import network_spec
from segfw.base.ranks import ALONE
from segfw.grid.store import CaseArrays
from segfw.networks import build_network, fastest_layout
from segfw.networks.losses import LABELS, LOSSES, Target
from segfw.networks.refiner_loss import build_refiner_loss
from segfw.networks.spec import (
    CLICK_CHANNELS,
    CLICK_REFINER,
    MEDNEXT,
    PLAIN,
    REFINER,
    RESIDUAL_ENCODER,
    SEGRESNET,
    SWIN_UNETR,
    NetworkSpec,
)
from segfw.training.batches import Batches
from segfw.training.checkpoint import TrainState
from segfw.training.step import Compute

FEATURES = {
    PLAIN: (8, 16, 32),
    REFINER: (8, 16, 32),
    CLICK_REFINER: (8, 16, 32),
    RESIDUAL_ENCODER: (8, 16, 32),
    SEGRESNET: (8, 16, 32),
    SWIN_UNETR: (12, 12, 24, 48, 96, 192),
    MEDNEXT: (8, 16, 32),
}
BLOCKS = {SWIN_UNETR: (1, 2, 2, 2, 2, 1)}
REFINERS = (REFINER, CLICK_REFINER)


def spec_of(architecture: str, is_2d: bool) -> NetworkSpec:
    """Of a refiner with its four channels and two classes."""
    features = FEATURES[architecture]
    stages = len(features)
    own = {"in_channels": 2 + CLICK_CHANNELS, "classes": 2} if architecture in REFINERS else {}
    return network_spec(
        features,
        is_2d,
        architecture=architecture,
        kernels=((1 if is_2d else 3, 3, 3),) * stages,
        encoder_blocks=BLOCKS.get(architecture, (1, 2, 2)),
        decoder_convs=(1,) * (stages - 1),
        **own,
    )


def patch_of(architecture: str, is_2d: bool) -> tuple[int, int, int]:
    edge = 32 if architecture == SWIN_UNETR else 16
    return (3 if is_2d else edge, edge, 2 * edge)


def network_there(spec: NetworkSpec) -> torch.nn.Module:
    """The network on the device, laid out as for CUDA; made on the host, where initial weights have values."""
    network = fastest_layout(build_network(spec))
    with fake_device():
        return moved(network)


def compute_for(spec: NetworkSpec, patch: tuple[int, int, int], target: Target = LABELS) -> Compute:
    class OfPatches:
        batch_dice = False

    return Compute(
        device=DEVICE,
        precision=torch.float32,
        loss=build_refiner_loss() if spec.architecture in REFINERS else LOSSES["dice-ce"](OfPatches(), target),
        ranks=ALONE,
        gradient_clip=12.0,
        in_channels=spec.in_channels,
        patch_size=patch,
    )


def state_of(network: torch.nn.Module) -> TrainState:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99, nesterov=True, foreach=True)
    for parameter in network.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return TrainState(network=network, optimizer=optimizer, scaler=scaler, forward=network)


def cases(spec: NetworkSpec, shape: tuple[int, int, int]) -> list[CaseArrays]:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(spec.in_channels, *shape)).astype(np.float16)
    return [CaseArrays(image=image, classes=rng.integers(0, 3, shape).astype(np.uint8), foreground={})]


def batches_for(spec: NetworkSpec, patch: tuple[int, int, int], kind: str = "device") -> Batches:
    shape = tuple(size + 8 for size in patch)
    return Batches(
        cases=cases(spec, shape), patch_size=patch, batch_size=2, seed=0, stream=0, augmentation=kind,
        mirror_axes=(0, 1, 2), foreground_share=0, elastic=True,
    )  # fmt: skip
