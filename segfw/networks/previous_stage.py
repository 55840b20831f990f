"""What a network sees besides the image: in the second stage of a cascade, the labels that the first one found."""

from __future__ import annotations

import torch
from torch import Tensor

# B batch, C channel, K class, Z Y X space


def one_hot_previous(previous_BZYX: Tensor, classes: int) -> Tensor:
    """Classes that the previous stage found, as channels (B, K-1, Z, Y, X) float32: one per class but the background.

    ``classes`` is K, the background included and the ignore label not, which is never found. Where structures are
    regions, these are still the classes that they are painted as, so that a voxel has one.
    """
    labels = torch.arange(1, classes, device=previous_BZYX.device)
    return (previous_BZYX[:, None] == labels[:, None, None, None]).float()
