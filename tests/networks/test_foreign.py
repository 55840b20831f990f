"""MONAI's networks in the plan's terms: shapes, outputs, layouts, precision, learning, and what they cost."""

from math import prod

import pytest
import torch
from torch import Tensor, nn

from builders.networks import network_spec
from segfw.networks import build_network, fastest_layout
from segfw.networks.losses import deep_supervision_loss
from segfw.networks.spec import MEDNEXT, SEGRESNET, SWIN_UNETR, NetworkSpec
from segfw.planning.memory import StepCounter, step_cost


def make_spec(architecture: str, is_2d: bool = False, **changes) -> NetworkSpec:
    """As small as each can be: three stages, or the six of Swin UNETR."""
    swin = architecture == SWIN_UNETR
    features = changes.pop("features", (12, 12, 24, 48, 96, 192) if swin else (8, 16, 32))
    values = {
        "architecture": architecture,
        "kernels": ((1 if is_2d else 3, 3, 3),) * len(features),
        "encoder_blocks": (1, 2, 2, 2, 2, 1) if swin else (1, 2, 2),
        "decoder_convs": (1,) * (len(features) - 1),
    }
    return network_spec(features, is_2d, **values | changes)


# Thick slices: y and x are halved twice before z is.
THICK = {
    "strides": ((1, 1, 1), (1, 2, 2), (1, 2, 2)),
    "kernels": ((1, 3, 3), (1, 3, 3), (3, 3, 3)),
}
CASES = {
    "segresnet": (make_spec(SEGRESNET), (8, 12, 16)),
    "segresnet, thick slices": (make_spec(SEGRESNET, **THICK), (3, 12, 16)),
    "segresnet, slices": (make_spec(SEGRESNET, is_2d=True), (3, 12, 16)),
    "mednext": (make_spec(MEDNEXT), (8, 12, 16)),
    "mednext, slices": (make_spec(MEDNEXT, is_2d=True), (3, 12, 16)),
    "swin": (make_spec(SWIN_UNETR), (32, 32, 64)),
    "swin, slices": (make_spec(SWIN_UNETR, is_2d=True), (3, 32, 64)),
}
SLICES = [name for name in CASES if name.endswith(", slices")]


def image_for(name: str, samples: int = 2) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(samples, 2, *CASES[name][1])


@pytest.mark.parametrize("name", CASES)
def test_logits_in_evaluation_and_a_list_of_them_finest_first_in_training(name):
    spec, patch = CASES[name]
    network = build_network(spec)
    image = image_for(name)
    with torch.no_grad():
        logits = network.eval()(image)
    assert logits.shape == (2, 3, *patch)
    outputs = network.train()(image)
    assert isinstance(outputs, list)
    shapes = [(2, 3, *shape) for shape in spec.stage_shapes(patch)]
    assert [tuple(output.shape) for output in outputs] == shapes[: len(outputs)]
    assert len(outputs) == {SEGRESNET: 2, MEDNEXT: 3, SWIN_UNETR: 1}[spec.architecture]
    # Nothing is dropped at random and no norm keeps statistics: both modes compute the same.
    torch.testing.assert_close(outputs[0], logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_every_layer_learns(name):
    spec, patch = CASES[name]
    network = build_network(spec).train()
    deep_supervision_loss(network(image_for(name)), torch.zeros(2, *patch, dtype=torch.long), False).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", SLICES)
def test_a_2d_network_works_slice_by_slice(name):
    spec, _ = CASES[name]
    network = build_network(spec).eval()
    image = image_for(name)
    assert not any(isinstance(module, nn.Conv3d | nn.ConvTranspose3d) for module in network.modules())
    with torch.no_grad():
        slices = torch.cat([network(image[:, :, z : z + 1]) for z in range(3)], 2)
        torch.testing.assert_close(network(image), slices, atol=1e-5, rtol=1e-4)


def test_thick_slices_are_not_mixed_until_the_others_have_caught_up():
    encoder = build_network(CASES["segresnet, thick slices"][0]).network.encoder
    assert encoder.conv_init.kernel_size == (1, 3, 3)
    assert [level["blocks"][0].conv1.kernel_size for level in encoder.layers] == [(1, 3, 3), (1, 3, 3), (3, 3, 3)]
    assert [level["downsample"].stride for level in encoder.layers[:-1]] == [(1, 2, 2), (1, 2, 2)]


@pytest.mark.parametrize("name", CASES)
def test_layout_and_precision_change_little(name):
    spec, _ = CASES[name]
    network = build_network(spec).eval()
    image = image_for(name)
    with torch.no_grad():
        before = network(image)
        torch.testing.assert_close(fastest_layout(network)(image), before, atol=1e-3, rtol=1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = network(image)
    assert (coarse.float() - before).square().mean() < 0.01 * before.square().mean()


def blobs(shape: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Two noisy patches, each with a box of class 1, bright in the first channel, and one of 2 in the second."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.zeros(2, *shape, dtype=torch.long)
    for sample in range(2):
        for index in (1, 2):
            starts = [int(torch.randint(max(1, size // 2), (1,), generator=generator)) for size in shape]
            box = tuple(slice(start, start + max(1, size // 3)) for start, size in zip(starts, shape))
            classes[sample][box] = index
    noise = torch.randn(2, 2, *shape, generator=generator) / 2
    return noise + 2 * torch.stack([classes == 1, classes == 2], 1), classes


@pytest.mark.parametrize(
    "name, patch",
    [
        ("segresnet", (8, 16, 16)),
        ("segresnet, slices", (1, 32, 32)),
        ("mednext", (8, 16, 16)),
        ("mednext, slices", (1, 32, 32)),
        ("swin, slices", (1, 64, 64)),
    ],
)
def test_it_learns_with_the_optimiser_of_training(name, patch):
    torch.manual_seed(0)
    spec, _ = CASES[name]
    network = fastest_layout(build_network(spec)).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, nesterov=True)
    losses = []
    for step in range(40):
        image, classes = blobs(patch, step)
        optimizer.zero_grad()
        loss = deep_supervision_loss(network(image), classes, False)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.7


@pytest.mark.parametrize(
    "name, patch, tolerance",
    [
        ("segresnet", (32, 48, 40), 0.05),
        ("segresnet, thick slices", (9, 48, 64), 0.05),
        ("mednext", (32, 48, 40), 0.05),
        ("mednext, slices", (1, 256, 192), 0.05),
        # Windows do not divide every patch evenly.
        ("swin", (64, 64, 64), 0.2),
        ("swin", (96, 128, 96), 0.2),
        ("swin, slices", (1, 480, 512), 0.2),
    ],
)
def test_cost_grows_with_the_voxels_as_if_the_whole_step_were_counted(name, patch, tolerance):
    spec = CASES[name][0]
    with torch.device("meta"):
        network = build_network(spec).bfloat16().train()
        image = torch.empty(2, 2, *patch)
        classes = torch.empty(2, *patch, dtype=torch.long)
    with StepCounter() as whole:
        deep_supervision_loss(network(image.bfloat16()), classes, batch_dice=False).backward()
    cost = step_cost(spec)
    assert cost.bytes_per_voxel * prod(patch) * 2 == pytest.approx(whole.peak_bytes, rel=tolerance)
    assert cost.flops(patch, 2) == pytest.approx(whole.flops, rel=tolerance)
    assert cost.fixed_bytes == 14 * sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    "architecture, changes, message",
    [
        (SEGRESNET, {"features": (8, 16, 24)}, r"segresnet cannot have features .* must be \(8, 16, 32\)"),
        (SEGRESNET, {"strides": THICK["strides"]}, "segresnet cannot have strides"),
        (
            SEGRESNET,
            {"kernels": ((3, 3, 3), (1, 3, 3), (3, 3, 3)), "strides": ((1, 1, 1), (2, 2, 2), (1, 2, 2))},
            "first",
        ),
        (MEDNEXT, THICK, "mednext-b cannot have strides"),
        (MEDNEXT, {"kernels": ((5, 5, 5),) * 3}, "mednext-b cannot have kernels"),
        (SWIN_UNETR, {"features": (12, 24, 48, 96, 192, 384)}, "swin-unetr cannot have features"),
    ],
)
def test_a_spec_that_the_architecture_cannot_follow_is_refused(architecture, changes, message):
    with pytest.raises(ValueError, match=message):
        build_network(make_spec(architecture, **changes))
