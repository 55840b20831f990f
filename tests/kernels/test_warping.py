"""The warp in one launch against the plain one, for every kind of drawn transform."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from builders.interpreted import device_of_kernels
from segfw.images.geometry import Shape
from segfw.training.augment import warp
from segfw.training.augment_params import SpatialParams, draw_spatial, source_size
from segfw.training.training_kernels import fused_warp, warp_in_one_launch

SOLID = (12, 10, 14)
FLAT = (3, 14, 17)  # is turned in its plane alone
SLICE = (1, 20, 17)


@pytest.fixture
def device() -> torch.device:
    return device_of_kernels()


def drawn_warps(count: int, patch: Shape, *, elastic: bool) -> list[SpatialParams]:
    """Transforms of the recipe that need interpolation, bent ones among them if ``elastic``; half are mirrored."""
    rng = np.random.default_rng(3)
    found: list[SpatialParams] = []
    while len(found) < count:
        params = draw_spatial(rng, patch, (0, 1, 2), elastic)
        if params.is_warped and (params.control is not None) == elastic:
            found.append(replace(params, mirrored=(1,) if len(found) % 2 else (0, 2)))
    return found


def boxes_of(params: list[SpatialParams], patch: Shape, *, channels: int, kinds: int) -> list[tuple[Tensor, Tensor]]:
    """A box of its own size for each sample: images in half precision and masks of few labels, as cases hold them."""
    rng = np.random.default_rng(5)
    found = []
    for each in params:
        size = source_size(patch, each)
        image = rng.normal(size=(channels, *size)).astype(np.float16)
        mask = rng.integers(-1, 3, (kinds, *size)).astype(np.int16)
        found.append((torch.from_numpy(image), torch.from_numpy(mask)))
    return found


@pytest.mark.parametrize("patch", [SOLID, FLAT, SLICE])
@pytest.mark.parametrize("elastic", [False, True])
@pytest.mark.parametrize("channels, kinds", [(1, 1), (3, 2)])
def test_patches_are_those_of_plain_operations(patch, elastic, channels, kinds, device):
    params = drawn_warps(3, patch, elastic=elastic)
    boxes = boxes_of(params, patch, channels=channels, kinds=kinds)
    on_device = [(image.to(device), mask.to(device)) for image, mask in boxes]
    image, labels = warp_in_one_launch(on_device, params, patch)
    wanted_image, wanted_labels = warp(boxes, params, patch)
    assert image.dtype == torch.float32
    assert labels.dtype == torch.int16
    torch.testing.assert_close(image.cpu(), wanted_image, rtol=1e-4, atol=1e-4)
    # Where two labels weigh alike, rounding decides; of random labels that is one voxel in thousands.
    assert (labels.cpu() == wanted_labels).float().mean() > 0.999


def test_some_samples_are_bent_and_others_are_not(device):
    params = [*drawn_warps(1, SOLID, elastic=True), *drawn_warps(1, SOLID, elastic=False)]
    boxes = boxes_of(params, SOLID, channels=1, kinds=1)
    image, _ = warp_in_one_launch([(image.to(device), mask.to(device)) for image, mask in boxes], params, SOLID)
    wanted, _ = warp(boxes, params, SOLID)
    torch.testing.assert_close(image.cpu(), wanted, rtol=1e-4, atol=1e-4)


def test_a_quarter_turn_moves_voxels_where_a_human_expects(device):
    image = torch.zeros(1, 3, 7, 5)
    classes = torch.zeros(1, 3, 7, 5, dtype=torch.int16)
    image[0, 1, 1, 2] = 9.0  # two voxels above the centre of the middle slice
    classes[0, 1, 1, 2] = 4
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # output offset (y, x) -> input offset (-x, y)
    boxes = [(image.to(device), classes.to(device))]
    turned, labels = warp_in_one_launch(boxes, [SpatialParams(matrix=turn)], (3, 5, 7))
    assert labels[0, 0].nonzero().tolist() == [[1, 2, 5]]  # two voxels to the right of it
    assert turned[0, 0].nonzero().tolist() == [[1, 2, 5]]
    assert turned[0, 0, 1, 2, 5] == 9
    assert labels[0, 0, 1, 2, 5] == 4


def test_the_trial_takes_the_kernel_that_agrees(device):
    assert fused_warp(device) is warp_in_one_launch
