"""From what a data set is to how it is trained: spacing, patch, network and batch, with the reason of each choice."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from segfw.data.geometry import Shape, Spacing
from segfw.data.manifest import DatasetManifest
from segfw.data.normalize import Normalization, normalization_kind
from segfw.data.preprocess import Preprocessing
from segfw.networks.spec import NetworkSpec
from segfw.planning import rules
from segfw.planning.fingerprint import Fingerprint
from segfw.planning.memory import GIGABYTE, training_memory_gb
from segfw.planning.plan import Configuration, Cost, Plan
from segfw.planning.topology import Topology, unet_topology
from segfw.records import UserError

DEFAULT_MEMORY_GB = 8.0
CONFIGURATIONS = ("2d", "3d_fullres")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A family of networks and the budget it was published with, in convolution elements at ``memory_gb``."""

    architecture: str
    memory_gb: float
    elements_3d: float
    elements_2d: float
    batch_3d: int = 2
    batch_2d: int = 12
    convs_per_stage: int = 2


PRESETS = {"plain": Preset(architecture="plain-unet", memory_gb=8, elements_3d=560e6, elements_2d=85e6)}


def make_plan(
    manifest: DatasetManifest,
    fingerprint: Fingerprint,
    *,
    preset: str = "plain",
    gpu_memory_gb: float | None = None,
    configurations: tuple[str, ...] | None = None,
    spacing_mm: Spacing | None = None,
) -> Plan:
    """The plan for a data set; ``spacing_mm`` (z, y, x) overrides the target spacing.

    Raises UserError for an unknown preset or configuration, or one that the data do not allow.
    """
    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}; choose from {', '.join(PRESETS)}")
    memory_gb = DEFAULT_MEMORY_GB if gpu_memory_gb is None else gpu_memory_gb
    if memory_gb <= 0:
        raise UserError(f"--gpu-memory-gb is {memory_gb}; give the memory of the GPU in GB, such as 8")
    if spacing_mm is not None and min(spacing_mm) <= 0:
        raise UserError(f"--spacing-mm is {spacing_mm}; give three lengths in mm above 0, for z, y and x")
    spacings = [case.spacing_mm for case in fingerprint.cases]
    shapes = [case.cropped_shape for case in fingerprint.cases]
    target = spacing_mm or rules.target_spacing(spacings, shapes)
    median = rules.median_resampled_shape(shapes, spacings, target)
    order = rules.axis_order(target, median)
    possible = [name for name in CONFIGURATIONS if name == "2d" or median[order[0]] != 1]
    wanted = list(configurations) if configurations else possible
    for name in wanted:
        if name not in CONFIGURATIONS:
            raise UserError(f"unknown configuration {name!r}; choose from {', '.join(CONFIGURATIONS)}")
        if name not in possible:
            raise UserError(f"configuration {name!r} needs volumes, but most images have a single slice; use 2d")
    normalization = choose_normalization(manifest, fingerprint)
    task = Task(
        preset=PRESETS[preset],
        budget=memory_gb / PRESETS[preset].memory_gb,
        channels=len(manifest.channels),
        classes=manifest.labels.outputs,
        cases=len(fingerprint.cases),
        target_mm=tuple(target[axis] for axis in order),
        median_shape=tuple(median[axis] for axis in order),
    )
    planned = {name: plan_configuration(name, task, order, normalization) for name in wanted}
    return Plan(
        dataset=manifest.name,
        preset=preset,
        gpu_memory_gb=memory_gb,
        orientation="canonical",
        channels=manifest.channels,
        labels=manifest.labels,
        training_cases=len(fingerprint.cases),
        configurations=planned,
        reasons=_dataset_reasons(manifest, normalization, target, order, spacing_mm is not None),
    )


def choose_normalization(manifest: DatasetManifest, fingerprint: Fingerprint) -> tuple[Normalization, ...]:
    """CT by data-set statistics; the rest per image, inside the non-zero mask where the crop removed over a quarter."""
    rules_of_channels = []
    for channel, stats in zip(manifest.channels, fingerprint.intensities):
        kind = normalization_kind(channel.name)
        inside = kind == "zscore" and fingerprint.median_crop_ratio < rules.MASK_CROP_RATIO
        rules_of_channels.append(Normalization(kind=kind, inside_mask=inside, stats=stats))
    return tuple(rules_of_channels)


@dataclass(frozen=True, kw_only=True)
class Task:
    """The figures that planning one configuration needs; spacing and shape in the network's axis order."""

    preset: Preset
    budget: float  # memory given, as a multiple of the memory the preset was published with
    channels: int
    classes: int
    cases: int
    target_mm: Spacing
    median_shape: tuple[float, float, float]


def plan_configuration(
    name: str, task: Task, order: tuple[int, int, int], normalization: tuple[Normalization, ...]
) -> Configuration:
    """Patch, network and batch for '2d' or '3d_fullres'."""
    is_2d = name == "2d"
    skip = 1 if is_2d else 0
    spacing, median = task.target_mm[skip:], task.median_shape[skip:]
    preset = task.preset
    reference = task.budget * (preset.elements_2d if is_2d else preset.elements_3d)
    reference_batch = preset.batch_2d if is_2d else preset.batch_3d
    topology, spec, shrunk = _fit_patch(task, spacing, median, reference, reference_batch)
    patch = _with_z(topology.patch_size, 1)
    dataset_voxels = prod(task.median_shape) * task.cases
    elements = spec.convolution_elements(patch)
    batch = rules.batch_size(elements, reference, reference_batch, prod(patch), dataset_voxels)
    cost = Cost(
        training_memory_gb=training_memory_gb(spec, patch, batch),
        teraflop_per_step=3 * batch * spec.forward_flops(patch) / 1e12,
        preprocessed_gb=prod(task.median_shape) * task.cases * (2 * task.channels + 1) / GIGABYTE,
    )
    return Configuration(
        name=name,
        preprocessing=Preprocessing(
            axis_order=order,
            spacing_mm=(None if is_2d else task.target_mm[0], *task.target_mm[1:]),
            normalization=normalization,
        ),
        median_shape=task.median_shape,
        patch_size=patch,
        batch_size=batch,
        batch_dice=is_2d or wants_lowres(task, patch),
        mirror_axes=(1, 2) if is_2d else (0, 1, 2),
        network=spec,
        cost=cost,
        reasons=_configuration_reasons(spec, patch, batch, task, elements, reference, reference_batch, shrunk),
    )


def _fit_patch(
    task: Task,
    spacing: tuple[float, ...],
    median: tuple[float, ...],
    reference: float,
    reference_batch: int,
) -> tuple[Topology, NetworkSpec, int]:
    """Shrinks the first patch until two of it fit the budget; also returns how often it shrank."""
    topology = unet_topology(spacing, rules.first_patch(spacing, median))
    spec = _network(task, topology)
    shrunk = 0
    while spec.convolution_elements(_with_z(topology.patch_size, 1)) / reference_batch * 2 > reference:
        axis = rules.axis_to_shrink(topology.patch_size, median)
        smaller = list(topology.patch_size)
        # The multiple is taken after a trial step: 224 lies between 256 and 192, but only if 32 suffices there.
        smaller[axis] -= topology.multiple_of[axis]
        step = unet_topology(spacing, smaller).multiple_of[axis]
        smaller[axis] = topology.patch_size[axis] - step
        if smaller[axis] <= 0:
            raise UserError("not even the smallest patch fits into --gpu-memory-gb; give more memory")
        topology = unet_topology(spacing, smaller)
        spec = _network(task, topology)
        shrunk += 1
    return topology, spec, shrunk


def wants_lowres(task: Task, patch_size: Shape) -> bool:
    """True if the recipe plans a low-resolution stage beside this full resolution: its patches see too little.

    The spacing is made coarser until a patch covers a quarter of the median case; the stage is dropped if that has
    not at least halved the voxels. The full resolution then takes Dice over the batch, because single patches of
    large cases often lack whole labels.
    """
    spacing, voxels, patch_voxels = task.target_mm, prod(task.median_shape), prod(patch_size)
    full_voxels, reference = voxels, task.budget * task.preset.elements_3d
    while patch_voxels / voxels < rules.LOWRES_COVERAGE:
        spacing = rules.coarser_spacing(spacing)
        shape = [size * fine / coarse for size, fine, coarse in zip(task.median_shape, task.target_mm, spacing)]
        voxels = prod(shape)
        topology, _, _ = _fit_patch(
            task, spacing, tuple(round(size) for size in shape), reference, task.preset.batch_3d
        )
        patch_voxels = prod(topology.patch_size)
    return full_voxels / voxels >= rules.LOWRES_WORTH


def _network(task: Task, topology: Topology) -> NetworkSpec:
    stages = len(topology.strides)
    is_2d = len(topology.patch_size) == 2
    convs = task.preset.convs_per_stage
    return NetworkSpec(
        architecture=task.preset.architecture,
        in_channels=task.channels,
        classes=task.classes,
        features=rules.features_per_stage(stages, is_2d),
        strides=tuple(_with_z(stride, 1) for stride in topology.strides),
        kernels=tuple(_with_z(kernel, 1) for kernel in topology.kernels),
        encoder_convs=(convs,) * stages,
        decoder_convs=(convs,) * (stages - 1),
    )


def _with_z(values: tuple[int, ...], z: int) -> Shape:
    return (z, *values) if len(values) == 2 else values


def _dataset_reasons(
    manifest: DatasetManifest,
    normalization: tuple[Normalization, ...],
    target: Spacing,
    order: tuple[int, int, int],
    is_given: bool,
) -> tuple[str, ...]:
    spacing = " x ".join(f"{value:.4g}" for value in target)
    source = "given by --spacing-mm" if is_given else f"the median of {len(manifest.cases)} cases"
    reasons = [f"Target spacing (z, y, x) {spacing} mm: {source}."]
    if order != (0, 1, 2):
        reasons.append(
            f"The network sees the axes in the order {''.join('zyx'[axis] for axis in order)}: coarsest first."
        )
    for channel, rule in zip(manifest.channels, normalization):
        kind, inside = rule.kind, " inside the non-zero voxels" if rule.inside_mask else ""
        how = {"ct": "clipped and scaled with data-set statistics of the foreground", "zscore": "mean 0, deviation 1"}
        reasons.append(
            f"Channel {channel.name!r}: {how.get(kind, kind)}{inside} "
            f"({'CT has absolute units' if kind == 'ct' else 'per image'})."
        )
    return tuple(reasons)


def _configuration_reasons(
    spec: NetworkSpec,
    patch: Shape,
    batch: int,
    task: Task,
    elements: int,
    reference: float,
    reference_batch: int,
    shrunk: int,
) -> tuple[str, ...]:
    size = " x ".join(str(edge) for edge in patch)
    covered = min(1.0, prod(patch) / prod(task.median_shape))
    why = "reduced until it fits the memory" if shrunk else "as large as the median case needs"
    fitting = round(reference / elements * reference_batch)
    if batch == fitting:
        limit = "as many as the memory holds"
    elif batch < fitting:
        limit = f"the memory would hold {fitting}, but a batch should not see over 5 % of all training voxels"
    else:
        limit = "the smallest allowed"
    return (
        f"Patch {size} voxels, {why}; it covers {covered:.0%} of the median case.",
        f"U-Net with {len(spec.features)} stages: axes are halved while they keep at least 4 voxels at the bottom.",
        f"Batch of {batch}: {limit}.",
    )
