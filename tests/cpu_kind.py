"""Which figures of a stored run must be equal to the bit here, and which only nearly.

PyTorch and its libraries choose other kernels for other processors, and these sum in another order. Figures that were
stored on a processor of the same kind, with the same version of PyTorch, must be equal to the bit; on all others they
agree to about 1e-3 after the few dozen steps that the stored runs take.
"""

from __future__ import annotations

import platform
from pathlib import Path

import torch

NEARLY = 1e-3  # relative, of losses and scores
NEARLY_WEIGHTS = 2e-3  # absolute, of weights around 0.1
NEARLY_ALL_VOXELS = 0.01  # the share of a mask that may differ


def cpu_kind() -> dict[str, str]:
    """All that the choice of a kernel depends on."""
    return {
        "machine": platform.machine(),
        "vendor": _vendor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "avx512_bf16": str(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()),
        "amx": str(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()),
        "torch": torch.__version__.split("+")[0],
    }


def _vendor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "unknown")
