"""Training steps on batches that are drawn, each at a rate of its own: taken plainly, or recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace

import torch
from torch import Tensor

from builders.networks import FLAT, network_spec, three_stages
from segfw.base.ranks import ALONE
from segfw.networks import build_network
from segfw.networks.losses import LABELS, LOSSES, Target
from segfw.networks.spec import MEDNEXT, RESIDUAL_ENCODER, NetworkSpec
from segfw.training.checkpoint import TrainState
from segfw.training.prepare import new_state
from segfw.training.settings import TrainSettings
from segfw.training.step import Compute, train_step_that_fits

CPU = torch.device("cpu")
PATCH = (8, 16, 16)
STEPS = 9

Step = Callable[[TrainState, Tensor, Tensor], Tensor]


def mednext(is_2d: bool) -> NetworkSpec:
    return network_spec(
        (8, 16, 32),
        is_2d,
        architecture=MEDNEXT,
        kernels=((1 if is_2d else 3, 3, 3),) * 3,
        encoder_blocks=(1, 1, 1),
        decoder_convs=(1, 1),
    )


NETWORKS = {
    "plain": three_stages(),
    "flat": FLAT,
    "residual": three_stages(architecture=RESIDUAL_ENCODER),
    "mednext": mednext(is_2d=False),
    "mednext 2d": mednext(is_2d=True),
}


def compute_for(
    network: NetworkSpec, target: Target = LABELS, device: torch.device = CPU, **changes: object
) -> Compute:
    loss = LOSSES["dice-ce"](SimpleNamespace(batch_dice=True), target)
    values = {"device": device, "precision": torch.float32, "loss": loss, "ranks": ALONE, "gradient_clip": 12.0}
    return Compute(**values | {"in_channels": network.in_channels, "patch_size": PATCH} | changes)


def state_for(network: NetworkSpec, device: torch.device = CPU) -> TrainState:
    """Always the same weights, drawn on the CPU."""
    torch.manual_seed(3)
    settings = TrainSettings(precision="fp32", momentum=0.9, learning_rate=0.01)
    state = new_state(SimpleNamespace(network=network), settings, device, build_network)
    state.network.train()
    return state


def batches(
    network: NetworkSpec,
    steps: int = STEPS,
    patch: tuple[int, int, int] = PATCH,
    classes: int | None = None,
    device: torch.device = CPU,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Always the same ones, drawn on the CPU."""
    rng = torch.Generator().manual_seed(4)
    for _ in range(steps):
        image = torch.randn(2, network.in_channels, *patch, generator=rng)
        truth = torch.randint(0, classes or network.classes, (2, *patch), generator=rng)
        yield image.to(device), truth.to(device)


def rate_of(step: int) -> float:
    """Another one in every step, that float32 holds: a replay takes it in that."""
    return 2.0**-5 / (1 + step // 2) if step % 4 < 2 else 2.0**-6


def taken(steps: Step, state: TrainState, given: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """The losses of steps on ``given``, each at its own rate."""
    losses = []
    for number, (image, truth) in enumerate(given):
        for group in state.optimizer.param_groups:
            group["lr"] = rate_of(number)
        losses.append(steps(state, image, truth))
    return losses


def plain(compute: Compute) -> Step:
    return lambda state, image, truth: train_step_that_fits(compute, state, image, truth)


def momentum_of(state: TrainState) -> list[Tensor]:
    return [state.optimizer.state[weight]["momentum_buffer"] for weight in state.network.parameters()]


def assert_same(state: TrainState, other: TrainState) -> None:
    """Weights and momentum, bit for bit."""
    for name, weight in state.network.state_dict().items():
        assert torch.equal(weight, other.network.state_dict()[name]), name
    assert all(torch.equal(one, two) for one, two in zip(momentum_of(state), momentum_of(other), strict=True))
