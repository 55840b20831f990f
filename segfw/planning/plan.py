"""The plan: every decision about a data set, complete and readable, kept as plan.json."""

from __future__ import annotations

from pydantic import model_validator

from segfw.data.geometry import Shape
from segfw.data.manifest import Channel, LabelSet
from segfw.data.preprocess import Preprocessing
from segfw.networks.losses import Target
from segfw.networks.spec import NetworkSpec
from segfw.records import Record, UserError

PLAN_FILE = "plan.json"


class Cost(Record):
    """What a configuration is expected to take. Computed, not measured; ``segfw info`` says how."""

    training_memory_gb: float
    teraflop_per_step: float
    preprocessed_gb: float


class Configuration(Record):
    """One way to train on a data set. Patch size is in voxels, in the network's axis order, at the target spacing."""

    name: str
    preprocessing: Preprocessing
    median_shape: tuple[float, float, float]  # of the resampled cases, network axis order
    patch_size: Shape
    batch_size: int
    batch_dice: bool  # Dice of the loss over the whole batch instead of per patch
    mirror_axes: tuple[int, ...]
    network: NetworkSpec
    cost: Cost
    reasons: tuple[str, ...]

    @model_validator(mode="after")
    def _patch_fits_network(self) -> Configuration:
        factors = self.network.downsampling
        if any(size % factor for size, factor in zip(self.patch_size, factors)):
            raise ValueError(f"patch_size {self.patch_size} must be divisible by the network's downsampling {factors}")
        return self


class Plan(Record):
    """All configurations of a data set, and what the trained model must know about its input and output."""

    dataset: str
    preset: str
    gpu_memory_gb: float
    orientation: str  # rule by which images are oriented before anything else
    channels: tuple[Channel, ...]
    labels: LabelSet
    training_cases: int
    configurations: dict[str, Configuration]
    reasons: tuple[str, ...]

    def configuration(self, name: str) -> Configuration:
        """The configuration called ``name``; raises UserError listing those there are."""
        if name not in self.configurations:
            raise UserError(f"configuration {name!r} is not in the plan; it has {', '.join(self.configurations)}")
        return self.configurations[name]


def target_of(labels: LabelSet) -> Target:
    """What the outputs of a network for these labels mean, as its loss has to know."""
    return Target(regions=labels.region_classes, ignore=labels.ignored_class)
