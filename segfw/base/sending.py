"""Tensors of the host on their way to a device, for which nobody waits."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; to a CUDA device by way of pinned memory.

    From other memory PyTorch copies when all is done that was asked of the device before, and the host waits for that.
    Pinned memory is used again only after the copy: PyTorch's allocator sees to that.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
