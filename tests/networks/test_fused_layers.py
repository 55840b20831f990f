"""Networks whose norms do the activation's work: the same weights, names, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from builders.interpreted import device_of_kernels
from builders.networks import FLAT, three_stages
from segfw.networks import build_network, fastest_layout, fused_layers
from segfw.networks.fused_layers import with_fused_norms
from segfw.networks.norm import KeepsLayout
from segfw.networks.spec import RESIDUAL_ENCODER

RESIDUAL = three_stages(architecture=RESIDUAL_ENCODER)
SPECS = [(three_stages(), (4, 8, 12)), (RESIDUAL, (4, 8, 12)), (FLAT, (1, 16, 16))]


@pytest.fixture
def device() -> torch.device:
    return device_of_kernels()


def pair(spec, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """A network with kernels and one without, of the same weights, none of them 0 as those of fresh norms are."""
    torch.manual_seed(0)
    plain = build_network(spec).train()
    with torch.no_grad():
        for weight in plain.parameters():
            if weight.ndim == 1:
                weight.add_(torch.rand_like(weight) * 0.5)
    fused = build_network(spec).train()
    fused.load_state_dict(plain.state_dict())
    return with_fused_norms(fastest_layout(fused.to(device)), device), fastest_layout(plain.to(device))


def outputs_and_gradients(network: nn.Module, image: Tensor) -> list[Tensor]:
    outputs = network(image)
    sum(
        (output * torch.arange(output.numel(), device=image.device).view_as(output).sin()).mean() for output in outputs
    ).backward()
    return [*(output.detach() for output in outputs), *(weight.grad for weight in network.parameters())]


@pytest.mark.parametrize("spec, patch", SPECS)
def test_values_and_gradients_stay_what_they_were(spec, patch, device):
    fused, plain = pair(spec, device)
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert sum(isinstance(module, nn.LeakyReLU) for module in fused.modules()) == 0
    image = torch.randn(2, spec.in_channels, *patch, device=device)
    found = outputs_and_gradients(fused, image)
    wanted = outputs_and_gradients(plain, image)
    for value, exact in zip(found, wanted, strict=True):
        # A bias before a norm has no gradient but rounding; rounding moves few values over the kink.
        assert (value - exact).norm() < 1e-2 * exact.norm() + 1e-5


@pytest.mark.parametrize("spec, patch", SPECS)
def test_the_kernel_is_called_for_every_norm(spec, patch, device, monkeypatch):
    fused, _ = pair(spec, device)
    calls = []
    for layer in fused.modules():
        if isinstance(layer, KeepsLayout):
            layer.fused = lambda *given, kernel=layer.fused: calls.append(given[4:]) or kernel(*given)
    fused.eval()(torch.randn(1, spec.in_channels, *patch, device=device))
    norms = [layer for layer in fused.modules() if isinstance(layer, KeepsLayout)]
    assert len(calls) == len(norms)
    blocks = sum(shortcut is not None for _, shortcut in calls)
    assert blocks == (sum(spec.encoder_blocks) if spec.architecture == RESIDUAL_ENCODER else 0)


def test_a_kernel_that_errs_changes_nothing(monkeypatch, capsys):
    """The trial runs before any layer is touched, also where Triton is not installed at all."""
    monkeypatch.setattr(fused_layers, "_norm_agrees", lambda device: False)
    network = build_network(three_stages())
    pytest.importorskip("triton", reason="Triton is not installed")
    assert with_fused_norms(network, torch.device("cpu")) is network
    assert any(isinstance(module, nn.LeakyReLU) for module in network.modules())
    assert all(module.fused is None for module in network.modules() if isinstance(module, KeepsLayout))


def test_what_the_kernel_does_not_take_and_the_compiler_get_the_same_by_plain_operations(monkeypatch):
    """A norm that does the activation's work, without a kernel: as in double precision, and under torch.compile."""
    norm = three_stages_norm()
    norm.slope = 0.01
    norm.fused = lambda *_: pytest.fail("the kernel was called")
    norm.can_fuse = lambda x: x.dtype != torch.float64
    x, shortcut = torch.randn(2, 2, 5, 3, 4, 6, dtype=torch.float64)
    wanted = F.leaky_relu(F.instance_norm(x, weight=norm.weight, bias=norm.bias) + shortcut, 0.01)
    torch.testing.assert_close(norm(x, shortcut), wanted)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    norm.can_fuse = lambda x: True
    torch.testing.assert_close(norm(x, shortcut), wanted)


def three_stages_norm() -> KeepsLayout:
    norm = next(module for module in build_network(three_stages()).modules() if isinstance(module, KeepsLayout))
    made = type(norm)(5, affine=True).double()
    nn.init.normal_(made.weight)
    nn.init.normal_(made.bias)
    return made
