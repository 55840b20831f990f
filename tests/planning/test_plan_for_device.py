"""What a device is expected to do in training, by a probe."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from segfw.planning import plan_for_device

CPU = torch.device("cpu")


def test_the_probe_counts_what_its_layers_compute(monkeypatch):
    seconds = iter([0.0, 3.0, 10.0, 12.0, 20.0, 24.0, 30.0, 33.0])  # the fastest of four takes two
    monkeypatch.setattr(plan_for_device.time, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(plan_for_device, "pick_precision", lambda *given, **named: torch.float32)
    with FlopCounterMode(display=False) as counter:
        found = plan_for_device._flops_of_layers(CPU)
    assert found == pytest.approx(counter.get_total_flops() / plan_for_device.PROBE_STEPS / 2, rel=1e-6)


def test_only_a_cpu_is_asked_by_whole_layers(monkeypatch):
    monkeypatch.setattr(plan_for_device, "convolution_flops", lambda device: 1e12)
    plan_for_device.training_flops.cache_clear()
    assert plan_for_device.training_flops(torch.device("mps")) == pytest.approx(0.6e12)
    plan_for_device.training_flops.cache_clear()
