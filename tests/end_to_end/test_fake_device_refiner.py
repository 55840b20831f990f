"""Refiners on a device that has no values: training, validation, answers to clicks, and how often they are compiled.

Clicks are drawn on the host, from masks and answers that lie on the device, so that a batch of a refiner waits for
these; what it sends for that is counted here, and that its steps wait for nothing else.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import DataDependentOutputException

from bench.fake_device import DEVICE, Asked, fake_device
from builders.on_fake_device import REFINERS, compute_for, network_there, patch_of, spec_of, state_of
from segfw.clicks.click_maps import refiner_channels
from segfw.grid.store import CaseArrays
from segfw.interaction import window_networks
from segfw.interaction.window_networks import WindowNetworks
from segfw.networks import build_network
from segfw.networks.refiner_loss import refiner_loss
from segfw.networks.spec import CLICK_CHANNELS, CLICK_REFINER
from segfw.training import augment, refiner_batches
from segfw.training.refiner_batches import RefinerBatches
from segfw.training.refiner_samples import RefinerRules
from segfw.training.refiner_validation import answer_of, validate_refiner
from segfw.training.step import train_step

SPACING_MM = (3.0, 1.0, 1.5)
STRUCTURES = ((1, 2), (2,))
BATCH = 4
CHANNELS = 2  # of the image
BOTH_KINDS = [(name, is_2d) for name in REFINERS for is_2d in (False, True)]


@pytest.fixture(autouse=True)
def _no_noise(monkeypatch):
    """There are no random numbers to draw on this device."""
    monkeypatch.setattr(augment, "_add_noise", lambda image, stds, seeds: image)


@pytest.fixture
def looks(monkeypatch) -> list[int]:
    """Bytes of each time that the host waits for the device; there it then finds a structure in half of the patch."""
    found: list[int] = []

    def on_host(values: torch.Tensor) -> np.ndarray:
        sent = values.cpu()
        found.append(sent.nbytes)
        masks = np.zeros(sent.shape, bool if sent.dtype == torch.bool else np.int16)
        masks[..., masks.shape[-1] // 2 :] = 1
        return masks

    monkeypatch.setattr(refiner_batches, "_on_host", on_host)
    return found


def batches_for(patch: tuple[int, int, int], *, is_spoilt: bool) -> RefinerBatches:
    shape = tuple(size + 8 for size in patch)
    rng = np.random.default_rng(0)
    case = CaseArrays(
        image=rng.normal(size=(CHANNELS, *shape)).astype(np.float16),
        classes=rng.integers(0, 3, shape).astype(np.uint8),
        previous=rng.integers(0, 3, shape).astype(np.uint8),
        foreground={1: np.arange(50, 60, dtype=np.uint32)},
    )
    return RefinerBatches(
        cases=[case],
        patch_size=patch,
        batch_size=BATCH,
        seed=0,
        stream=0,
        augmentation="device" if is_spoilt else "none",
        mirror_axes=(0, 1, 2),
        foreground_share=0.33,
        elastic=is_spoilt,
        rules=RefinerRules(structures=STRUCTURES, ignored=None, spacing_mm=SPACING_MM, is_spoilt=is_spoilt),
    )


@pytest.mark.parametrize("architecture, is_2d", BOTH_KINDS)
def test_a_batch_waits_for_its_masks_and_for_its_answers_and_the_step_for_nothing(architecture, is_2d, looks):
    spec = spec_of(architecture, is_2d)
    patch = patch_of(architecture, is_2d)
    voxels = int(np.prod(patch))
    batches = batches_for(patch, is_spoilt=True)
    state = state_of(network_there(spec))
    compute = compute_for(spec, patch)
    answer = answer_of(compute, state)
    state.network.train()
    for step in range(3):
        cut = batches.cut(step)
        looks.clear()
        with fake_device(), Asked() as of_batch:
            image, truth = batches.finish(cut, DEVICE, answer)
        assert state.network.training
        assert image.shape == (BATCH, CHANNELS + CLICK_CHANNELS, *patch)
        assert (image.device, truth.device, truth.dtype) == (DEVICE, DEVICE, torch.int64)
        # Two masks of 16 bits; of samples that are looked at twice, a byte a voxel.
        assert looks[0] == BATCH * 2 * 2 * voxels
        assert len(looks) == 2, "no sample was looked at twice; let another step be tried"
        assert looks[1] % voxels == 0
        assert looks[1] <= BATCH * voxels
        assert of_batch.bytes_out == sum(looks)
        with fake_device(), Asked() as of_step:
            loss = train_step(compute, state, image, truth)
        assert loss.device == DEVICE
        assert of_step.bytes_out == 0
        assert of_step.bytes_in == 0
        assert torch.float64 not in of_batch.types | of_step.types  # which Apple's GPUs do not have
    assert all(parameter.grad.device == DEVICE for parameter in state.network.parameters())


def test_what_is_right_is_sent_as_a_byte_a_voxel(looks):
    """To the device: image in 16 bits and masks, four channels for it in 32 bits, and a byte of what is right."""
    patch = patch_of(CLICK_REFINER, False)
    batches = batches_for(patch, is_spoilt=False)
    cut = batches.cut(0)
    voxels = BATCH * int(np.prod(patch))
    with fake_device(), Asked() as cut_sent:
        cut.to(DEVICE)
    with fake_device(), Asked() as asked:
        batches.finish(cut, DEVICE)
    assert asked.bytes_in - cut_sent.bytes_in == voxels * (4 * CLICK_CHANNELS + 1)


@pytest.mark.parametrize("architecture, is_2d", BOTH_KINDS)
def test_validation_waits_for_masks_and_once_at_its_end(architecture, is_2d, looks):
    spec = spec_of(architecture, is_2d)
    patch = patch_of(architecture, is_2d)
    state = state_of(network_there(spec))
    batches = batches_for(patch, is_spoilt=False)
    with fake_device(), pytest.raises(DataDependentOutputException):  # by the figures, which the host is told
        validate_refiner(compute_for(spec, patch), state, batches, 3)
    assert looks == [BATCH * 2 * 2 * int(np.prod(patch))] * 3  # and none is looked at twice
    assert not state.network.training


@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("architecture, is_2d", BOTH_KINDS)
def test_an_answer_sends_its_window_once_and_takes_each_folds_odds_back(architecture, is_2d, folds, monkeypatch):
    """At a border of the image: back comes what lies inside, as numbers of 32 bits. Restoring is the host's there."""
    spec = spec_of(architecture, is_2d)
    patch = patch_of(architecture, is_2d)
    networks = tuple(network_there(spec).eval() for _ in range(folds))
    window = WindowNetworks(networks=networks, patch_size=patch, device=DEVICE, precision=torch.float32)
    image = torch.zeros(CHANNELS, *(size + 6 for size in patch))
    given = np.zeros(patch, bool)
    clicks = [tuple(size // 2 for size in patch)]
    channels = refiner_channels(given, given, clicks, [], SPACING_MM)
    monkeypatch.setattr(window_networks, "_on_host", lambda odds: np.zeros(odds.cpu().shape, np.float32))
    with fake_device(), Asked() as asked:
        odds = window.odds(image, (-1, -2, 0), channels)
    z, y, x = patch
    assert odds.shape == (z - 1, y - 2, x)
    assert asked.bytes_in == 4 * (CHANNELS + CLICK_CHANNELS) * z * y * x
    assert asked.bytes_out == 4 * odds.size * folds
    assert torch.float64 not in asked.types


@pytest.mark.parametrize("architecture, is_2d", BOTH_KINDS)
def test_each_size_of_patches_is_compiled_once(architecture, is_2d):
    """Steps, looks of the network as it is in between, and validation, on two sizes of patches: two graphs in all."""
    torch._dynamo.reset()
    counter = CompileCounter()
    spec = spec_of(architecture, is_2d)
    patch = patch_of(architecture, is_2d)
    larger = (patch[0], patch[1] + 8, patch[2])
    network = build_network(spec)
    state = state_of(network)
    state.forward = torch.compile(network, backend=counter, fullgraph=True, dynamic=False)
    look = answer_of(compute_for(spec, patch), state)
    for size in (patch, larger):
        image = torch.rand(2, spec.in_channels, *size)
        truth = torch.ones(2, *size, dtype=torch.long)
        for looked_at in (1, 2):
            look(image[:looked_at])
            refiner_loss(state.forward(image), truth).backward()
    assert counter.frame_count == 2
    torch._dynamo.reset()
