"""Families of networks, each with the memory that it was published with."""

from __future__ import annotations

from dataclasses import dataclass

from segfw.networks.spec import PLAIN, RESIDUAL_ENCODER, NetworkSpec
from segfw.planning import rules
from segfw.planning.topology import Topology
from segfw.records import UserError

DEEPEST = 14  # stages that the published lists of blocks go down to


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A family of networks, and nnU-Net's budget for it in convolution elements at ``memory_gb``.

    ``published_smallest_2d`` is the batch that the published rule keeps in two dimensions, by which it stops shrinking
    the patch; ``published_share`` its limit on the share of all training voxels in one batch.
    """

    architecture: str
    encoder_blocks: tuple[int, ...]
    decoder_convs: int
    memory_gb: float
    elements_3d: float
    elements_2d: float
    published_smallest_2d: int
    published_share: float

    def network(self, topology: Topology, channels: int, classes: int) -> NetworkSpec:
        """The network of this family for a topology; raises UserError if that is deeper than the family goes."""
        stages = len(topology.strides)
        if stages > len(self.encoder_blocks):
            raise UserError(f"the images would need a network of {stages} stages; give a coarser --spacing-mm")
        return NetworkSpec(
            architecture=self.architecture,
            in_channels=channels,
            classes=classes,
            features=rules.features_per_stage(stages, topology.is_2d),
            strides=tuple(with_z(stride, 1) for stride in topology.strides),
            kernels=tuple(with_z(kernel, 1) for kernel in topology.kernels),
            encoder_blocks=self.encoder_blocks[:stages],
            decoder_convs=(self.decoder_convs,) * (stages - 1),
        )


def with_z(values: tuple[int, ...], z: int) -> tuple[int, int, int]:
    """(z, y, x) of (y, x); three values as they are."""
    return (z, *values) if len(values) == 2 else values


def _residual(memory_gb: float, elements_3d: float, elements_2d: float) -> Preset:
    return Preset(
        architecture=RESIDUAL_ENCODER,
        encoder_blocks=(1, 3, 4, *(6,) * (DEEPEST - 3)),
        decoder_convs=1,
        memory_gb=memory_gb,
        elements_3d=elements_3d,
        elements_2d=elements_2d,
        published_smallest_2d=rules.REFERENCE_BATCH_2D,
        published_share=1.0,
    )


PRESETS = {
    "plain": Preset(
        architecture=PLAIN,
        encoder_blocks=(2,) * DEEPEST,
        decoder_convs=2,
        memory_gb=8,
        elements_3d=560e6,
        elements_2d=85e6,
        published_smallest_2d=rules.SMALLEST_BATCH,
        published_share=rules.LARGEST_DATASET_SHARE,
    ),
    "resenc-m": _residual(memory_gb=8, elements_3d=680e6, elements_2d=135e6),
    "resenc-l": _residual(memory_gb=24, elements_3d=2100e6, elements_2d=380e6),
    "resenc-xl": _residual(memory_gb=40, elements_3d=3600e6, elements_2d=560e6),
}


def preset_called(name: str) -> Preset:
    """The preset of that name; raises UserError listing those there are."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
