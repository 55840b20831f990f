"""The device without values counts what is asked of it as a human can."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorDeviceMismatchError

from bench import asked as verb
from bench.fake_device import DEVICE, Asked, fake_device, moved


def test_launches_and_bytes_are_those_of_the_operations():
    with fake_device(), Asked() as asked:
        there = torch.ones(2, 3).to(DEVICE)  # 24 bytes in, and no launch of its own but the copy
        doubled = (there * 2).view(6)[1:]  # one launch; views are none
        doubled.add_(1)
        doubled.to(torch.float16).cpu()  # one launch, and 10 bytes out
        torch.empty(5, device=DEVICE).copy_(torch.zeros(5))  # 20 bytes in
    assert (asked.bytes_in, asked.bytes_out) == (44, 10)
    assert asked.launches["aten::mul.Tensor"] == asked.launches["aten::add_.Tensor"] == 1
    assert not any("view" in name or "slice" in name for name in asked.launches)
    assert torch.float16 in asked.types


def test_what_waits_or_mixes_raises():
    with fake_device():
        there = torch.empty(3, device=DEVICE)
        with pytest.raises(DataDependentOutputException):
            float(there.sum())
        with pytest.raises(FakeTensorDeviceMismatchError):
            there + torch.ones(3)


def test_a_network_that_is_moved_keeps_the_layout_of_its_weights():
    layer = torch.nn.Conv3d(2, 4, 3).to(memory_format=torch.channels_last_3d)
    strides = layer.weight.stride()
    with fake_device():
        assert moved(layer).weight.stride() == strides
        assert layer.weight.device == DEVICE


def test_what_is_counted_is_that_of_the_published_plans():
    spec, patch, batch = verb.published("plain")
    assert (patch, batch) == ((128, 128, 128), 2)
    assert spec.classes == verb.CLASSES
