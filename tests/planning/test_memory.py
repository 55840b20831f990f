"""The counted cost of a training step, against what a real step takes on the CPU."""

from math import prod

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from builders.networks import network_spec
from segfw.base.records import GIGABYTE
from segfw.networks import build_network
from segfw.networks.losses import deep_supervision_loss
from segfw.networks.spec import NetworkSpec
from segfw.planning.memory import (
    Measured,
    StepCost,
    StepCounter,
    needed_gb,
    step_cost,
    usable_bytes,
)

RESIDUAL = {"architecture": "residual-encoder-unet", "encoder_blocks": (1, 3, 4), "decoder_convs": (1, 1)}
NETWORKS = [
    (network_spec((16, 32, 64)), (32, 48, 40), 3),
    (network_spec((16, 32, 64), **RESIDUAL), (32, 48, 40), 3),
    (network_spec((16, 32, 64), is_2d=True), (1, 256, 192), 4),
    (network_spec((16, 32), classes=40), (32, 48, 40), 2),
]


def peak_bytes_on_the_cpu(spec: NetworkSpec, patch: tuple[int, int, int], batch: int) -> int:
    """Most bytes that PyTorch's allocator hands out in a real mixed-precision step, weights and optimiser included."""
    network = build_network(spec).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True)
    weights = sum(parameter.numel() for parameter in network.parameters())

    def step() -> None:
        image = torch.randn(batch, spec.in_channels, *patch)
        classes = torch.zeros(batch, *patch, dtype=torch.long)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(image)
        deep_supervision_loss(outputs, classes, batch_dice=False).backward()
        optimizer.step()

    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    # The step begins by freeing the gradients of the one before.
    now = peak = 3 * 4 * weights
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this processor has no bf16: PyTorch unfolds images for its convolutions there, which no GPU does",
)
@pytest.mark.parametrize("spec, patch, batch", NETWORKS)
def test_the_counted_peak_is_that_of_a_real_step(spec, patch, batch):
    # The CPU has no average pooling in 16 bit: residual networks keep float32 copies there that no GPU makes; and with
    # matrix units each thread takes memory of its own.
    tolerance = 0.2 if spec.architecture == "residual-encoder-unet" else 0.1
    expected = peak_bytes_on_the_cpu(spec, patch, batch)
    assert step_cost(spec).peak_bytes(patch, batch) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("spec, patch, batch", NETWORKS)
def test_cost_grows_with_the_voxels_as_if_the_whole_step_were_counted(spec, patch, batch):
    with StepCounter() as whole, torch.device("meta"):
        network = build_network(spec).bfloat16().train()
        image = torch.empty(batch, spec.in_channels, *patch)
        classes = torch.empty(batch, *patch, dtype=torch.long)
        deep_supervision_loss(network(image.bfloat16()), classes, batch_dice=False).backward()
    cost = step_cost(spec)
    assert cost.bytes_per_voxel * prod(patch) * batch == pytest.approx(whole.peak_bytes, rel=0.05)
    assert cost.flops(patch, batch) == pytest.approx(whole.flops, rel=1e-6)


def test_arithmetic_is_what_torch_counts():
    spec = network_spec((4, 6, 8))
    network, image = build_network(spec).train(), torch.randn(2, 2, 8, 16, 24)
    with FlopCounterMode(display=False) as counter:
        deep_supervision_loss(network(image), torch.zeros(2, 8, 16, 24, dtype=torch.long), batch_dice=False).backward()
    assert step_cost(spec).flops((8, 16, 24), 2) == counter.get_total_flops()


def test_the_counter_follows_what_is_alive():
    with StepCounter() as counter, torch.device("meta"):
        kept = torch.empty(1000)  # 4000 bytes
        for _ in range(3):
            _passing = kept + 1  # one more of the same size at a time, and one to work in
            del _passing
        view = kept.view(10, 100)
        assert counter.bytes_now == 4000
        assert counter.peak_bytes == 12000
        del kept
        assert counter.bytes_now == 4000  # the view holds it
        del view
    assert counter.bytes_now == 0


def test_a_single_region_is_counted_too():
    one, two = (step_cost(network_spec((8, 16), classes=classes)) for classes in (1, 2))
    assert 0.8 * two.bytes_per_voxel < one.bytes_per_voxel < two.bytes_per_voxel


def test_batches_that_fit():
    cost = StepCost(fixed_bytes=100, bytes_per_voxel=2, flops_per_voxel=3)
    assert cost.peak_bytes((1, 5, 2), 4) == 180
    assert [cost.largest_batch((1, 5, 2), budget) for budget in (50, 119, 120, 179, 180)] == [0, 0, 1, 3, 4]
    assert cost.flops((1, 5, 2), 4) == 120


def test_a_gpu_is_not_filled_to_the_brim():
    assert usable_bytes(8) == pytest.approx(7.5 * 0.9 * GIGABYTE)
    assert usable_bytes(0.4) == 0
    assert needed_gb(usable_bytes(8) / GIGABYTE) == pytest.approx(8)


def test_a_large_patch_is_counted_without_allocating_it():
    # 128^3 with a batch of two is what nnU-Net plans for 8 GB.
    peak_gb = step_cost(network_spec((32, 64, 128, 256, 320, 320))).peak_bytes((128, 128, 128), 2) / GIGABYTE
    assert 4 < peak_gb < 7


def test_measurements_are_kept_as_they_are():
    assert Measured.model_validate_json('{"tensors_gb": 5.2, "held_gb": 5.9}') == Measured(tensors_gb=5.2, held_gb=5.9)
