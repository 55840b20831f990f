"""Whether a kernel can be used on a device: Triton is there, it runs, and it computes what plain PyTorch does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from segfw.base.words import first_line

LONGEST_REASON = 160  # characters


def has_triton(device: torch.device) -> bool:
    """True if Triton can be asked to run on ``device``: a CUDA device, or the CPU where Triton interprets."""
    return find_spec("triton") is not None and (device.type == "cuda" or _is_interpreted())


def _is_interpreted() -> bool:
    """True if Triton runs kernels in Python, on tensors of the CPU, as its own TRITON_INTERPRET makes it."""
    import triton

    return bool(triton.knobs.runtime.interpret) if hasattr(triton, "knobs") else False


def why_not(device: torch.device) -> str:
    """The reason for which ``has_triton`` is False."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    return f"Triton has no kernels for {device.type}"


def agrees(
    name: str,
    kernel: Callable[[], Sequence[Tensor]],
    oracle: Callable[[], Sequence[Tensor]],
    *,
    tolerance: float,
) -> bool:
    """True if the kernel gives what its oracle gives; else one line says that it is left out, and why.

    Tensors are compared by the norm of their difference over the norm of what is expected.
    """
    try:
        found = kernel()
        wanted = oracle()
        largest = max(_relative_difference(one, other) for one, other in zip(found, wanted, strict=True))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler fails in too many ways to list, and everything works without it
        reason = first_line(error)[:LONGEST_REASON]
    else:
        if largest <= tolerance:  # False for what is no number, too
            return True
        reason = f"its result is off by {largest:.2g}"
    print(f"--kernels on: the kernel of the {name} is left out here: {reason}")
    return False


def _relative_difference(found: Tensor, wanted: Tensor) -> float:
    found = found.detach().double()
    wanted = wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))
