"""Norm, shortcut and activation in one kernel against PyTorch's operations in double precision."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from builders.interpreted import device_of_kernels

EPS = 1e-5
# voxels that end inside a tile, channels that are no power of two and of several tiles, one channel, slices
SHAPES = [(2, 5, 3, 7, 11), (1, 33, 4, 5, 6), (2, 80, 2, 3, 4), (3, 1, 2, 3, 5), (3, 6, 9, 8)]


@pytest.fixture
def device() -> torch.device:
    return device_of_kernels()


def kernels() -> ModuleType:
    """Imported in tests alone: without Triton there is nothing to import."""
    return import_module("segfw.kernels.norm_activation")


def plain(x: Tensor, weight: Tensor, bias: Tensor, slope: float, shortcut: Tensor | None) -> Tensor:
    """The oracle: the same by hand, as the definition has it."""
    space = tuple(range(2, x.dim()))
    column = (-1, *[1] * (x.dim() - 2))
    mean = x.mean(space, keepdim=True)
    std = ((x - mean).square().mean(space, keepdim=True) + EPS).sqrt()
    normed = (x - mean) / std * weight.view(column) + bias.view(column)
    if shortcut is not None:
        normed = normed + shortcut
    return F.leaky_relu(normed, slope)


def made_up(shape: tuple[int, ...], device: torch.device, *, has_shortcut: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {
        "x": torch.randn(shape, generator=generator) * 3 + 2,
        "weight": torch.randn(shape[1], generator=generator),
        "bias": torch.randn(shape[1], generator=generator),
        "by_y": torch.randn(shape, generator=generator),
    }
    if has_shortcut:
        made["shortcut"] = torch.randn(shape, generator=generator)
    return {name: value.to(device) for name, value in made.items()}


def results(given: dict[str, Tensor], slope: float, *, is_kernel: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """The result, and the gradients of all that went in."""
    leaves = {}
    for name, value in given.items():
        if name != "by_y":
            is_image = name in ("x", "shortcut")
            kind = dtype if is_image or dtype == torch.float64 else torch.float32
            leaves[name] = value.to(kind).clone().detach().requires_grad_()
    shortcut = leaves.get("shortcut")
    if is_kernel:
        function = kernels().norm_activation
        y = function(leaves["x"], leaves["weight"], leaves["bias"], EPS, slope, shortcut)
    else:
        y = plain(leaves["x"], leaves["weight"], leaves["bias"], slope, shortcut)
    y.backward(given["by_y"].to(dtype))
    return {"y": y.detach()} | {name: leaf.grad for name, leaf in leaves.items()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slope", [0.01, 1.0])
@pytest.mark.parametrize("has_shortcut", [False, True])
def test_values_and_gradients_are_those_of_the_definition(shape, slope, has_shortcut, device):
    given = made_up(shape, device, has_shortcut=has_shortcut)
    found = results(given, slope, is_kernel=True, dtype=torch.float32)
    wanted = results(given, slope, is_kernel=False, dtype=torch.float64)
    assert list(found) == list(wanted)
    for name, value in found.items():
        difference = (value.double() - wanted[name]).abs().max()
        assert difference < 1e-4, (name, difference)


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
def test_16_bit_stays_16_bit_and_is_as_exact_as_its_rounding(dtype, tolerance, device):
    given = made_up((2, 8, 3, 4, 5), device, has_shortcut=True)
    given = {name: value.to(dtype).float() for name, value in given.items()}
    found = results(given, 0.01, is_kernel=True, dtype=dtype)
    wanted = results(given, 0.01, is_kernel=False, dtype=torch.float64)
    assert [found[name].dtype for name in ("y", "x", "weight", "bias")] == [dtype, dtype, torch.float32, torch.float32]
    for name, value in found.items():
        difference = (value.double() - wanted[name]).norm() / wanted[name].norm()
        assert difference < tolerance, name


@pytest.mark.parametrize(
    "shape, layout", [((2, 5, 3, 4, 6), torch.channels_last_3d), ((2, 5, 4, 6), torch.channels_last)]
)
def test_result_and_gradient_are_channels_last_whatever_comes_in(shape, layout, device):
    function = kernels().norm_activation
    weight = torch.ones(5, device=device)
    for given in (torch.randn(shape, device=device), torch.randn(shape, device=device).to(memory_format=layout)):
        image = given.requires_grad_()
        result = function(image, weight, weight, EPS, 0.01)
        assert result.is_contiguous(memory_format=layout)
        result.sum().backward()
        assert image.grad.shape == image.shape


def test_slabs_are_joined_exactly_far_from_zero(device, monkeypatch):
    """With sums of squares the variance of values near 1000 would be lost in float32; with slabs many are joined."""
    monkeypatch.setattr(kernels(), "PROGRAMS", 8)
    given = made_up((2, 2, 12, 32, 32), device, has_shortcut=False)
    given["x"] = given["x"] + 1000
    found = results(given, 0.01, is_kernel=True, dtype=torch.float32)
    wanted = results(given, 0.01, is_kernel=False, dtype=torch.float64)
    torch.testing.assert_close(found["y"].double(), wanted["y"], rtol=0, atol=1e-3)


def test_the_same_comes_out_twice_and_the_image_is_not_touched(device):
    given = made_up((2, 5, 3, 7, 11), device, has_shortcut=True)
    before = given["x"].clone()
    first = results(given, 0.01, is_kernel=True, dtype=torch.float32)
    second = results(given, 0.01, is_kernel=True, dtype=torch.float32)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(given["x"], before)


def test_what_the_kernel_does_not_take(device):
    can_take = kernels().can_take
    assert can_take(torch.zeros(1, 2, 3, 4, 5))
    assert can_take(torch.zeros(1, 2, 3, 4, dtype=torch.bfloat16))
    assert not can_take(torch.zeros(1, 2, 3, 4, 5, dtype=torch.float64))
    assert not can_take(torch.zeros(1, 2, 3))
    assert not can_take(torch.zeros(0, 2, 3, 4))
    assert not can_take(torch.zeros(1, device="meta").expand(1, 2, 2**10, 2**10, 2**10))  # counted in 32 bits
