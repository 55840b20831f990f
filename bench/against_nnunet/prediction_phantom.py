"""A network with random weights whose classes form regions, for the phantom of ``python -m bench prediction``."""

from __future__ import annotations

import torch

from segfw.dataset.cases import Channel
from segfw.dataset.labels import LabelSet
from segfw.grid.normalize import IntensityStats, Normalization
from segfw.grid.preprocess import Preprocessing
from segfw.images.geometry import Shape
from segfw.networks import build_network
from segfw.networks.spec import PLAIN, NetworkSpec
from segfw.planning.plan import FULLRES, Configuration, Estimate, Plan

# A phantom of 300 x 512 x 512 voxels becomes 250 x 448 x 448 for the network.
PHANTOM_MM = (1.25, 0.7, 0.7)
NETWORK_MM = (1.5, 0.8, 0.8)
FEATURES = (32, 64, 128, 256, 320, 320)
SILENT_STAGES = 4  # regions of some 16 voxels


def phantom_plan(classes: int, patch_size: Shape, size: Shape, features: tuple[int, ...]) -> Plan:
    """A plan with one configuration: a plain U-Net that halves every axis as long as 4 voxels are left."""
    strides = [(1, 1, 1)]
    shape = patch_size
    for _ in features[1:]:
        strides.append(tuple(2 if side % 2 == 0 and side >= 8 else 1 for side in shape))
        shape = tuple(side // step for side, step in zip(shape, strides[-1]))
    stages = len(features)
    network = NetworkSpec(
        architecture=PLAIN,
        in_channels=1,
        classes=classes,
        features=features,
        strides=tuple(strides),
        kernels=((3, 3, 3),) * stages,
        encoder_blocks=(2,) * stages,
        decoder_convs=(2,) * (stages - 1),
    )
    stats = IntensityStats(
        mean=60, std=250, minimum=-1000, maximum=1000, median=60, percentile_00_5=-900, percentile_99_5=400
    )
    configuration = Configuration(
        name=FULLRES,
        preprocessing=Preprocessing(
            axis_order=(0, 1, 2), spacing_mm=NETWORK_MM, normalization=(Normalization(kind="ct", stats=stats),)
        ),
        median_shape=network_shape(size),
        patch_size=patch_size,
        batch_size=2,
        batch_dice=False,
        mirror_axes=(0, 1, 2),
        network=network,
        estimate=Estimate(training_memory_gb=0, teraflop_per_step=0, ram_gb=0, disk_gb=0),
        reasons=(),
    )
    names = ("background", *(f"label_{value}" for value in range(1, classes)))
    return Plan(
        dataset="phantom",
        preset="default",
        gpu_memory_gb=8,
        as_published=True,
        channels=(Channel(name="CT"),),
        labels=LabelSet(names=names, values=tuple(range(classes))),
        training_cases=1,
        configurations={FULLRES: configuration},
        reasons=(),
    )


def network_shape(size: Shape) -> Shape:
    return tuple(max(1, round(old / new * n)) for n, old, new in zip(size, PHANTOM_MM, NETWORK_MM))


@torch.no_grad()
def smooth_weights(spec: NetworkSpec, seed: int) -> dict[str, torch.Tensor]:
    """Random weights whose finest stages see only the next coarser one, and treat neighbouring voxels alike."""
    torch.manual_seed(seed)
    network = build_network(spec)
    for stage in range(min(SILENT_STAGES, len(spec.features) - 1)):
        convolutions = [block[0] for block in network.decoder[stage]]
        for layer in (network.up[stage], *convolutions):  # averages in space, which mix channels
            layer.weight.copy_(layer.weight.mean((2, 3, 4), keepdim=True).expand_as(layer.weight))
        convolutions[0].weight[:, spec.features[stage] :] = 0  # what skips the coarser stages
    return network.state_dict()
