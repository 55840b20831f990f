"""Checkpoints of residual encoders as others publish them."""

import torch

from segfw.networks import build_network
from segfw.nnunet.layer_names import to_nnunet


def publish(path, spec, *, wrapped="", only_encoder=False):
    """Writes a network of ``spec`` under nnU-Net's names; returns its weights by our names."""
    weights = build_network(spec).state_dict()
    state = {f"{wrapped}{name}": tensor for name, tensor in to_nnunet(weights, spec).items()}
    if only_encoder:
        state = {name.removeprefix("encoder."): tensor for name, tensor in state.items() if name.startswith("encoder.")}
    torch.save({"network_weights": state, "trainer_name": "BaseMAETrainer", "current_epoch": 1000}, path)
    return weights
