"""The channels-last instance norm against PyTorch's own, and against sums in double precision."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from builders.networks import FLAT, HIPPOCAMPUS, three_stages
from segfw.networks import build_network, fastest_layout, norm
from segfw.networks.norm import InstanceNorm2d, InstanceNorm3d, NormBySample, moments, norm_on_cuda

KINDS = [
    (InstanceNorm3d, nn.InstanceNorm3d, (3, 5, 4, 6, 7), torch.channels_last_3d),
    (InstanceNorm2d, nn.InstanceNorm2d, (3, 5, 6, 7), torch.channels_last),
]


def make_pair(own: type, stock: type, channels: int) -> tuple[nn.Module, nn.Module]:
    """Both norms with the same parameters, none of them 0 or 1."""
    layers = own(channels, affine=True), stock(channels, affine=True)
    torch.manual_seed(1)
    weight = torch.randn(channels)
    bias = torch.randn(channels)
    for layer in layers:
        layer.load_state_dict({"weight": weight, "bias": bias})
    return layers


def gradients(layer: nn.Module, image: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    """Result, and the gradients of image, weight and bias."""
    image = image.clone().requires_grad_()
    result = layer(image)
    layer.zero_grad()
    result.backward(grad)
    return [result.detach(), image.grad, layer.weight.grad, layer.bias.grad]


@pytest.mark.parametrize("_, __, shape, layout", KINDS)
@pytest.mark.parametrize("slab_rows", [1, 5, 1024])  # several slabs per image, the last one smaller, and one
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_mean_and_variance_do_not_depend_on_the_slabs(_, __, shape, layout, slab_rows, dtype, tolerance):
    image = (torch.randn(shape, dtype=dtype) * 3 + 2).to(memory_format=layout)
    mean, var = moments(image, dtype, slab_rows=slab_rows)
    space = tuple(range(2, image.ndim))
    torch.testing.assert_close(mean, image.mean(space), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(var, image.var(space, correction=0), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("own, stock, shape, layout", KINDS)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_values_and_gradients_equal_pytorchs(own, stock, shape, layout, dtype, tolerance):
    ours, reference = (layer.to(dtype) for layer in make_pair(own, stock, shape[1]))
    image = (torch.randn(shape, dtype=dtype) * 3 + 2).to(memory_format=layout)
    grad = torch.randn(shape, dtype=dtype)
    for found, wanted in zip(gradients(ours, image, grad), gradients(reference, image, grad)):
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("own, stock, shape, layout", KINDS)
def test_the_formula_for_the_compiler_gives_the_same(own, stock, shape, layout, monkeypatch):
    ours, reference = (layer.double() for layer in make_pair(own, stock, shape[1]))
    image, grad = torch.randn(2, *shape, dtype=torch.float64) * 3 + 2
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for found, wanted in zip(gradients(ours, image, grad), gradients(reference, image, grad)):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_compiler_can_trace_the_whole_network_and_its_gradient():
    network = build_network(three_stages()).train()
    image = torch.randn(1, 2, 4, 8, 12)
    plain = network(image)
    traced = torch.compile(network, backend="aot_eager", fullgraph=True)(image)
    for found, wanted in zip(traced, plain, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    sum(output.square().mean() for output in traced).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("own, stock, shape, layout", KINDS)
def test_16_bit_stays_16_bit_and_channels_last_and_is_as_exact_as_its_rounding(own, stock, shape, layout):
    ours, reference = make_pair(own, stock, shape[1])
    image = torch.randn(shape).bfloat16().to(memory_format=layout)
    grad = torch.randn(shape).bfloat16()
    found = gradients(ours, image, grad)
    wanted = gradients(reference.double(), image.double(), grad.double())
    assert [value.dtype for value in found] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    assert all(value.is_contiguous(memory_format=layout) for value in found[:2])
    for value, exact, tolerance in zip(found, wanted, (2**-8, 2**-8, 1e-5, 1e-5)):  # a bf16 has 8 bits
        torch.testing.assert_close(value.double(), exact, rtol=tolerance, atol=tolerance)


def test_a_large_patch_far_from_zero_is_normalised_as_in_double_precision():
    """Summed voxel by voxel in float32, the mean of so many would be off by more than its standard deviation."""
    image = (torch.randn(1, 2, 40, 160, 160) + 100).to(memory_format=torch.channels_last_3d)
    found = InstanceNorm3d(2, affine=True)(image).detach()
    exact = nn.functional.instance_norm(image.double())
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-3)


def test_a_large_constant_image_becomes_the_bias():
    """Any error of the mean is multiplied by 300 here, since the variance is 0."""
    layer, _ = make_pair(InstanceNorm3d, nn.InstanceNorm3d, 2)
    image = torch.full((1, 2, 40, 160, 160), 4.1).to(memory_format=torch.channels_last_3d)
    result = layer(image).detach()
    torch.testing.assert_close(result, layer.bias.detach()[:, None, None, None].expand_as(result), rtol=0, atol=0.02)


def test_the_callers_image_is_not_touched():
    image = torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d)
    before = image.clone()
    InstanceNorm3d(3, affine=True)(image)
    assert torch.equal(image, before)


def test_a_single_voxel_is_refused_as_by_pytorch():
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        InstanceNorm3d(3, affine=True)(torch.randn(2, 3, 1, 1, 1))


@pytest.mark.parametrize("spec, patch", [(HIPPOCAMPUS, (16, 16, 16)), (FLAT, (1, 16, 16))])
def test_network_in_channels_last_computes_what_the_stock_norms_do_with_the_same_weights(spec, patch):
    torch.manual_seed(0)
    network = fastest_layout(build_network(spec)).train()
    stock = build_network(spec).train()
    for layer in stock.modules():
        if isinstance(layer, InstanceNorm2d | InstanceNorm3d):
            layer.__class__ = type(layer).__mro__[2]
    assert list(stock.state_dict()) == list(network.state_dict())
    stock.load_state_dict(network.state_dict())
    image = torch.randn(2, spec.in_channels, *patch)
    for found, wanted in zip(network(image), stock(image), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    losses = [sum(output.square().mean() for output in each(image)) for each in (network, stock)]
    for loss in losses:
        loss.backward()
    for (name, ours), reference in zip(network.named_parameters(), stock.parameters(), strict=True):
        error = (ours.grad - reference.grad).norm()
        # Rounding moves some values over the kink of the leaky ReLU; a bias before a norm has no gradient but rounding.
        assert error < 1e-2 * reference.grad.norm() + 1e-5, name


# What CUDA gets, computed on the CPU: the same operations exist there


@pytest.mark.parametrize("own, stock, shape, layout", KINDS)
@pytest.mark.parametrize("least_values", [0, 10**9])  # sample by sample, and all at once
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_on_cuda_values_and_gradients_equal_pytorchs_and_stay_channels_last(
    own, stock, shape, layout, least_values, dtype, tolerance
):
    _, reference = make_pair(own, stock, shape[1])
    reference = reference.to(dtype)
    image = (torch.randn(shape, dtype=dtype) * 3 + 2).to(memory_format=layout)
    grad = torch.randn(shape, dtype=dtype)
    wanted = gradients(reference, image, grad)
    leaves = [image.clone(), reference.weight.detach().clone(), reference.bias.detach().clone()]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    result = norm_on_cuda(*leaves, reference.eps, least_values=least_values)
    assert result.is_contiguous(memory_format=layout)
    result.backward(grad)
    for found, exact in zip([result.detach(), *(leaf.grad for leaf in leaves)], wanted, strict=True):
        torch.testing.assert_close(found, exact, rtol=tolerance, atol=tolerance)
    if least_values == 0:
        assert leaves[0].grad.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("shape, layout", [(kind[2], kind[3]) for kind in KINDS])
def test_on_cuda_no_image_is_copied_into_another_layout(shape, layout):
    """Counted: a norm takes rows of channels as they lie in memory, forward and backward."""
    copies = []

    class Counted(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten.clone.default, torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default):
                copies.append(args[0].dim())
            return func(*args, **kwargs or {})

    image = torch.randn(shape).to(memory_format=layout).requires_grad_()
    weight = torch.ones(shape[1], requires_grad=True)
    grad = torch.randn(shape).to(memory_format=layout)
    with Counted():
        result = NormBySample.apply(image, weight, weight, 1e-5)
        result.backward(grad)
    # Of rows (voxels, C) of one sample into the gradient's memory, and of nothing of more axes
    assert copies == [2] * shape[0]


def test_on_cuda_the_compiler_gets_the_formula_and_eager_mode_the_layout(monkeypatch):
    """The choice by device, on fake images of CUDA: no value is computed and no card is needed."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        image = torch.empty(2, 4, 64, 64, 64, device="cuda").to(memory_format=torch.channels_last_3d)
        layer = InstanceNorm3d(4, affine=True, device="cuda")
        chosen = []
        monkeypatch.setattr(norm, "norm_on_cuda", lambda *_: chosen.append("eager"))
        monkeypatch.setattr(norm._FusedNorm, "apply", lambda *_: chosen.append("compiled"))
        layer(image)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        layer(image)
    assert chosen == ["eager", "compiled"]
