"""Choices by device, on processors that are made up."""

from itertools import count
from types import SimpleNamespace

import pytest
import torch

from segfw import networks
from segfw.base import device
from segfw.base.device import compiling_pays, pick_precision
from segfw.base.records import GIGABYTE
from segfw.networks import fastest_layout

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


def test_where_both_are_about_as_fast_chance_does_not_decide(processor, measured):
    processor(amx=False, avx512_bf16=True)
    measured(float32_s=(1.1, 1.1), bf16_s=(1.0, 1.0))
    assert pick_precision("auto", CPU, for_training=True) == torch.float32
    assert pick_precision("auto", CPU) == torch.float32


def test_a_disturbance_of_one_measurement_changes_nothing(processor, monkeypatch):
    """Of four measurements, by turns in float32 and bf16, the second, in bf16, takes ten times as long."""
    seconds = iter((2.0, 10.0, 2.0, 1.0))
    monkeypatch.setattr(device, "probed_convolution_s", lambda *given, **more: next(seconds))
    device.bf16_gain.cache_clear()
    assert device.bf16_gain(1, for_training=False) == 2.0
    device.bf16_gain.cache_clear()


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
        (CUDA, False, None, 10_000, True),
        (CUDA, False, None, 9999, False),
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
    assert compiling_pays(CUDA, seconds=None, steps=30_000, shapes=3)
    assert not compiling_pays(CUDA, seconds=None, steps=29_999, shapes=3)


@pytest.mark.parametrize(
    "architecture, precision",
    [
        *(("gfx90a:sramecc+:xnack-", torch.bfloat16), ("gfx942", torch.bfloat16), ("gfx1100", torch.bfloat16)),
        *(("gfx1030", torch.float16), ("gfx906", torch.float16)),
    ],
)
def test_amds_cards_compute_in_bf16_where_they_multiply_it(monkeypatch, architecture, precision):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(gcnArchName=architecture))
    assert pick_precision("auto", CUDA) == precision


@pytest.mark.parametrize("capability, precision", [((7, 5), torch.float16), ((8, 6), torch.bfloat16)])
def test_nvidias_cards_compute_in_bf16_from_ampere_on(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_precision("auto", CUDA) == precision


@pytest.mark.parametrize("hip, where, is_tuned", [(None, CUDA, True), ("6.4", CUDA, False), (None, CPU, False)])
def test_algorithms_are_tried_out_on_nvidias_cards_alone(monkeypatch, hip, where, is_tuned):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.version, "hip", hip)
    with device.tuned_convolutions(where):
        assert torch.backends.cudnn.benchmark is is_tuned
    assert not torch.backends.cudnn.benchmark
    device.tune_convolutions(where)
    assert torch.backends.cudnn.benchmark is is_tuned


@pytest.mark.parametrize(
    "system, release, share",
    [("win32", "10", 0.95 * 6 / 8), ("linux", "5.15.0-microsoft-standard-WSL2", 0.95 * 6 / 8), ("linux", "6.8.0", 1)],
)
def test_windows_may_not_go_on_in_the_hosts_memory(monkeypatch, system, release, share):
    caps = []
    device.memory_share.cache_clear()
    monkeypatch.setattr(device.sys, "platform", system)
    monkeypatch.setattr(device.platform, "release", lambda: release)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 * 10**9, 8 * 10**9))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, where: caps.append((where, share)))
    device.keep_to_device_memory(CPU)
    device.keep_to_device_memory(CUDA)
    assert caps == ([] if share == 1 else [(torch.device("cuda", 0), pytest.approx(share))])
    assert device.memory_share(torch.device("cuda", 0)) == pytest.approx(share)
    device.memory_share.cache_clear()


@pytest.mark.parametrize("limit_gb, share", [(4.0, 0.25), (40.0, 1.0), (None, None)])
def test_a_process_keeps_to_a_part_of_a_card_while_a_block_lasts(monkeypatch, limit_gb, share):
    """A quarter of 16 GB, and afterwards all of it, also where the block ends with an error."""
    caps = []
    device.memory_share.cache_clear()
    monkeypatch.setattr(device, "is_windows", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 * GIGABYTE, 16 * GIGABYTE))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, where: caps.append((where, share)))
    with pytest.raises(KeyError), device.held_to_memory(CUDA, limit_gb):
        raise KeyError
    with device.held_to_memory(CPU, limit_gb):
        pass
    card = torch.device("cuda", 1)
    assert caps == ([] if limit_gb is None else [(card, share), (card, 1.0)])
    device.memory_share.cache_clear()


def test_weights_stay_as_they_are_on_amds_cards(monkeypatch):
    layer = torch.nn.Conv3d(4, 4, 3, device="meta")
    monkeypatch.setattr(networks, "is_rocm", lambda device: True)
    assert fastest_layout(layer).weight.is_contiguous()
    monkeypatch.setattr(networks, "is_rocm", lambda device: False)
    cpu = torch.nn.Conv3d(4, 4, 3)
    assert fastest_layout(cpu).weight.is_contiguous(memory_format=torch.channels_last_3d)


class Clock:
    """Events of CUDA, 0.25 s from one to the next."""

    def __init__(self) -> None:
        self.ticks = count()

    def event(self, enable_timing: bool) -> SimpleNamespace:
        made = SimpleNamespace(at=0)
        made.record = lambda stream: setattr(made, "at", next(self.ticks))
        made.synchronize = lambda: None
        made.elapsed_time = lambda later: 250 * (later.at - made.at)
        return made


def test_a_cards_pace_is_that_of_its_own_clock_on_what_is_large(monkeypatch):
    """0.25 s for five convolutions of 0.23 TFLOP; the layer itself is on the CPU, and tiny."""
    monkeypatch.setattr(device, "CUDA_PROBE_EDGES", (4, 6, 8))
    monkeypatch.setattr(torch.cuda, "Event", Clock().event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 * 10**9, 8 * 10**9))
    operations = 5 * 2 * 27 * 32 * 32 * 4 * 6 * 8
    assert device._cuda_convolution_flops(CPU) == pytest.approx(operations / 0.25)
