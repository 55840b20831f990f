"""Training, validation, prediction and restoring of every architecture on a device that has no values.

There what mixes host and device raises, and so does whoever asks for a value, for which a GPU would be waited for. What
is asked of the device is counted. Values are tested elsewhere; layouts and kernels of CUDA only CUDA can test.
"""

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import DataDependentOutputException

from bench.fake_device import DEVICE, Asked, fake_device
from builders.losses import BOTH, REGIONS
from builders.on_fake_device import REFINERS, batches_for, compute_for, network_there, patch_of, spec_of, state_of
from builders.probabilities import LABELS as THREE
from builders.probabilities import NESTED
from segfw.grid import restore as restore_module
from segfw.grid.preprocess import PreprocessRecord
from segfw.grid.resample import axis_matrix
from segfw.grid.restore import Restoring
from segfw.grid.slabs import one_slab
from segfw.images.geometry import Geometry
from segfw.inference.host_memory import LearnedLimits
from segfw.inference.sliding_window import sliding_window
from segfw.inference.summands import summands_of
from segfw.inference.tiles import TiledImage, blending_weights
from segfw.networks import ARCHITECTURES, build_network
from segfw.networks.losses import LABELS, Target
from segfw.networks.spec import PLAIN
from segfw.quality import doubtful_voxels, member_maps
from segfw.quality.doubtful_voxels import DoubtfulVoxels
from segfw.quality.member_maps import MemberMaps
from segfw.training import augment
from segfw.training.batches import Batches
from segfw.training.patch_validation import validate_patches
from segfw.training.step import train_step

EVERY = [(name, is_2d) for name in ARCHITECTURES for is_2d in (False, True)]
# Refiners have batches of their own, and take windows around clicks: test_fake_device_refiner.py
BY_TILES = [(name, is_2d) for name, is_2d in EVERY if name not in REFINERS]


@pytest.fixture(autouse=True)
def _no_noise(monkeypatch):
    """There are no random numbers to draw on this device."""
    monkeypatch.setattr(augment, "_add_noise", lambda image, stds, seeds: image)


@pytest.mark.parametrize("architecture, is_2d", BY_TILES)
def test_steps_of_every_architecture_wait_for_nothing(architecture, is_2d):
    """From a batch that was cut on the host to the new weights: no value is asked for, nothing goes back."""
    spec = spec_of(architecture, is_2d)
    patch = patch_of(architecture, is_2d)
    batches = batches_for(spec, patch)
    state = state_of(network_there(spec))
    compute = compute_for(spec, patch)
    state.network.train()
    for step in range(2):
        cut = batches.cut(step)
        with fake_device(), Asked() as asked:
            image, classes = batches.finish(cut, DEVICE)
            with Asked() as asked_by_step:
                loss = train_step(compute, state, image, classes)
        assert loss.device == DEVICE
        assert asked.bytes_out == 0
        assert asked_by_step.bytes_in == 0  # or it could not be recorded as a CUDA graph
        assert asked.launch_count > 50
        assert torch.float64 not in asked.types  # which Apple's GPUs do not have
    assert all(parameter.grad.device == DEVICE for parameter in state.network.parameters())


@pytest.mark.parametrize("target", [REGIONS, Target(ignore=3), BOTH])
@pytest.mark.parametrize("parts", [1, 2])
def test_steps_on_regions_and_beside_ignored_voxels_wait_for_nothing(target, parts):
    outputs = len(target.regions) or 3
    spec = spec_of(PLAIN, False).model_copy(update={"classes": outputs})
    patch = patch_of(PLAIN, False)
    state = state_of(network_there(spec))
    state.counters.parts = parts
    with fake_device(), Asked() as asked:
        image = torch.empty(2, spec.in_channels, *patch, device=DEVICE)
        train_step(
            compute_for(spec, patch, target), state, image, torch.zeros(2, *patch, dtype=torch.long, device=DEVICE)
        )
    assert asked.bytes_out == 0


@pytest.mark.parametrize("architecture, is_2d", BY_TILES)
def test_validation_waits_once_when_all_its_batches_are_asked_for(architecture, is_2d, monkeypatch):
    spec = spec_of(architecture, is_2d)
    patch = patch_of(architecture, is_2d)
    state = state_of(network_there(spec))
    batches = batches_for(spec, patch, kind="none")
    finished = []
    finish = Batches.finish
    monkeypatch.setattr(Batches, "finish", lambda *given: finished.append(given) or finish(*given))
    with fake_device(), pytest.raises(DataDependentOutputException):  # by the figures, which the host is told
        validate_patches(compute_for(spec, patch), state, batches, 5, batch_dice=False, target=LABELS)
    assert len(finished) == 5
    assert not state.network.training


@pytest.mark.parametrize("axes", [(), (0, 2)])
@pytest.mark.parametrize("architecture, is_2d", BY_TILES)
def test_predictions_wait_for_nothing_and_send_each_tile_once(architecture, is_2d, axes, monkeypatch):
    """Restoring looks at each block once, whether it holds one class, and then takes a byte a voxel back."""
    spec = spec_of(architecture, is_2d)
    patch = patch_of(architecture, is_2d)
    network = network_there(spec).eval()
    shape = (patch[0] + 5, patch[1] + 9, patch[2])
    image = torch.randn(spec.in_channels, *shape)
    new = (shape[0] + 2, shape[1] - 4, shape[2] + 10)
    restoring = Restoring(record(shape, new))
    monkeypatch.setattr(TiledImage, "constant", lambda *_: None)  # which looks at the image on the host
    monkeypatch.setattr(restore_module, "_is_uniform", lambda winners_zyx: False)
    monkeypatch.setattr(restore_module, "_on_host", lambda classes: np.zeros(classes.cpu().shape, np.uint8))
    with fake_device(), Asked() as asked:
        summands = summands_of([network], axes)
        for slab in sliding_window(image, summands, patch, device=DEVICE, limits=LearnedLimits()):
            assert slab.channels_azyx.device == DEVICE
            restoring.add(slab)
    assert restoring.result().shape == new
    assert asked.bytes_out == np.prod(new)
    assert torch.float64 not in asked.types


@pytest.mark.parametrize("regions", [(), ("whole", "core")])
@pytest.mark.parametrize("folds", [1, 3])
def test_judging_masks_waits_for_no_shape_and_sends_few_bytes_a_voxel(folds, regions, monkeypatch):
    """Of each fold a code and an entropy come back, of their mean a probability too: 5 bytes a fold, and 9."""
    spec = spec_of(PLAIN, False)
    patch = patch_of(PLAIN, False)
    labels = NESTED if regions else THREE
    spec = spec.model_copy(update={"classes": labels.outputs})
    shape = (patch[0] + 5, patch[1] + 9, patch[2])
    image = torch.randn(spec.in_channels, *shape)
    networks = [network_there(spec).eval() for _ in range(folds)]
    monkeypatch.setattr(TiledImage, "constant", lambda *_: None)
    monkeypatch.setattr(member_maps, "host_array", lambda values: np.full(values.cpu().shape, 1, np.float32))
    monkeypatch.setattr(member_maps, "on_host", lambda values: np.zeros(values.cpu().shape))
    maps = MemberMaps(record(shape, shape), labels)
    with fake_device(), Asked() as asked:
        for slab in sliding_window(
            image, summands_of(networks, (), by_member=True), patch, device=DEVICE, limits=LearnedLimits()
        ):
            maps.add(slab)
    assert maps.members == folds
    voxels = np.prod(shape)
    of_voxels = 9 * voxels if folds == 1 else (5 * folds + 9) * voxels
    assert of_voxels <= asked.bytes_out < of_voxels + 0.1 * voxels  # and sums, a few of each block
    assert torch.float64 not in asked.types


@pytest.mark.parametrize("labels_name", ["labels", "regions"])
def test_doubtful_voxels_send_three_bytes_each(labels_name, monkeypatch):
    labels = NESTED if labels_name == "regions" else THREE
    shape = (3, 8, 9)
    maps = MemberMaps(record(shape, shape), labels)
    logits = torch.randn(labels.outputs, *shape)
    maps.add(one_slab(logits))
    maps.probability[...] = 0  # all of them are in doubt
    maps.entropy[...] = 255
    doubtful = DoubtfulVoxels(maps)
    monkeypatch.setattr(doubtful_voxels, "host_array", lambda values: np.zeros(values.cpu().shape, np.uint16))
    with fake_device(), Asked() as asked:
        doubtful.add(one_slab(torch.empty(labels.outputs, *shape, device=DEVICE)))
    assert asked.bytes_out == 3 * np.prod(shape)


def record(old: tuple[int, ...], new: tuple[int, ...]) -> PreprocessRecord:
    """Of an image of ``new`` voxels that was brought to ``old``."""
    return PreprocessRecord(
        original=Geometry.of(new, np.eye(4)[[2, 1, 0, 3]]),
        box=tuple((0, size) for size in new),
        axis_order=(0, 1, 2),
        cropped_shape=new,
        cropped_spacing_mm=(1.0, 1.0, 1.0),
        shape=old,
        spacing_mm=tuple(size / before for size, before in zip(new, old)),
    )


@pytest.mark.parametrize("architecture, is_2d", EVERY)
def test_every_architecture_is_one_graph_in_training(architecture, is_2d):
    """No break of the graph, and no second compilation for another step or after validation in between."""
    torch._dynamo.reset()
    counter = CompileCounter()
    spec = spec_of(architecture, is_2d)
    patch = patch_of(architecture, is_2d)
    network = build_network(spec)
    forward = torch.compile(network, backend=counter, fullgraph=True, dynamic=False)
    image = torch.randn(1, spec.in_channels, *patch)
    for _ in range(2):
        forward(image)[0].sum().backward()
        network.zero_grad(set_to_none=True)
        network.eval()
        with torch.no_grad():
            network(image)
        network.train()
    assert counter.frame_count == 1
    torch._dynamo.reset()


def test_nothing_without_values_is_kept_for_later():
    with fake_device():
        blending_weights(16, 8, 0.5)
        axis_matrix(8, 5, 1)
    assert float(blending_weights(16, 8, 0.5).max()) > 0
    assert float(axis_matrix(8, 5, 1).abs().max()) > 0
