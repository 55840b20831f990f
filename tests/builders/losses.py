"""Targets of every kind, and batches for them."""

from __future__ import annotations

import torch
from torch import Tensor

from segfw.networks.losses import LABELS, Target

# Three labels and the background; with an ignore label it is class 4.
REGIONS = Target(regions=((1, 2, 3), (2, 3), (3,)))
IGNORE = Target(ignore=4)
BOTH = Target(regions=REGIONS.regions, ignore=4)
TARGETS = {"labels": LABELS, "regions": REGIONS, "ignore": IGNORE, "both": BOTH}


def batch_for(target: Target, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and classes, a third of them ignored where the target can be."""
    torch.manual_seed(seed)
    classes = torch.randint(0, 4, (2, 5, 6, 7))
    if target.ignore is not None:
        classes[torch.rand(classes.shape) < 0.3] = target.ignore
    return torch.randn(2, len(target.regions) or 4, 5, 6, 7), classes
