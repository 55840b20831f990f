"""A refiner begins with the network whose masks it learns to mend, because that knows the images already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from segfw.model.source import WEIGHTS_FILE, fold_folder, trained_folds
from segfw.model.weights import load_tensors, require_usable
from segfw.networks.spec import PLAIN, NetworkSpec
from segfw.networks.transfer import transfer
from segfw.planning.plan import Configuration, Plan


def file_to_start_from(work: Path, plan: Plan, configuration: Configuration, fold: str) -> Path | None:
    """The weights that this fold of a refiner begins with; None for other configurations, and where layers differ.

    They are those of the same fold, which has not seen the cases that the refiner is validated on; for fold 'all',
    which is validated on none, those of the first one.
    """
    first = configuration.previous_stage
    if first is None or not configuration.is_refiner:
        return None
    if not has_same_layers(plan.configurations[first].network, configuration.network):
        return None
    folds = trained_folds(work, first)
    if not folds:
        return None
    return fold_folder(work, first, fold if fold in folds else folds[0]) / WEIGHTS_FILE


def has_same_layers(first: NetworkSpec, refiner: NetworkSpec) -> bool:
    """Whether a refiner is the plain U-Net of the first stage, but for the channels that it sees and its outputs."""
    own = {"architecture": PLAIN, "in_channels": first.in_channels, "classes": first.classes}
    return refiner.model_copy(update=own) == first


def start_with(file: Path) -> Callable[[nn.Module], None]:
    """Gives a new refiner the layers in a file of weights, and says so.

    Its further channels and its outputs begin at zero. So it first answers with what it leans to, the mask that it is
    given and what clicks say, and learns what to change of that.
    """

    def start(network: nn.Module) -> None:
        weights, _ = load_tensors(file)
        require_usable(weights, file)
        taken = transfer(network, weights, leave=[name for name in weights if name.startswith("heads.")])
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                if name.startswith("heads."):
                    tensor.zero_()
        print(f"starting from {file}: {taken.sentence()}")

    return start
