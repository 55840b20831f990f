"""The device on which Triton's kernels can be tested here: a card, or the CPU by Triton's interpreter."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from segfw.kernels.trial import has_triton


def device_of_kernels() -> torch.device:
    """Skips where Triton is not installed; without a card tests/conftest.py has switched its interpreter on."""
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed (pip install triton), so no kernel was run")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert has_triton(device)
    return device
