"""The lesson of masked reconstruction: blocks of an image are hidden, and the network says what was there.

What is hidden is set to 0, the mean of normalised images. Only hidden voxels that lie inside of the image count.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from segfw.images.geometry import Shape, as_shape
from segfw.networks.losses import Join, Loss
from segfw.networks.spec import NetworkSpec
from segfw.pretraining.hidden_blocks import block_size, draw_hidden, hidden_share
from segfw.training.batches import Batches
from segfw.training.checkpoint import TrainState
from segfw.training.lesson import Judged, Lesson
from segfw.training.patch_validation import evaluated, first_batches
from segfw.training.step import Compute

PICTURES_FILE = "reconstructions.png"

# B batch, C channel, Z Y X space. The truth is (B, C + 1, Z, Y, X): the image, then 1 where a voxel counts.


def reconstructing_network(spec: NetworkSpec) -> NetworkSpec:
    """The plan's own network, with one output for each channel in place of the classes."""
    return spec.model_copy(update={"classes": spec.in_channels})


def reconstruction(spec: NetworkSpec) -> Lesson:
    """The lesson for a network that sees the image's channels alone."""
    return Lesson(
        pose=partial(hide_blocks, downsampling=spec.downsampling),
        truth_channels=spec.in_channels + 1,
        build_loss=build_hidden_loss,
        judge=judge_hidden,
        title="Pretraining on images alone",
        afterwards=f"What it makes of hidden voxels is in {PICTURES_FILE}; segfw train --init-from begins with it.",
    )


def hide_blocks(
    image_BCZYX: Tensor, inside_BZYX: Tensor, seeds: Sequence[int], downsampling: Shape
) -> tuple[Tensor, Tensor]:
    """The image with blocks set to 0, and the truth. What is hidden in a sample follows from its seed alone."""
    patch = as_shape(image_BCZYX.shape[2:])
    block = block_size(downsampling, patch)
    share = hidden_share(patch)
    drawn = [draw_hidden(np.random.default_rng([seed, 2]), patch, block, share) for seed in seeds]
    hidden_B1ZYX = torch.from_numpy(np.stack(drawn))[:, None].to(image_BCZYX.device)
    counted_B1ZYX = hidden_B1ZYX & inside_BZYX[:, None]
    truth = torch.cat((image_BCZYX, counted_B1ZYX.to(image_BCZYX.dtype)), 1)
    return image_BCZYX.masked_fill(hidden_B1ZYX, 0), truth


def hidden_sums(said_BCZYX: Tensor, truth: Tensor) -> Tensor:
    """Over all hidden voxels and channels: squared errors, squares of what was there, and how many there are."""
    wanted_BCZYX = truth[:, :-1]
    counted_B1ZYX = truth[:, -1:]
    error = ((said_BCZYX.float() - wanted_BCZYX).square() * counted_B1ZYX).sum()
    energy = (wanted_BCZYX.square() * counted_B1ZYX).sum()
    return torch.stack((error, energy, counted_B1ZYX.sum() * wanted_BCZYX.shape[1]))


def build_hidden_loss(join: Join) -> Loss:
    """The mean squared error of hidden voxels, by the finest output; ``join`` adds over processes."""

    def loss(outputs: Sequence[Tensor], truth: Tensor) -> Tensor:
        error, _, number = join(hidden_sums(outputs[0], truth))
        # Heads of coarser stages get a gradient, zero, for which data-parallel training would wait for ever.
        nothing = sum((output[:0].float().sum() for output in outputs[1:]), start=error.new_zeros(()))
        return error / number.clamp_min(1) + nothing

    return loss


@torch.no_grad()
def judge_hidden(compute: Compute, state: TrainState, batches: Batches, steps: int) -> Judged:
    """Loss, and which share of the squares of hidden voxels is explained, on the same patches in every epoch."""
    sums = torch.zeros(3, device=compute.device)
    with first_batches(compute, batches, steps) as cuts:
        for cut in cuts:
            shown, truth = batches.finish(cut, compute.device)
            sums += hidden_sums(evaluated(compute, state, shown), truth)
    error, energy, number = compute.ranks.sum(sums).tolist()
    explained = 1 - error / energy if energy else 0.0
    return Judged(figures={"val_loss": error / max(1.0, number), "val_explained": explained}, score=explained)
