"""Which kernels a training uses for its loss and its warp, each where it works; those of norms lie in its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segfw.images.geometry import Shape
from segfw.kernels.trial import agrees, has_triton, why_not
from segfw.networks.fused_losses import fused_sums
from segfw.networks.loss_sums import SumsOfOutputs, Target
from segfw.networks.losses import LABELS
from segfw.planning.patch_shape import is_in_plane
from segfw.training.augment import Warp, matrices_of, moves_of, tensor_on, warp
from segfw.training.augment_params import SpatialParams

TOLERANCE = 1e-4  # of images in float32; a voxel between two labels may take the other one
TRIAL_PATCH = (6, 7, 8)
TRIAL_BOX = (9, 8, 10)


@dataclass(frozen=True, kw_only=True)
class TrainingKernels:
    """``sums`` are those of the loss; None where plain operations make them."""

    sums: SumsOfOutputs | None = None
    warp: Warp = warp


def training_kernels(device: torch.device, target: Target = LABELS, *, are_wanted: bool) -> TrainingKernels:
    """Kernels in place of plain operations where they ``are_wanted`` and work; else a line says why not.

    That of the loss is for ``target``: labels and regions have one each.
    """
    if not are_wanted:
        return TrainingKernels()
    if not has_triton(device):
        print(f"--kernels on: {why_not(device)}; going on without them")
        return TrainingKernels()
    return TrainingKernels(sums=fused_sums(device, target), warp=fused_warp(device))


def fused_warp(device: torch.device) -> Warp:
    """A warp in one launch; the plain one where the kernel does not work on ``device``. Triton must be there."""
    rng = np.random.default_rng(0)
    turned = np.array([[0.9, 0.2, 0.1], [-0.2, 0.9, 0.0], [-0.1, 0.0, 1.1]])
    params = (SpatialParams(matrix=turned, mirrored=(1,)),)
    image = torch.from_numpy(rng.normal(size=(2, *TRIAL_BOX)).astype(np.float16)).to(device)
    mask = torch.from_numpy(rng.integers(0, 3, (1, *TRIAL_BOX)).astype(np.int16)).to(device)
    boxes = ((image, mask),)
    is_right = agrees(
        "warp",
        lambda: warp_in_one_launch(boxes, params, TRIAL_PATCH),
        lambda: warp(boxes, params, TRIAL_PATCH),
        tolerance=TOLERANCE,
    )
    return warp_in_one_launch if is_right else warp


def warp_in_one_launch(
    boxes: Sequence[tuple[Tensor, Tensor]], params: Sequence[SpatialParams], patch_size: Shape
) -> tuple[Tensor, Tensor]:
    """As ``warp``: patches (W, C, Z, Y, X) float32 and their masks (W, L, Z, Y, X)."""
    from segfw.kernels.warping import warp_at_once

    images = torch.cat([image.flatten(1) for image, _ in boxes], 1)
    masks = torch.cat([mask.flatten(1) for _, mask in boxes], 1)
    device = images.device
    is_flat = is_in_plane(patch_size)

    sizes_W3 = np.array([image.shape[1:] for image, _ in boxes])
    strides_W3 = np.stack([sizes_W3[:, 1] * sizes_W3[:, 2], sizes_W3[:, 2], np.ones(len(boxes), int)], 1)
    begins_W1 = np.cumsum([0, *sizes_W3.prod(1)[:-1]])[:, None]
    ahead_W3 = strides_W3 * (sizes_W3 > 1)
    if is_flat:
        ahead_W3[:, 0] = 0
    matrix_W9 = matrices_of(params).reshape(len(boxes), 9)
    numbers = tensor_on(np.concatenate([matrix_W9, (sizes_W3 - 1) / 2, sizes_W3 - 1.0], 1), device)
    places = tensor_on(np.concatenate([begins_W1, strides_W3, ahead_W3], 1), device, torch.int32)
    moves = [moves_of(drawn, patch_size, device) for drawn in params]
    image_WCN, mask_WLN = warp_at_once(images, masks, numbers, places, moves, patch_size, is_flat=is_flat)
    return image_WCN.unflatten(2, patch_size), mask_WLN.unflatten(2, patch_size)
