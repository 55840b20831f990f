"""What training a network takes, from the network itself: memory that autograd holds, and operations per step."""

from __future__ import annotations

import torch

from segfw.data.geometry import Shape
from segfw.networks import build_network
from segfw.networks.spec import NetworkSpec

GIGABYTE = 1024**3
BYTES_PER_WEIGHT = 4 * 4  # float32 weight, gradient, momentum, and the copy in lower precision with its gradient


def saved_activation_bytes(spec: NetworkSpec, patch_size: Shape) -> int:
    """Bytes that autograd keeps between forward and backward for one patch in 16 bit, each tensor counted once.

    The network runs on the meta device: shapes without memory or arithmetic.
    """
    with torch.device("meta"):
        network = build_network(spec).to(torch.bfloat16).train()
        image = torch.empty(1, spec.in_channels, *patch_size, dtype=torch.bfloat16)
    own = {id(parameter) for parameter in network.parameters()}
    kept: dict[int, torch.Tensor] = {}  # holding the tensors keeps their ids distinct

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in own:
            kept[id(tensor.untyped_storage())] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network(image)
    in_graph = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    # The loss works on float32 logits: the logits, their softmax and the gradient.
    loss = sum(3 * 4 * output.numel() for output in outputs)
    return in_graph + loss


def training_memory_gb(spec: NetworkSpec, patch_size: Shape, batch_size: int) -> float:
    """Expected peak of a training step in GB: activations, weights with optimiser, and the widest layer's gradients."""
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in build_network(spec).parameters())
    per_patch = saved_activation_bytes(spec, patch_size)
    widest = 2 * 2 * 2 * spec.features[0] * patch_size[0] * patch_size[1] * patch_size[2]
    return (weights * BYTES_PER_WEIGHT + batch_size * (per_patch + widest)) / GIGABYTE
