"""Weights stored as float16: half the size, and what that changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.base.records import UserError
from segfw.grid.store import open_case
from segfw.model.card import HalfRounding
from segfw.networks import BuildNetwork
from segfw.planning.plan import Configuration, Plan


def halved(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors of the file ``path`` with float32 as float16; UserError if a value is too large for it."""
    result = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in tensors.items()}
    for name, tensor in result.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path}: {name} exceeds float16; export without --half")
    return result


@torch.inference_mode()
def measure_rounding(
    model: Path,
    plan: Plan,
    name: str,
    whole: Mapping[str, Tensor],
    rounded: Mapping[str, Tensor],
    build: BuildNetwork,
) -> HalfRounding:
    """Both weights of the configuration ``name`` on one patch in float32.

    The patch is the middle of the first preprocessed case in the folder ``model``, or noise without any.
    """
    configuration = plan.configurations[name]
    patch, source = _patch(model, configuration)
    network = build(configuration.network).eval()
    logits = []
    for weights in (whole, rounded):
        network.load_state_dict(weights)
        logits.append(network(patch))
    is_of_regions = bool(plan.labels.regions) and not configuration.is_refiner  # whose outputs are 'is' and 'is not'
    classes = [part > 0 if is_of_regions else part.argmax(1) for part in logits]
    return HalfRounding(
        patch=source,
        largest_logit_change=float((logits[0] - logits[1]).abs().max()),
        changed_classes=float((classes[0] != classes[1]).float().mean()),
    )


def _patch(model: Path, configuration: Configuration) -> tuple[Tensor, str]:
    """A patch (1, C, Z, Y, X) as the network takes it, and what it is of."""
    patch_size = configuration.patch_size
    channels = configuration.network.in_channels
    folder = model / "preprocessed" / configuration.data_name
    cases = sorted(path.stem for path in folder.glob("*.json"))
    if not cases:
        return torch.randn(1, channels, *patch_size, generator=torch.Generator().manual_seed(0)), "noise"
    image = open_case(folder, cases[0]).image
    middle = [
        slice(max(0, (size - edge) // 2), (size + edge + 1) // 2) for size, edge in zip(image.shape[1:], patch_size)
    ]
    part = torch.from_numpy(image[(slice(None), *middle)]).float()
    part = part[:, : patch_size[0], : patch_size[1], : patch_size[2]]
    # Behind the last voxel of each axis, and empty channels for what the first stage of a cascade would have found.
    padding = [0, patch_size[2] - part.shape[3], 0, patch_size[1] - part.shape[2], 0, patch_size[0] - part.shape[1]]
    return F.pad(part, (*padding, 0, channels - len(part)))[None], "a training case's middle"
