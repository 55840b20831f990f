"""Networks by name. A further architecture is one more row of ARCHITECTURES."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from segfw.networks.spec import NetworkSpec
from segfw.networks.unet import PlainUNet

ARCHITECTURES: dict[str, Callable[[NetworkSpec], nn.Module]] = {"plain-unet": PlainUNet}


def build_network(spec: NetworkSpec) -> nn.Module:
    """A freshly initialised network; raises ValueError if the architecture is unknown."""
    if spec.architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {spec.architecture!r}; choose from {sorted(ARCHITECTURES)}")
    return ARCHITECTURES[spec.architecture](spec)
