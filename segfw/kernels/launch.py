"""Where Triton launches a kernel: on the current CUDA device, which need not be that of the tensors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")


def device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Makes the tensor's device the current one while kernels are launched; nothing on the CPU.

    PyTorch's own operations go by their tensors. Several cards are served by threads that all begin on the first one.
    """
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


def on_its_device(function: Callable[Concatenate[C, Tensor, P], R]) -> Callable[Concatenate[C, Tensor, P], R]:
    """For the passes of an autograd function, which launch on the device of the first tensor that they get."""

    @wraps(function)
    def call(ctx: C, tensor: Tensor, *others: P.args, **keywords: P.kwargs) -> R:
        with device_of(tensor):
            return function(ctx, tensor, *others, **keywords)

    return call
