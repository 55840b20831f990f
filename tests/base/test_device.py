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


@pytest.fixture
def measured(monkeypatch):
    """Makes convolutions take so many seconds in training and in prediction, by precision."""

    def make(*, float32_s: tuple[float, float], bf16_s: tuple[float, float]) -> None:
        def probed(precision: torch.dtype, *, for_training: bool) -> float:
            return (float32_s if precision == torch.float32 else bf16_s)[0 if for_training else 1]

        monkeypatch.setattr(device, "probed_convolution_s", probed)
        device.bf16_gain.cache_clear()

    yield make
    device.bf16_gain.cache_clear()


@pytest.mark.parametrize("amx, avx512_bf16", [(False, True), (True, False), (True, True)])
def test_a_cpu_with_instructions_for_bf16_computes_in_what_is_faster_there(processor, measured, amx, avx512_bf16):
    processor(amx=amx, avx512_bf16=avx512_bf16)
    measured(float32_s=(2.0, 2.0), bf16_s=(1.0, 3.0))
    assert pick_precision("auto", CPU, for_training=True) == torch.bfloat16
    assert pick_precision("auto", CPU) == torch.float32
    measured(float32_s=(2.0, 2.0), bf16_s=(3.0, 1.0))
    assert pick_precision("auto", CPU, for_training=True) == torch.float32
    assert pick_precision("auto", CPU) == torch.bfloat16


def test_a_cpu_without_them_is_not_measured(processor, monkeypatch):
    processor(amx=False, avx512_bf16=False)
    monkeypatch.setattr(device, "bf16_gain", lambda *given, **more: 1 / 0)
    assert pick_precision("auto", CPU, for_training=True) == torch.float32


def test_the_measured_convolutions_leave_random_numbers_as_they_are(monkeypatch):
    monkeypatch.setattr(device, "PROBE_EDGES", (8, 8, 64))
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    seconds = [device.probed_convolution_s(torch.float32, for_training=training) for training in (True, False)]
    assert min(seconds) > 0
    assert torch.equal(torch.rand(2), wanted)


def test_float32_where_pytorch_cannot_tell(monkeypatch):
    for check in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, check, raising=False)
    assert pick_precision("auto", CPU) == torch.float32
    assert not device.cpu_has_amx()


@pytest.mark.parametrize(
    "where, amx, seconds, steps, pays",
    [
        (CUDA, False, 600, 10, True),
        (CUDA, False, 599, 10**6, False),
        (CUDA, False, None, 10, True),
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


def test_each_shape_of_patches_has_to_pay_for_itself():
    assert compiling_pays(CUDA, seconds=1800, steps=1, shapes=3)
    assert not compiling_pays(CUDA, seconds=1799, steps=1, shapes=3)
