"""Families of networks, each with the memory that it is planned for unless asked otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from segfw.base.records import UserError
from segfw.base.words import did_you_mean
from segfw.images.geometry import Shape, as_shape
from segfw.networks.monai import doubled
from segfw.networks.spec import MEDNEXT, PLAIN, RESIDUAL_ENCODER, SEGRESNET, SWIN_UNETR, NetworkSpec
from segfw.planning import rules
from segfw.planning.topology import Topology, catching_up_topology, even_topology, unet_topology

DEEPEST = 14  # stages that the published lists of blocks go down to
SWIN_FEATURES = 48


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How nnU-Net fills the memory that a family was published with, in convolution elements.

    ``smallest_2d`` is the batch that the published rule keeps in two dimensions, by which it stops shrinking the
    patch; ``share`` its limit on the share of all training voxels in one batch.
    """

    elements_3d: float
    elements_2d: float
    smallest_2d: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A family of networks: blocks per stage and how axes are halved, and the memory that it is planned for unasked.

    ``decoder_convs`` is the same for all stages. ``published`` is None for families that nnU-Net does not plan.
    """

    architecture: str
    encoder_blocks: tuple[int, ...]
    decoder_convs: int
    memory_gb: float
    published: Budget | None = None
    topology: Callable[..., Topology] = unet_topology  # (spacing, patch size) -> topology
    features: Callable[[int, bool], tuple[int, ...]] = rules.features_per_stage  # (stages, is 2-D) -> features

    def network(self, topology: Topology, channels: int, classes: int) -> NetworkSpec:
        """The network of this family for a topology; raises UserError if that is deeper than the family goes."""
        stages = len(topology.strides)
        if stages > len(self.encoder_blocks):
            raise UserError(f"the images would need a network of {stages} stages; give a coarser --spacing-mm")
        return NetworkSpec(
            architecture=self.architecture,
            in_channels=channels,
            classes=classes,
            features=self.features(stages, topology.is_2d),
            strides=tuple(with_z(stride, 1) for stride in topology.strides),
            kernels=tuple(with_z(kernel, 1) for kernel in topology.kernels),
            encoder_blocks=self.encoder_blocks[:stages],
            decoder_convs=(self.decoder_convs,) * (stages - 1),
        )


def with_z(values: Sequence[int], z: int) -> Shape:
    """(z, y, x) of (y, x); three values as they are."""
    return as_shape((z, *values) if len(values) == 2 else values)


def _residual(memory_gb: float, elements_3d: float, elements_2d: float) -> Preset:
    return Preset(
        architecture=RESIDUAL_ENCODER,
        encoder_blocks=(1, 3, 4, *(6,) * (DEEPEST - 3)),
        decoder_convs=1,
        memory_gb=memory_gb,
        published=Budget(
            elements_3d=elements_3d, elements_2d=elements_2d, smallest_2d=rules.REFERENCE_BATCH_2D, share=1.0
        ),
    )


def _doubled(stages: int, is_2d: bool) -> tuple[int, ...]:
    return doubled(rules.FIRST_FEATURES, stages)


def _swin_features(stages: int, is_2d: bool) -> tuple[int, ...]:
    return (SWIN_FEATURES, *doubled(SWIN_FEATURES, stages - 1))  # the first two stages have the same


PRESETS = {
    "plain": Preset(
        architecture=PLAIN,
        encoder_blocks=(2,) * DEEPEST,
        decoder_convs=2,
        memory_gb=8,
        published=Budget(
            elements_3d=560e6,
            elements_2d=85e6,
            smallest_2d=rules.SMALLEST_BATCH,
            share=rules.LARGEST_DATASET_SHARE,
        ),
    ),
    "resenc-m": _residual(memory_gb=8, elements_3d=680e6, elements_2d=135e6),
    "resenc-l": _residual(memory_gb=24, elements_3d=2100e6, elements_2d=380e6),
    "resenc-xl": _residual(memory_gb=40, elements_3d=3600e6, elements_2d=560e6),
    # MONAI's networks, in the sizes they were published in. The memory is our choice: with it a batch of two has
    # patches of about 128 voxels an edge, on which all of them were published.
    "segresnet": Preset(
        architecture=SEGRESNET,
        encoder_blocks=(1, 2, 2, 4, 4),
        decoder_convs=1,
        memory_gb=8,
        topology=partial(catching_up_topology, most_stages=5),
        features=_doubled,
    ),
    "swin-unetr": Preset(
        architecture=SWIN_UNETR,
        encoder_blocks=(1, 2, 2, 2, 2, 1),
        decoder_convs=1,
        memory_gb=24,
        topology=partial(even_topology, most_stages=6, fixed=True),
        features=_swin_features,
    ),
    "mednext": Preset(
        architecture=MEDNEXT,
        encoder_blocks=(2,) * 5,
        decoder_convs=2,
        memory_gb=24,
        topology=partial(even_topology, most_stages=5),
        features=_doubled,
    ),
}


def preset_called(name: str) -> Preset:
    """The preset of that name; raises UserError listing those there are."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}{did_you_mean(name, PRESETS)}")
    return PRESETS[name]
