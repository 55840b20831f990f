"""Choices by device, on processors that are made up."""

import pytest
import torch

from segfw.base import device
from segfw.base.device import compiling_pays, pick_precision

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.fixture
def processor(monkeypatch):
    """Makes the CPU one with or without AMX and AVX512-bf16."""

    def make(*, amx: bool, avx512_bf16: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)

    return make


@pytest.mark.parametrize(
    "amx, avx512_bf16, dtype",
    [
        (False, False, torch.float32),
        (False, True, torch.bfloat16),
        (True, False, torch.bfloat16),
        (True, True, torch.bfloat16),
    ],
)
def test_the_cpu_computes_in_bf16_where_it_has_instructions_for_it(processor, amx, avx512_bf16, dtype):
    processor(amx=amx, avx512_bf16=avx512_bf16)
    assert pick_precision("auto", CPU) == dtype


def test_float32_where_pytorch_cannot_tell(monkeypatch):
    for check in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, check, raising=False)
    assert pick_precision("auto", CPU) == torch.float32
    assert not device.cpu_has_amx()


@pytest.mark.parametrize(
    "where, amx, seconds, steps, pays",
    [
        (CUDA, False, 60, 10, True),
        (MPS, True, None, 10**6, False),
        (CPU, True, None, 2000, True),
        (CPU, True, None, 1999, False),
        (CPU, True, 1800, 10, True),
        (CPU, True, 1799, 10**6, False),  # with a time budget the number of steps is not known and does not count
        (CPU, False, 10**6, 10**6, False),
    ],
)
def test_compiling_pays_in_long_trainings_on_processors_with_matrix_units(processor, where, amx, seconds, steps, pays):
    processor(amx=amx, avx512_bf16=True)
    assert compiling_pays(where, seconds=seconds, steps=steps) is pays
