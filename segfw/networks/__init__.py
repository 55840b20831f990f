"""Networks and their losses, in PyTorch alone: what a plan's ``NetworkSpec`` describes is built here.

A further architecture is one more row of ARCHITECTURES, a further loss one of ``losses.LOSSES``. This room does not
know what an image file, a case or a plan is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from segfw.base.device import is_rocm
from segfw.networks.monai import mednext, segresnet, swin_unetr
from segfw.networks.spec import (
    CLICK_REFINER,
    MEDNEXT,
    PLAIN,
    REFINER,
    RESIDUAL_ENCODER,
    SEGRESNET,
    SWIN_UNETR,
    NetworkSpec,
)
from segfw.networks.unet import ClickRefinerUNet, PlainUNet, RefinerUNet, ResidualEncoderUNet

BuildNetwork = Callable[[NetworkSpec], nn.Module]
ARCHITECTURES: dict[str, BuildNetwork] = {
    PLAIN: PlainUNet,
    RESIDUAL_ENCODER: ResidualEncoderUNet,
    REFINER: RefinerUNet,
    CLICK_REFINER: ClickRefinerUNet,
    SEGRESNET: segresnet,
    SWIN_UNETR: swin_unetr,
    MEDNEXT: mednext,
}
# How the names of an encoder's weights begin, by architecture.
ENCODER_LAYERS: dict[str, tuple[str, ...]] = {
    PLAIN: ("encoder.",),
    RESIDUAL_ENCODER: ("encoder.",),
    SEGRESNET: ("network.encoder.",),
    SWIN_UNETR: ("network.swinViT.", "network.encoder"),
    MEDNEXT: ("network.stem.", "network.enc_stages.", "network.down_blocks.", "network.bottleneck."),
}
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the dimensions of a weight


def build_network(spec: NetworkSpec) -> nn.Module:
    """A freshly initialised network; raises ValueError if the architecture is unknown."""
    if spec.architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {spec.architecture!r}; choose from {sorted(ARCHITECTURES)}")
    return ARCHITECTURES[spec.architecture](spec)


def fastest_layout(network: nn.Module) -> nn.Module:
    """The network with its weights laid out channels-last, in which convolutions are fastest on CPU and CUDA.

    Not on AMD's cards: MIOpen copies every image out of that layout and back.
    """
    device = next(network.parameters()).device
    if device.type not in ("cpu", "cuda") or is_rocm(device):
        return network
    # By the weights and not by the plan: a network of one's own may see slices with 3-D layers.
    for weight in network.parameters():
        if weight.ndim in LAYOUTS:
            # A clone has the strides of the layout even where one input channel makes both layouts the same memory;
            # else the first convolution would give the other one, and the layers behind it copy it into theirs.
            weight.data = weight.data.clone(memory_format=LAYOUTS[weight.ndim])
    return network
