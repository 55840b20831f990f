"""Patch and batch that fit a budget: as published, counted in elements, or by the bytes that a step really takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from segfw.base.records import UserError
from segfw.networks.spec import NetworkSpec
from segfw.planning import rules
from segfw.planning.memory import StepCost, step_cost, usable_bytes
from segfw.planning.presets import Preset, with_z
from segfw.planning.topology import Topology

TOO_SMALL = "not even the smallest patch fits into --gpu-memory-gb; give more memory"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What a patch is chosen on: spacing and median shape in the network's axis order, two or three of each."""

    spacing_mm: tuple[float, ...]
    median_shape: tuple[float, ...]
    dataset_voxels: float
    channels: int
    classes: int
    published_classes: int  # entries in dataset.json's labels, by which nnU-Net counts

    @property
    def is_2d(self) -> bool:
        """True if patches are slices."""
        return len(self.spacing_mm) == 2


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A patch that fits, its network and batch; ``was_shrunk`` if memory kept it from being larger."""

    topology: Topology
    network: NetworkSpec
    batch_size: int
    was_shrunk: bool
    batch_limit: str  # in words

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """Voxels (z, y, x)."""
        return with_z(self.topology.patch_size, 1)


Choose = Callable[[Grid, Preset], Choice]
CostOf = Callable[[NetworkSpec], StepCost]


def patch_ladder(grid: Grid, preset: Preset) -> Iterator[Topology]:
    """Patches from the largest worth having down to the smallest possible; the budget only decides where to stop.

    Each is one step shorter than the one before along the axis that covers most of the median case, or the next such
    axis where that one cannot be shorter.
    """
    largest = rules.first_patch(grid.spacing_mm, grid.median_shape)
    rung: Topology | None = preset.topology(grid.spacing_mm, largest)
    while rung is not None:
        yield rung
        rung = _one_step_shorter(rung, grid, preset)


def _one_step_shorter(topology: Topology, grid: Grid, preset: Preset) -> Topology | None:
    """The next rung of the ladder; None if no axis can be shorter."""
    patch = topology.patch_size
    axes = list(range(len(patch)))
    while axes:
        axis = axes.pop(rules.axis_to_shrink([patch[a] for a in axes], [grid.median_shape[a] for a in axes]))
        smaller = list(patch)
        # The multiple is taken after a trial step: 224 lies between 256 and 192, but only if 32 suffices there.
        smaller[axis] -= topology.multiple_of[axis]
        step = preset.topology(grid.spacing_mm, smaller).multiple_of[axis]
        smaller[axis] = patch[axis] - step
        if smaller[axis] <= 0:
            continue
        shorter = preset.topology(grid.spacing_mm, smaller)
        if prod(shorter.patch_size) < prod(patch):  # else padding undid the step
            return shorter
    return None


def choose_published(grid: Grid, preset: Preset, *, memory_gb: float) -> Choice:
    """nnU-Net's rule: convolution elements against a budget that grows with the memory; for its own families only."""
    published = preset.published
    if published is None:
        raise UserError(f"nnU-Net has no network of the family {preset.architecture}; plan without --as-published")
    if grid.is_2d:
        reference_batch = rules.REFERENCE_BATCH_2D
        smallest = published.smallest_2d
        elements_in_memory = published.elements_2d
    else:
        reference_batch = rules.REFERENCE_BATCH_3D
        smallest = rules.SMALLEST_BATCH
        elements_in_memory = published.elements_3d
    budget = elements_in_memory * (memory_gb / preset.memory_gb)
    for rung, topology in enumerate(patch_ladder(grid, preset)):
        counted = preset.network(topology, grid.channels, grid.published_classes)
        patch = with_z(topology.patch_size, 1)
        elements = counted.convolution_elements(patch)
        if elements / reference_batch * smallest > budget:
            continue
        fitting = round(budget / elements * reference_batch)
        share = round(grid.dataset_voxels * published.share / prod(patch))
        return Choice(
            topology=topology,
            network=preset.network(topology, grid.channels, grid.classes),
            batch_size=max(min(fitting, share), rules.SMALLEST_BATCH),
            was_shrunk=rung > 0,
            batch_limit=_limit_in_words(fitting, share, None, published.share),
        )
    raise UserError(TOO_SMALL)


def choose_by_memory(
    grid: Grid, preset: Preset, *, memory_gb: float, use_share: float = 1.0, cost_of: CostOf = step_cost
) -> Choice:
    """The largest patch of which the smallest batch fits, then as many patches as fit and are of use.

    ``use_share`` leaves a part of the memory free. A larger budget never gives a smaller patch, nor fewer of the same.
    """
    usable = usable_bytes(memory_gb) * use_share
    most = rules.MOST_PATCHES_2D if grid.is_2d else rules.MOST_PATCHES_3D
    wanted = rules.REFERENCE_BATCH_2D if grid.is_2d else rules.SMALLEST_BATCH
    for rung, topology in enumerate(patch_ladder(grid, preset)):
        network = preset.network(topology, grid.channels, grid.classes)
        patch = with_z(topology.patch_size, 1)
        share = round(grid.dataset_voxels * rules.LARGEST_DATASET_SHARE / prod(patch))
        smallest = max(rules.SMALLEST_BATCH, min(wanted, share))
        # Autograd keeps at least the 16-bit output of every convolution: no need to count what exceeds even that.
        if preset.published is not None and 2 * network.convolution_elements(patch) * smallest > usable:
            continue
        fitting = cost_of(network).largest_batch(patch, usable)
        if fitting < smallest:
            continue
        return Choice(
            topology=topology,
            network=network,
            batch_size=max(min(fitting, share, most), rules.SMALLEST_BATCH),
            was_shrunk=rung > 0,
            batch_limit=_limit_in_words(fitting, share, most, rules.LARGEST_DATASET_SHARE),
        )
    raise UserError(TOO_SMALL)


def _limit_in_words(fitting: int, share: int, most: int | None, largest_share: float) -> str:
    if fitting <= min(share, most or fitting):
        return "as many as the memory holds"
    held = f"the memory would hold {fitting}, but"
    if share < rules.SMALLEST_BATCH:
        return f"{held} the data set is so small that the smallest batch is enough"
    if most is not None and most < share:
        return f"{held} beyond {most} patches a step takes longer and learns hardly more"
    return f"{held} a batch should not see over {largest_share:.0%} of all training voxels"
