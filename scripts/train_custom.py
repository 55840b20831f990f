"""Trains a network, a loss and an augmentation of your own on a work folder: copy this file, change the functions.

segfw plan-and-preprocess RAW WORK && python scripts/train_custom.py WORK [3d_fullres] [0] [--epochs N] [--device auto]

Everything else - patches, schedule, checkpoints, validation - is as in segfw train. The model is loaded with the same
network again: segfw.predict(WORK, IMAGES, MASKS, build=small_network).
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segfw import CasesFailed, UserError, train
from segfw.networks.losses import Target, deep_supervision_loss, downsample
from segfw.networks.spec import NetworkSpec
from segfw.planning.plan import Configuration

FOCUS = 2.0  # how much more a voxel counts the less likely the network thinks its truth
CONTRAST = (0.7, 1.4)
NOISE = 0.1  # of the deviation of a normalised image


class SmallNetwork(nn.Module):
    """Five convolutions at full resolution: (B, C, Z, Y, X) -> logits (B, K, Z, Y, X), in training a list of them."""

    def __init__(self, spec: NetworkSpec, features: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, dilation in ((spec.in_channels, 1), (features, 2), (features, 4), (features, 1)):
            kernel, spread = (1, 3, 3) if spec.is_2d else (3, 3, 3), (1 if spec.is_2d else dilation, dilation, dilation)
            conv = nn.Conv3d(inputs, features, kernel, padding="same", dilation=spread)
            layers += [conv, nn.InstanceNorm3d(features, affine=True), nn.LeakyReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv3d(features, spec.classes, 1))

    def forward(self, image_bczyx: Tensor) -> Tensor | list[Tensor]:
        logits = self.layers(image_bczyx)
        return [logits] if self.training else logits


def small_network(spec: NetworkSpec) -> nn.Module:
    """The network for a plan: ``spec`` says how many channels and classes, and whether it works on slices."""
    return SmallNetwork(spec)


def focal_and_dice(configuration: Configuration, target: Target) -> Callable[[Sequence[Tensor], Tensor], Tensor]:
    """The published loss and, for plain labels, focal entropy (Lin et al. 2017) beside it."""
    if target.regions:
        raise UserError("this example's loss is for plain labels; regions overlap and need a sigmoid")

    def loss(outputs: Sequence[Tensor], classes_bzyx: Tensor) -> Tensor:
        finest = outputs[0].float()
        truth = downsample(classes_bzyx, finest.shape[2:])
        ignored = -100 if target.ignore is None else target.ignore  # -100 is no class
        entropy = F.cross_entropy(finest, truth, ignore_index=ignored, reduction="none")
        focal = ((1 - (-entropy).exp()) ** FOCUS * entropy).mean()
        return focal + deep_supervision_loss(outputs, classes_bzyx, configuration.batch_dice, target)

    return loss


def contrast_and_noise(image_bczyx: Tensor, classes_bzyx: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One sample, changed: it takes the place of all other augmentation, so turns and mirroring belong here too.

    What is drawn comes from ``rng``, which is made of the seed, the step and the sample: a run can then be repeated.
    """
    factor = rng.uniform(*CONTRAST)
    noise = torch.from_numpy(rng.normal(0, NOISE, image_bczyx.shape)).to(image_bczyx)
    return image_bczyx * factor + noise, classes_bzyx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("configuration", nargs="?", default="3d_fullres")
    parser.add_argument("fold", nargs="?", default="0")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps-per-epoch", type=int, default=50)
    parser.add_argument("--device", default="auto")
    args = vars(parser.parse_args())
    try:
        scores = train(**args, build=small_network, build_loss=focal_and_dice, augment=contrast_and_noise)
    except (UserError, CasesFailed) as error:  # the sentence, without a traceback
        sys.exit(f"train_custom.py: {error}")
    if scores is not None:
        print(f"mean Dice of whole validation cases: {scores.foreground_mean.dice:.4f}")


if __name__ == "__main__":
    main()
