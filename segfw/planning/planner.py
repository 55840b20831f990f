"""From what a data set is to how it is trained: spacing, patch, network and batch of every configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np

from segfw.base.records import GIGABYTE, UserError
from segfw.base.words import count, did_you_mean
from segfw.dataset.cases import DatasetManifest
from segfw.grid.normalize import Normalization, normalization_kind
from segfw.grid.preprocess import Preprocessing
from segfw.images.geometry import Shape, Spacing, as_shape, as_spacing
from segfw.planning import reasons, rules
from segfw.planning.fingerprint import Fingerprint
from segfw.planning.fitting import Choice, Choose, CostOf, Grid, choose_by_memory, choose_published
from segfw.planning.memory import StepCost, step_cost
from segfw.planning.mirroring import Mirroring, find_mirroring, mirror_rules, side_axes
from segfw.planning.plan import CASCADE, FULLRES, LOWRES, REFINE, TWO_D, Configuration, Estimate, Plan
from segfw.planning.presets import PRESETS, Preset, preset_called
from segfw.planning.request import PlanRequest

Size = tuple[float, float, float]  # of a case, in voxels; halves occur in medians
TargetSpacing = tuple[float | None, float, float]  # None: each case's own

CONFIGURATIONS = (TWO_D, LOWRES, FULLRES, CASCADE)
KNOWN = (*CONFIGURATIONS, REFINE)  # the refiner is planned where it is asked for
PROCESS_GB = 1.2  # Python, PyTorch and the batches on their way; measured on a CPU


def make_plan(
    manifest: DatasetManifest,
    fingerprint: Fingerprint,
    request: PlanRequest = PlanRequest(),
    *,
    use_share: float = 1.0,
    cost_of: CostOf = step_cost,
) -> Plan:
    """The plan for a data set, as asked for; where the request leaves the memory open, for what the preset names.

    As published it follows nnU-Net in everything; otherwise patch and batch fill the memory, of which ``use_share`` may
    be used, by the bytes that a training step takes. Raises UserError for an unknown preset, one that nnU-Net has not
    if it is to be as published, or a budget that not even the smallest patch fits into. ``cost_of`` counts what a
    network's training step takes.
    """
    require_plannable(request)
    preset = preset_called(request.preset)
    memory_gb = planned_memory_gb(request, available_gb=None)
    dataset = _describe(manifest, fingerprint, request)
    if request.as_published:
        choose: Choose = partial(choose_published, memory_gb=memory_gb)
    else:
        choose = partial(choose_by_memory, memory_gb=memory_gb, use_share=use_share, cost_of=cost_of)
    planned = plan_configurations(dataset, preset, choose, cost_of)
    source = _spacing_source(fingerprint, dataset.spacing_mm, is_given=request.spacing_mm is not None)
    return Plan(
        dataset=manifest.name,
        preset=request.preset,
        gpu_memory_gb=memory_gb,
        as_published=request.as_published,
        channels=manifest.channels,
        labels=manifest.labels,
        training_cases=dataset.cases,
        length_unit=fingerprint.length_unit,
        configurations={name: planned[name] for name in CONFIGURATIONS if name in planned},
        reasons=(
            *reasons.of_dataset(
                manifest,
                dataset.normalization,
                dataset.spacing_mm,
                dataset.axis_order,
                spacing_source=source,
                length_unit=fingerprint.length_unit,
            ),
            *reasons.of_rule(
                as_published=request.as_published,
                has_lowres=LOWRES in planned,
                is_flat=dataset.is_flat,
                is_foreign=preset.published is None,
            ),
            *dataset.mirroring.reasons,
        ),
    )


def planned_memory_gb(request: PlanRequest, available_gb: float | None) -> float:
    """GB to plan for: as asked; 'auto' is the device's, of which ``available_gb`` may be had; None the published.

    Unless the plan is to be as published, None is the device's memory if that is less. Where the device has no memory
    of its own (``available_gb`` None), what the preset was published with is planned for.
    """
    asked = request.gpu_memory_gb
    if asked is not None and asked != "auto":
        return asked
    published_gb = preset_called(request.preset).memory_gb
    if available_gb is None or (request.as_published and asked is None):
        return published_gb
    return available_gb if asked == "auto" else min(published_gb, available_gb)


def request_digest(decisive: Mapping[str, object], manifest: DatasetManifest, fingerprint: Fingerprint) -> str:
    """Of the data and of what was asked of the plan, by which a work folder knows that its plan still holds.

    Work folders of earlier versions hold it, so that what is digested, and in which form, must stay as it is.
    """
    text = repr(sorted(decisive.items())) + manifest.model_dump_json() + fingerprint.model_dump_json()
    return hashlib.sha256(text.encode()).hexdigest()


def require_plannable(request: PlanRequest) -> None:
    """Raises UserError for what no data set can be planned with; nothing but the request need be known."""
    preset = preset_called(request.preset)
    memory_gb = planned_memory_gb(request, available_gb=None)
    if request.plans is None:
        require_known(request.configurations or (), KNOWN)
    if request.as_published and preset.published is None:
        published = ", ".join(name for name, row in PRESETS.items() if row.published is not None)
        raise UserError(
            f"--as-published plans as nnU-Net does, which has no {request.preset!r}; leave it out or take {published}"
        )
    if memory_gb <= 0:
        raise UserError(f"--gpu-memory-gb is {memory_gb}; give the memory of the GPU in GB, such as 8")
    if request.spacing_mm is not None and min(request.spacing_mm) <= 0:
        raise UserError(f"--spacing-mm is {request.spacing_mm}; give three lengths in mm above 0, for z, y and x")


def _spacing_source(fingerprint: Fingerprint, target_mm: Spacing, *, is_given: bool) -> str:
    if is_given:
        return "given by --spacing-mm"
    median_mm = np.median([case.spacing_mm for case in fingerprint.cases], axis=0)
    source = f"the median of {count(len(fingerprint.cases), 'case')}"
    is_median = np.allclose(median_mm, target_mm)
    return source if is_median else f"{source}, and a finer one across their few thick slices"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What planning needs to know of a data set. Spacing (z, y, x); median shape in the network's axis order."""

    spacing_mm: Spacing
    median_shape: tuple[float, float, float]
    axis_order: tuple[int, int, int]
    cases: int
    channels: int
    labels: int  # foreground labels, which a cascade hands on as channels
    outputs: int
    published_outputs: int
    normalization: tuple[Normalization, ...]
    mirroring: Mirroring
    as_published: bool

    @property
    def target_mm(self) -> Spacing:
        """Target spacing in the network's axis order."""
        return as_spacing(self.spacing_mm[axis] for axis in self.axis_order)

    @property
    def is_flat(self) -> bool:
        """True if the cases are single slices."""
        return self.median_shape[0] == 1


def _describe(manifest: DatasetManifest, fingerprint: Fingerprint, request: PlanRequest) -> Dataset:
    spacings = [case.spacing_mm for case in fingerprint.cases]
    shapes = [case.cropped_shape for case in fingerprint.cases]
    target = request.spacing_mm or rules.target_spacing(spacings, shapes)
    median = rules.median_resampled_shape(shapes, spacings, target)
    order = rules.axis_order(target, None if request.as_published else median)
    labels = manifest.labels
    return Dataset(
        spacing_mm=target,
        median_shape=as_spacing(median[axis] for axis in order),
        axis_order=order,
        cases=len(fingerprint.cases),
        channels=len(manifest.channels),
        labels=len(labels.values) - 1,
        outputs=labels.outputs,
        published_outputs=len(labels.regions or labels.values[1:]) + 1 + (labels.ignore is not None),
        normalization=choose_normalization(manifest, fingerprint),
        mirroring=find_mirroring(labels, fingerprint.cases, as_published=request.as_published),
        as_published=request.as_published,
    )


def choose_normalization(manifest: DatasetManifest, fingerprint: Fingerprint) -> tuple[Normalization, ...]:
    """CT by data-set statistics; the rest per image, inside the non-zero mask where the crop removed over a quarter."""
    rules_of_channels = []
    for channel, stats in zip(manifest.channels, fingerprint.intensities):
        kind = normalization_kind(channel.name)
        inside_mask = kind == "zscore" and fingerprint.median_crop_ratio < rules.MASK_CROP_RATIO
        rules_of_channels.append(Normalization(kind=kind, inside_mask=inside_mask, stats=stats))
    return tuple(rules_of_channels)


def plan_configurations(dataset: Dataset, preset: Preset, choose: Choose, cost_of: CostOf) -> dict[str, Configuration]:
    """Every configuration that the data call for (docs/reference/rules.md, 2.3 and 2.4).

    Slices always; volumes unless the cases are flat; a low resolution where a patch sees under a quarter of the median
    case, and with it the cascade. The full resolution then takes Dice over the batch, because single patches of large
    cases often lack whole labels.
    """

    def configuration(
        name: str,
        choice: Choice,
        spacing_mm: TargetSpacing,
        median: Size,
        *,
        batch_dice: bool,
        seen_as: Dataset = dataset,
    ) -> Configuration:
        cost = cost_of(choice.network)
        return _configuration(name, seen_as, choice, spacing_mm, median, cost, batch_dice=batch_dice)

    sliced = sliced_dataset(dataset)
    median = sliced.median_shape
    target = sliced.target_mm
    flat = choose(_grid(sliced, target[1:], median[1:], prod(median)), preset)
    in_plane = (None, target[1], target[2])
    planned = {TWO_D: configuration(TWO_D, flat, in_plane, median, batch_dice=True, seen_as=sliced)}
    if dataset.is_flat:
        return planned
    median = dataset.median_shape
    target = dataset.target_mm
    grid = _grid(dataset, target, median, prod(median))
    full = choose(grid, preset)
    lowres = _find_lowres(dataset, preset, choose, full)
    planned[FULLRES] = configuration(FULLRES, full, target, median, batch_dice=lowres is not None)
    if lowres is not None:
        planned[LOWRES] = configuration(LOWRES, lowres.choice, lowres.spacing_mm, lowres.median_shape, batch_dice=False)
        # The second stage sees the labels of the first as further channels, one for each.
        second = choose(replace(grid, channels=dataset.channels + dataset.labels), preset)
        planned[CASCADE] = configuration(CASCADE, second, target, median, batch_dice=True)
    return planned


def sliced_dataset(dataset: Dataset) -> Dataset:
    """The data set as slices see it: as volumes do, but slices never lie across the axis of left and right.

    As published they lie across the coarsest axis whatever that is.
    """
    sides = side_axes(dataset.mirroring)
    if dataset.as_published or dataset.is_flat or dataset.axis_order[0] not in sides:
        return dataset
    order = rules.axis_order(dataset.spacing_mm, never_first=sides)
    canonical = dict(zip(dataset.axis_order, dataset.median_shape))
    return replace(dataset, axis_order=order, median_shape=as_spacing(canonical[axis] for axis in order))


def _grid(dataset: Dataset, spacing_mm: tuple[float, ...], median: tuple[float, ...], case_voxels: float) -> Grid:
    return Grid(
        spacing_mm=spacing_mm,
        median_shape=median,
        dataset_voxels=case_voxels * dataset.cases,
        channels=dataset.channels,
        classes=dataset.outputs,
        published_classes=dataset.published_outputs,
    )


class _Lowres(NamedTuple):
    """A patch of the low resolution, its spacing, and the shape of the median case there."""

    choice: Choice
    spacing_mm: Spacing
    median_shape: Shape


def _find_lowres(dataset: Dataset, preset: Preset, choose: Choose, full: Choice) -> _Lowres | None:
    """The finest resolution at which a patch covers a quarter of the median case.

    None if the full resolution covers as much, or if the coarser case has not at least halved the voxels.
    """
    spacing_mm = dataset.target_mm
    full_voxels = prod(dataset.median_shape)
    voxels = full_voxels
    patch_voxels = prod(full.patch_size)
    found = None
    while patch_voxels / voxels < rules.LOWRES_COVERAGE:
        spacing_mm = rules.coarser_spacing(spacing_mm)
        # In the reference's order of operations: shapes are rounded, and halves must fall to the same side.
        exact = [fine / coarse * n for n, fine, coarse in zip(dataset.median_shape, dataset.target_mm, spacing_mm)]
        voxels = prod(exact)
        shape = as_shape(max(1, round(size)) for size in exact)
        found = _Lowres(choose(_grid(dataset, spacing_mm, shape, voxels), preset), spacing_mm, shape)
        patch_voxels = prod(found.choice.patch_size)
    return found if full_voxels / voxels >= rules.LOWRES_WORTH else None


def _configuration(
    name: str,
    dataset: Dataset,
    choice: Choice,
    spacing_mm: TargetSpacing,
    median: Size,
    cost: StepCost,
    *,
    batch_dice: bool,
) -> Configuration:
    patch = choice.patch_size
    batch = choice.batch_size
    slicing = reasons.of_slices(dataset.axis_order, side_axes(dataset.mirroring)) if name == TWO_D else ()
    mirroring = mirror_rules(dataset.mirroring, dataset.axis_order, patch, is_2d=name == TWO_D)
    disk_gb = stored_gb(median, dataset.cases, dataset.channels)
    return Configuration(
        name=name,
        previous_stage=LOWRES if name == CASCADE else None,
        preprocessing=Preprocessing(
            axis_order=dataset.axis_order, spacing_mm=spacing_mm, normalization=dataset.normalization
        ),
        median_shape=as_spacing(median),
        patch_size=patch,
        batch_size=batch,
        batch_dice=batch_dice,
        mirror_axes=mirroring.axes,
        swapped_labels=mirroring.swapped_labels,
        network=choice.network,
        estimate=Estimate(
            training_memory_gb=cost.peak_bytes(patch, batch) / GIGABYTE,
            teraflop_per_step=cost.flops(patch, batch) / 1e12,
            disk_gb=disk_gb,
            ram_gb=PROCESS_GB + disk_gb,
        ),
        reasons=(*slicing, *reasons.of_choice(choice, median, spacing_mm), *mirroring.reasons),
    )


def stored_gb(median_shape: Sequence[float], cases: int, channels: int) -> float:
    """GB of a configuration's preprocessed data before compression: 16 bit per channel, and 8 for the mask."""
    return prod(median_shape) * cases * (2 * channels + 1) / GIGABYTE


def require_known(wanted: Iterable[str], known: Collection[str]) -> None:
    """Raises UserError for a name that is none of the ``known`` configurations'."""
    for name in wanted:
        if name not in known:
            near = did_you_mean(name, known)
            raise UserError(f"unknown configuration {name!r}; choose from {', '.join(known)}{near}")


def require_possible(wanted: Sequence[str], plan: Plan, *, is_given: bool = False) -> None:
    """Raises UserError, with the reason, if a configuration is unknown or was not planned.

    A plan that ``is_given`` names its configurations as it likes.
    """
    for name in wanted:
        if name in plan.configurations:
            continue
        require_known([name], plan.configurations if is_given else KNOWN)
        if FULLRES not in plan.configurations:
            raise UserError(f"configuration {name!r} needs volumes, but most images have a single slice; use 2d")
        raise UserError(
            f"configuration {name!r} is not planned: a patch of 3d_fullres sees enough of the median case without a "
            "lower resolution; use 3d_fullres"
        )
