"""The refiner, ``3d_refine``: planned from a plan that is there, so that it can be added to what is trained already.

It corrects one structure of a mask around clicks, by anybody's computer while somebody waits. So its window and its
features follow from what two processor cores do in a moment, and not from the memory of a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from math import prod

import torch

from segfw.base.device import autocast, keep_freed_pages, pick_precision
from segfw.base.records import GIGABYTE, UserError
from segfw.base.resources import cpu_count
from segfw.images.geometry import Shape
from segfw.networks import build_network, fastest_layout
from segfw.networks.spec import CLICK_CHANNELS, CLICK_REFINER, NetworkSpec
from segfw.planning import rules
from segfw.planning.fitting import TOO_SMALL, CostOf
from segfw.planning.for_time import FEWEST_FEATURES, WANTED_STEPS, steps_in_time
from segfw.planning.memory import step_cost, usable_bytes
from segfw.planning.plan import FULLRES, REFINE, TWO_D, Configuration, Estimate, Plan
from segfw.planning.presets import PRESETS, with_z

LONGEST_WAIT_S = 1.5  # of one forward pass on two cores: with all else a click is then answered within 2 s
CORES = 2
WINDOW_EDGES = (96, 80, 64)  # in voxels where these are isotropic, else as long in mm along each axis; largest first
SLICE_EDGES = (256, 192, 128)  # the same of single slices
FIRST_FEATURES = (24, 16)  # of the first stage: one structure in a window asks less of a network than all of a case
MOST_PATCHES = 8  # a step; samples differ in structure, mistake and clicks, so that very few would be noise
SECOND_LOOKS = 1.14  # work of a step with that on samples which the network first predicts without a gradient
TIMED_PASSES = 3  # of which the fastest counts

# A network and the window that it is given -> seconds of a forward pass on two processor cores
TimeForward = Callable[[NetworkSpec, Shape], float]


def first_of_refiner(plan: Plan, asked: Collection[str], trained: Collection[str]) -> str:
    """The configuration whose held-out masks a refiner learns from: one that is asked for beside it, or trained.

    Else the one that the planned time is best spent on, else the full resolution. ``trained`` are those that have all
    their folds, the preferred one first. No second stage of a cascade, which would need its own first stage as well.
    """
    able = [name for name in plan.predicting if plan.configurations[name].previous_stage is None]
    preferred = (*reversed(tuple(asked)), *trained, plan.chosen, FULLRES, *able)
    return next(name for name in preferred if name in able)


def with_refiner(
    plan: Plan,
    first: str,
    flops: Callable[[], float],
    *,
    cost_of: CostOf = step_cost,
    time_forward: TimeForward | None = None,
) -> Plan:
    """The plan with a refiner that learns from masks of ``first``; all else stays as it is.

    Parameters
    ----------
    plan
        That of the other configurations.
    first
        The one that finds the masks, from ``first_of_refiner``.
    flops
        Operations per second in training, asked for where the plan is for a given time.
    cost_of, time_forward
        What a training step costs, and what a forward pass takes on two cores; measured if None.

    Raises
    ------
    UserError
        If there is no grid to refine on, or not even the smallest window fits the memory.
    """
    base = _base(plan)
    timed = time_forward or forward_s
    usable = usable_bytes(plan.gpu_memory_gb)
    time_s = plan.planned_time_s
    narrowest = () if time_s is None else (FEWEST_FEATURES,)
    found = _candidates(base, plan.training_cases, first, cost_of, usable, narrowest)
    candidates = [each for each in found if each is not None]
    if not candidates:
        raise UserError(TOO_SMALL)
    if time_s is not None:
        learnable = [each for each in candidates if steps_in_time(each, time_s, flops()) >= WANTED_STEPS]
        candidates = learnable or candidates[-1:]
    for chosen in candidates:
        seconds = timed(chosen.network, chosen.patch_size)
        if seconds <= LONGEST_WAIT_S:
            break
    chosen = chosen.model_copy(update={"reasons": _reasons(chosen, base, seconds)})
    return plan.model_copy(update={"configurations": {**plan.configurations, REFINE: chosen}})


def _base(plan: Plan) -> Configuration:
    """The configuration whose preprocessed data a refiner shares."""
    for name in (FULLRES, TWO_D):
        if name in plan.configurations:
            return plan.configurations[name]
    raise UserError(
        f"{REFINE} works on the grid of {FULLRES} or {TWO_D}, and the plan has only {', '.join(plan.configurations)}"
    )


def _candidates(
    base: Configuration, cases: int, first: str, cost_of: CostOf, usable: float, narrowest: tuple[int, ...]
) -> list[Configuration | None]:
    """From the largest window and network to the smallest; None for what does not fit the memory.

    The smallest window comes with the features of ``narrowest``, too: for a short time, in which they learn more.
    """
    is_flat = base.preprocessing.spacing_mm[0] is None
    spacing_mm = base.preprocessing.spacing_mm[1:] if is_flat else base.preprocessing.spacing_mm
    known_mm = [length for length in spacing_mm if length is not None]
    median = base.median_shape[1:] if is_flat else base.median_shape
    plain = PRESETS["plain"]
    channels = len(base.preprocessing.normalization) + CLICK_CHANNELS
    found: dict[tuple[Shape, int], Configuration | None] = {}
    edges = SLICE_EDGES if is_flat else WINDOW_EDGES
    for edge in edges:
        topology = plain.topology(known_mm, rules.patch_of_edge(edge, known_mm, median))
        patch = with_z(topology.patch_size, 1)
        for features in (*FIRST_FEATURES, *(narrowest if edge == edges[-1] else ())):
            network = plain.network(topology, channels, 2)
            most = max(network.features)
            widths = tuple(min(features * 2**stage, most) for stage in range(len(network.features)))
            network = network.model_copy(update={"architecture": CLICK_REFINER, "features": widths})
            if (patch, features) not in found:
                found[patch, features] = _configuration(base, cases, first, network, patch, cost_of, usable)
    return list(found.values())


def _configuration(
    base: Configuration,
    cases: int,
    first: str,
    network: NetworkSpec,
    patch: Shape,
    cost_of: CostOf,
    usable: float,
) -> Configuration | None:
    """The refiner with that network and window; None if not even the smallest batch fits the memory."""
    cost = cost_of(network)
    fitting = cost.largest_batch(patch, usable)
    if fitting < rules.SMALLEST_BATCH:
        return None
    share = round(prod(base.median_shape) * cases * rules.LARGEST_DATASET_SHARE / prod(patch))
    batch = max(min(fitting, share, MOST_PATCHES), rules.SMALLEST_BATCH)
    teraflop = cost.flops(patch, batch) * SECOND_LOOKS / 1e12
    hours = base.estimate.hours_per_fold
    return Configuration(
        name=REFINE,
        previous_stage=first,
        is_refiner=True,
        preprocessing=base.preprocessing,
        median_shape=base.median_shape,
        patch_size=patch,
        batch_size=batch,
        batch_dice=False,
        mirror_axes=base.mirror_axes,
        swapped_labels=base.swapped_labels,
        network=network,
        estimate=Estimate(
            training_memory_gb=cost.peak_bytes(patch, batch) / GIGABYTE,
            teraflop_per_step=teraflop,
            ram_gb=base.estimate.ram_gb,
            disk_gb=base.estimate.disk_gb,
            device=base.estimate.device,
            hours_per_fold=None if hours is None else hours * teraflop / base.estimate.teraflop_per_step,
        ),
        reasons=(),
    )


def forward_s(network: NetworkSpec, patch: Shape) -> float:
    """Seconds of a forward pass on two processor cores, in the precision that is faster there.

    Where this process may use one only, half of what it takes there.
    """
    keep_freed_pages()
    cpu = torch.device("cpu")
    threads = torch.get_num_threads()
    cores = min(CORES, cpu_count())
    torch.set_num_threads(cores)
    try:
        precision = pick_precision("auto", cpu)
        built = fastest_layout(build_network(network)).eval()
        image = torch.randn(1, network.in_channels, *patch)
        passes = []
        with torch.inference_mode(), autocast(cpu, precision):
            for _ in range(TIMED_PASSES):
                started_s = time.perf_counter()
                built(image)
                passes.append(time.perf_counter() - started_s)
    finally:
        torch.set_num_threads(threads)
    return min(passes) * cores / CORES


def _reasons(chosen: Configuration, base: Configuration, seconds: float) -> tuple[str, ...]:
    """Window, speed and batch."""
    size = " x ".join(map(str, chosen.patch_size))
    wait = f"a forward pass takes {seconds:.2g} s on {CORES} processor cores"
    if seconds > LONGEST_WAIT_S:
        wait = f"even so {wait}, more than the {LONGEST_WAIT_S:g} s wanted"
    return (
        f"Corrects one structure of a mask around clicks, on the grid of {base.name}, and predicts none by itself.",
        f"Window {size} voxels, {chosen.network.features[0]} features in the first stage: {wait}.",
        f"Batch of {chosen.batch_size}.",
    )
