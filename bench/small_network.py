"""The network, patch and step that the measurements on this machine share: as planned for small structures in MR."""

from __future__ import annotations

from collections.abc import Callable

import torch

from segfw.base.device import autocast
from segfw.images.geometry import Shape
from segfw.networks import build_network, fastest_layout
from segfw.networks.losses import deep_supervision_loss
from segfw.networks.spec import NetworkSpec

PATCH: Shape = (40, 56, 40)
BATCH = 2
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


def step_of(
    precision: torch.dtype, device: torch.device, batch: int = BATCH, *, fastest: bool | None = None
) -> Callable[[], float]:
    """A closure that does one training step and returns its loss.

    ``fastest`` takes the layout, and on CUDA the compiler, that training takes; None does unless in float32.
    """
    if fastest is None:
        fastest = precision != torch.float32
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
