"""The plan: every decision about a data set, complete and readable, kept as plan.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from segfw.base.file_names import PLAN_FILE as PLAN_FILE
from segfw.base.records import Record, UserError
from segfw.base.written_by_people import parse_json
from segfw.dataset.cases import Channel
from segfw.dataset.labels import LabelSet
from segfw.grid.preprocess import Preprocessing
from segfw.images.geometry import Shape, Spacing, as_spacing
from segfw.images.units import SCAN
from segfw.images.volume import CANONICAL, Orientation
from segfw.networks.losses import Target
from segfw.networks.spec import NetworkSpec
from segfw.planning.memory import Measured

ORIENTATION_FIELD = "orientation"  # of the file; in the code it is that of the configurations
TWO_D = "2d"
LOWRES = "3d_lowres"
FULLRES = "3d_fullres"
CASCADE = "3d_cascade_fullres"
REFINE = "3d_refine"  # the refiner: corrects one structure of a mask around clicks, and predicts none by itself


class Estimate(Record):
    """What a configuration is expected to take to train; ``measured`` is None where no GPU was there to measure on."""

    training_memory_gb: float  # all tensors at the peak of a training step, in 16 bit
    teraflop_per_step: float
    ram_gb: float  # with the data set kept in memory, which is done where there is room
    disk_gb: float  # preprocessed data, before compression
    measured: Measured | None = None
    device: str = ""  # on which the hours were estimated and the memory measured
    hours_per_fold: float | None = None

    def step_s(self, flops: float) -> float:
        """Seconds of a training step where ``flops`` operations per second are reached."""
        return self.teraflop_per_step * 1e12 / flops

    def step_s_on(self, device: str, flops: Callable[[], float]) -> float:
        """Seconds of a training step on the device of that name: measured if it was there, else by what it reaches."""
        if self.measured is not None and self.measured.step_s is not None and device == self.device:
            return self.measured.step_s
        return self.step_s(flops())


class Configuration(Record):
    """One way to train on a data set. Patch size is in voxels, in the network's axis order, at the target spacing."""

    name: str
    previous_stage: str | None = None  # configuration whose labels are further channels of this one
    previous_through_file: bool = False  # handed on over the image's own grid, as nnU-Net does, not from grid to grid
    is_refiner: bool = (
        False  # learns from the previous stage's masks of cases that it never saw, one structure a sample
    )
    preprocessing: Preprocessing
    median_shape: tuple[float, float, float]  # of the resampled cases, network axis order
    patch_size: Shape
    batch_size: int
    batch_dice: bool  # Dice of the loss over the whole batch instead of per patch
    mirror_axes: tuple[int, ...]  # network axis order, as the next
    swapped_labels: tuple[tuple[int, int, int], ...] = ()  # (axis, class, class): exchanged where it is mirrored
    network: NetworkSpec
    estimate: Estimate
    reasons: tuple[str, ...]

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Plans without a refiner are as they were before there were such."""
        content: dict[str, object] = handler(self)
        if not self.is_refiner:
            content.pop("is_refiner", None)
        return content

    @model_validator(mode="after")
    def _patch_fits_network(self) -> Configuration:
        if min(*self.patch_size, self.batch_size) < 1:
            raise ValueError(f"patch_size {self.patch_size} and batch_size {self.batch_size} must be 1 or more")
        factors = self.network.downsampling
        if any(size % factor for size, factor in zip(self.patch_size, factors)):
            raise ValueError(f"patch_size {self.patch_size} must be divisible by the network's downsampling {factors}")
        return self

    def with_patch(self, patch_size: Shape, source: Path | str) -> Configuration:
        """The same on other patches; raises UserError naming ``source``, which says so, if the network cannot."""
        if patch_size == self.patch_size:
            return self
        if any(size % factor for size, factor in zip(patch_size, self.network.downsampling)):
            raise UserError(
                f"{source}: was trained on patches of {patch_size} voxels, which the network of the plan cannot take "
                f"(it halves them by {self.network.downsampling}); restore the file, or plan.json"
            )
        return self.model_copy(update={"patch_size": patch_size})

    @property
    def swapped_pairs(self) -> dict[int, tuple[tuple[int, int], ...]]:
        """By mirrored axis the pairs of classes that change places; axes that change none are left out."""
        axes = dict.fromkeys(axis for axis, _, _ in self.swapped_labels)
        return {
            axis: tuple((first, second) for at, first, second in self.swapped_labels if at == axis) for axis in axes
        }

    @property
    def data_name(self) -> str:
        """Configuration whose preprocessed data it is trained on: second stages and refiners share those of others."""
        if self.is_refiner:
            return TWO_D if self.preprocessing.spacing_mm[0] is None else FULLRES
        return FULLRES if self.name == CASCADE else self.name

    @property
    def spacing_of_clicks_mm(self) -> Spacing:
        """Target spacing of the grid that clicks are on; across single slices, which have none, that of the plane."""
        across, *plane = self.preprocessing.spacing_mm
        known = [length for length in plane if length is not None]
        return as_spacing(max(known) if length is None else length for length in (across, *plane))

    @property
    def previous_classes(self) -> int:
        """Classes, background included, of the previous stage's labels that the network sees; 1 without one."""
        return self.network.in_channels - len(self.preprocessing.normalization) + 1


class Plan(Record):
    """All configurations of a data set, and what the trained model must know about its input and output."""

    dataset: str
    preset: str
    gpu_memory_gb: float
    as_published: bool
    channels: tuple[Channel, ...]
    labels: LabelSet
    training_cases: int
    length_unit: str = SCAN.length  # of spacings; 'px' where no image told the size of its pixels
    configurations: dict[str, Configuration]
    reasons: tuple[str, ...]
    planned_time_s: float | None = None  # of training a fold, that the networks were chosen for; None: as published
    chosen: str = ""  # the configuration to train in that time
    request: str = ""  # digest of the data and of the PlanRequest that it was made for
    is_imported: bool = False  # nnU-Net trained the networks, whose own masks are wanted

    @property
    def orientation(self) -> Orientation:
        """Rule by which images are oriented before anything else, the same in all configurations."""
        rules = [configuration.preprocessing.orientation for configuration in self.configurations.values()]
        return rules[0] if rules else CANONICAL

    @model_validator(mode="after")
    def _one_orientation(self) -> Plan:
        self._require_orientation(self.orientation)
        return self

    def _require_orientation(self, wanted: object) -> None:
        for name, configuration in self.configurations.items():
            found = configuration.preprocessing.orientation
            if found != wanted:
                raise ValueError(f"images are oriented {wanted!r}, but by {name} {found!r}")

    @model_serializer(mode="wrap")
    def _with_orientation(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Files say the orientation once for the whole plan, too, where a reader looks for it."""
        content = handler(self)
        if self.length_unit == SCAN.length:  # as in every plan of before
            del content["length_unit"]
        if self.planned_time_s is None:
            del content["planned_time_s"], content["chosen"]
        return {**content, ORIENTATION_FIELD: self.orientation}

    @classmethod
    def parse(cls, text: str | bytes, source: Path | str) -> Self:
        """The plan in a text of JSON; raises UserError naming ``source`` and the field that is wrong."""
        try:
            content = parse_json(text, source)
        except UserError:
            return super().parse(text, source)  # which says where it is no JSON
        if not isinstance(content, dict) or ORIENTATION_FIELD not in content:
            raise UserError(f"{source}: field {ORIENTATION_FIELD!r}: Field required; restore the file or make it again")
        written = content.pop(ORIENTATION_FIELD)
        plan = super().parse(json.dumps(content), source)
        try:
            plan._require_orientation(written)
        except ValueError as error:
            raise UserError(
                f"{source}: field {ORIENTATION_FIELD!r}: {error}; restore the file or make it again"
            ) from None
        return plan

    def without_estimates(self) -> Plan:
        """The decisions alone, without what depends on the machine they were made on."""
        nothing = Estimate(training_memory_gb=0, teraflop_per_step=0, ram_gb=0, disk_gb=0)
        decisions = {
            name: configuration.model_copy(update={"estimate": nothing})
            for name, configuration in self.configurations.items()
        }
        reasons = self.reasons[:-1] if self.chosen else self.reasons  # the last one counts steps as they were measured
        return self.model_copy(update={"configurations": decisions, "request": "", "reasons": reasons})

    @property
    def predicting(self) -> tuple[str, ...]:
        """Names of the configurations that predict masks: all but the refiner."""
        return tuple(name for name, each in self.configurations.items() if not each.is_refiner)

    def configuration(self, name: str) -> Configuration:
        """The configuration called ``name``; raises UserError listing those there are."""
        if name not in self.configurations:
            raise UserError(f"configuration {name!r} is not in the plan; it has {', '.join(self.configurations)}")
        return self.configurations[name]


def target_of(labels: LabelSet) -> Target:
    """What the outputs of a network for these labels mean, as its loss has to know."""
    return Target(regions=labels.region_classes, ignore=labels.ignored_class)
