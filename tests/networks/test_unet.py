"""The plain U-Net: shapes, parameters and costs, counted by other means."""

from math import prod

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from builders.networks import FLAT, HIPPOCAMPUS, three_stages
from segfw.networks import ARCHITECTURES, build_network, fastest_layout

ANISOTROPIC = three_stages()
ONE_STAGE = three_stages(
    features=(5,), strides=((1, 1, 1),), kernels=((3, 3, 3),), encoder_blocks=(2,), decoder_convs=()
)
UNEVEN_CONVS = three_stages(encoder_blocks=(1, 3, 2), decoder_convs=(1, 3))
PATCHES = [(ANISOTROPIC, (4, 8, 12)), (FLAT, (3, 8, 4)), (ONE_STAGE, (3, 5, 7)), (UNEVEN_CONVS, (2, 4, 8))]
BLOCKS = {"architecture": "residual-encoder-unet", "encoder_blocks": (1, 3, 2), "decoder_convs": (1, 1)}
# The third stage halves two axes without adding features: its shortcut averages only.
SAME_FEATURES = three_stages(**BLOCKS, features=(4, 6, 6), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)))
RESIDUAL = [
    (three_stages(**BLOCKS), (4, 8, 12)),
    (three_stages(**BLOCKS, strides=FLAT.strides, kernels=FLAT.kernels), (3, 8, 4)),
]


def convolution(kind: type) -> bool:
    return issubclass(kind, nn.modules.conv._ConvNd)


@pytest.mark.parametrize("spec, patch", [*PATCHES, *RESIDUAL])
def test_evaluation_gives_logits_of_the_patchs_shape(spec, patch):
    network = build_network(spec).eval()
    with torch.no_grad():
        logits = network(torch.randn(2, 2, *patch))
    assert logits.shape == (2, 4, *patch)


@pytest.mark.parametrize(
    "spec, patch, shapes",
    [
        (ANISOTROPIC, (4, 8, 12), [(4, 8, 12), (4, 4, 6)]),
        (FLAT, (3, 8, 4), [(3, 8, 4), (3, 4, 2)]),
        (ONE_STAGE, (3, 5, 7), [(3, 5, 7)]),
    ],
)
def test_training_gives_one_output_per_decoder_stage_finest_first(spec, patch, shapes):
    network = build_network(spec).train()
    outputs = network(torch.randn(2, 2, *patch))
    assert [tuple(output.shape) for output in outputs] == [(2, 4, *shape) for shape in shapes]
    sum(output.square().mean() for output in outputs).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())  # no layer is left out


@pytest.mark.parametrize("spec, patch", [*PATCHES, *RESIDUAL])
def test_the_finest_training_output_is_that_of_evaluation(spec, patch):
    network = build_network(spec)
    image = torch.randn(1, 2, *patch)
    with torch.no_grad():
        torch.testing.assert_close(network.train()(image)[0], network.eval()(image))


def test_a_2d_network_works_slice_by_slice():
    network = build_network(FLAT).eval()
    assert not any(isinstance(module, nn.Conv3d | nn.ConvTranspose3d) for module in network.modules())
    image = torch.randn(2, 2, 5, 8, 4)
    with torch.no_grad():
        whole = network(image)
        slices = torch.cat([network(image[:, :, z : z + 1]) for z in range(5)], 2)
    torch.testing.assert_close(whole, slices)


def test_kernels_and_strides_lie_along_the_axes_of_the_spec():
    network = build_network(ANISOTROPIC)
    assert [block[0][0].kernel_size for block in network.encoder] == [(1, 3, 3), (3, 3, 3), (3, 3, 3)]
    assert [block[0][0].stride for block in network.encoder] == [(1, 1, 1), (1, 2, 2), (2, 2, 2)]
    assert [block[1][0].stride for block in network.encoder] == [(1, 1, 1)] * 3  # only the first of a stage
    assert [up.stride for up in network.up] == [up.kernel_size for up in network.up] == [(1, 2, 2), (2, 2, 2)]
    assert [block[1][0].kernel_size for block in network.decoder] == [(1, 3, 3), (3, 3, 3)]
    assert [block[0][0].kernel_size for block in build_network(FLAT).encoder] == [(3, 3), (3, 1), (3, 3)]


def test_the_hippocampus_network_has_as_many_parameters_as_nnunets():
    network = build_network(HIPPOCAMPUS)
    features = HIPPOCAMPUS.features
    expected = 0
    previous = 1

    def block(inputs: int, outputs: int) -> int:
        return 27 * inputs * outputs + 3 * outputs  # weights, bias, and the norm's scale and shift

    for count in features:
        expected += block(previous, count) + block(count, count)
        previous = count
    for fine, coarse in zip(features, features[1:]):
        expected += 8 * coarse * fine + fine  # transposed convolution
        expected += block(2 * fine, fine) + block(fine, fine)
        expected += 3 * fine + 3  # head
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    assert expected == pytest.approx(5.6e6, rel=0.01)


@pytest.mark.parametrize("spec, patch", [*PATCHES, *RESIDUAL, (HIPPOCAMPUS, (8, 16, 8))])
def test_convolution_elements_equal_what_hooks_count(spec, patch):
    with torch.device("meta"):
        network = build_network(spec).eval()
        image = torch.empty(1, spec.in_channels, *patch)
    counted = 0

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal counted
        counted += output.numel()

    for module in network.modules():
        # nnU-Net's network of a single stage has no segmentation layer to count.
        if convolution(type(module)) and not (len(spec.features) == 1 and module is network.heads[0]):
            module.register_forward_hook(count)
    network(image)  # in evaluation only the finest head runs, as nnU-Net counts
    assert spec.convolution_elements(patch) == counted


def test_a_shortcut_that_only_averages_is_counted_as_published():
    # Per voxel of its stage: stem 4 and one block 8; three blocks of 12 and a shortcut of 6; two of 12 and 6.
    # Then the decoder: one convolution and one transposed convolution per stage, and 4 classes.
    voxels = [4 * 8 * 12, 4 * 4 * 6, 2 * 2 * 3]
    expected = 12 * voxels[0] + 42 * voxels[1] + 30 * voxels[2] + 8 * voxels[0] + 12 * voxels[1] + 4 * voxels[0]
    assert SAME_FEATURES.convolution_elements((4, 8, 12)) == expected


def test_a_residual_block_begins_as_its_shortcut():
    network = build_network(SAME_FEATURES).eval()
    block = network.encoder[2][1]  # the second block of the last stage changes neither size nor features
    x = torch.randn(2, 6, 2, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(block(x), nn.functional.leaky_relu(x, 0.01))
        first = network.encoder[2][0](torch.randn(2, 6, 4, 4, 6))
    assert first.shape == (2, 6, 2, 2, 3)
    weights = network.encoder[2][0].shortcut
    assert [type(layer).__name__ for layer in weights] == ["AvgPool3d"]
    assert [type(layer).__name__ for layer in network.encoder[1][0].shortcut] == [
        "AvgPool3d",
        "Conv3d",
        "InstanceNorm3d",
    ]


def test_the_size_of_the_published_residual_encoder():
    spec = three_stages(
        architecture="residual-encoder-unet",
        in_channels=1,
        classes=3,
        features=(32, 64, 128, 256, 320, 320),
        strides=((1, 1, 1), *((2, 2, 2),) * 5),
        kernels=((3, 3, 3),) * 6,
        encoder_blocks=(1, 3, 4, 6, 6, 6),
        decoder_convs=(1,) * 5,
    )
    # 558 319 104 in nnU-Net's own comment counts the heads of all stages; the planner counts the finest only.
    coarser_heads = 3 * sum((128 // 2**stage) ** 3 for stage in range(1, 5))
    assert spec.convolution_elements((128, 128, 128)) + coarser_heads == 558_319_104


def test_the_specs_shapes():
    assert ANISOTROPIC.downsampling == (2, 4, 4)
    assert ANISOTROPIC.stage_shapes((4, 8, 12)) == [(4, 8, 12), (4, 4, 6), (2, 2, 3)]
    assert prod(HIPPOCAMPUS.stage_shapes((40, 56, 40))[-1]) == 5 * 7 * 5
    assert (ANISOTROPIC.is_2d, FLAT.is_2d) == (False, True)


@pytest.mark.parametrize("slices", [2, 4, 6])
def test_gradients_in_16_bit_on_the_cpu_are_near_those_in_float32(slices):
    torch.manual_seed(0)
    spec = three_stages(features=(16, 32, 64))
    network = build_network(spec).train()
    image = torch.randn(2, 2, slices, 32, 32)
    gradients = []
    for is_16_bit in (False, True):
        network.zero_grad()
        _unwritten = torch.full((27 * 32 * 64,), 1e30)
        del _unwritten  # what memory may hold that is read before it is written
        with torch.autocast("cpu", torch.bfloat16, enabled=is_16_bit):
            outputs = network(image)
        sum((output.float() ** 3).mean() for output in outputs).backward()
        gradients.append(torch.cat([weight.grad.flatten().clone() for weight in network.parameters()]))
    fine, coarse = gradients
    assert (fine - coarse).norm() < 0.2 * fine.norm()


def test_two_slices_that_are_mixed_are_told_from_all_others():
    # Stages of ANISOTROPIC have as many slices as the patch, as many, and half as many; the first does not mix them.
    deep = {slices: ANISOTROPIC.breaks_bf16_on_the_cpu((slices, 8, 8)) for slices in (2, 4, 6, 8)}
    assert deep == {2: True, 4: True, 6: False, 8: False}
    assert not FLAT.breaks_bf16_on_the_cpu((2, 8, 8))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"features": (4, 6)}, "2 stages of features, but strides, kernels, convs have"),
        ({"decoder_convs": (2, 2, 2)}, "3 stages of features, but"),
        ({"kernels": ((1, 3, 3), (2, 3, 3), (3, 3, 3))}, "must be odd"),
        ({"dropout": 0.5}, "dropout"),
    ],
)
def test_a_spec_that_fits_nowhere_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        three_stages(**changes)


def test_an_unknown_architecture_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="unknown architecture 'vit'; choose from"):
        build_network(three_stages(architecture="vit"))
    assert "plain-unet" in ARCHITECTURES


def test_weights_start_by_he_and_biases_at_zero():
    network = build_network(HIPPOCAMPUS)
    weight = network.encoder[3][1][0].weight  # 256 x 256 x 27
    assert weight.std().item() == pytest.approx((2 / 1.0001 / (256 * 27)) ** 0.5, rel=0.01)
    biases = [module.bias for module in network.modules() if convolution(type(module))]
    assert not torch.cat(biases).any()


@pytest.mark.parametrize("spec, patch", [*PATCHES, *RESIDUAL])
def test_the_faster_memory_layout_changes_nothing_else(spec, patch):
    network = build_network(spec).eval()
    image = torch.randn(1, 2, *patch)
    with torch.no_grad():
        before = network(image)
        after = fastest_layout(network)(image)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
