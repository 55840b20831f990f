"""What a plan will take on the device at hand: time from a probe, memory from a real step where there is a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod

import torch
from torch import nn

from segfw.base.device import (
    convolution_flops,
    device_memory_gb,
    device_name,
    free_device_memory_gb,
    keep_freed_pages,
    pick_precision,
)
from segfw.base.records import UserError
from segfw.dataset.cases import DatasetManifest
from segfw.networks import fastest_layout
from segfw.networks.norm import InstanceNorm3d
from segfw.planning.fingerprint import Fingerprint
from segfw.planning.memory import CONTEXT_GB, Measured, measure_step
from segfw.planning.plan import Configuration, Plan
from segfw.planning.planner import make_plan, planned_memory_gb
from segfw.planning.published import EPOCHS, STEPS_PER_EPOCH
from segfw.planning.request import PlanRequest

# Away from a CPU a training step is taken to reach this share of the speed of a single large convolution: norms, loss
# and optimiser take the rest. Good for an estimate, not for a promise.
SHARE_OF_PEAK = 0.6
PROBE_FEATURES = 32
PROBE_EDGES = (16, 40, 40)
PROBE_STEPS = 4  # of which the fastest counts
USE_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the memory for tensors, tried in turn where a real step needs more
DESKTOP_GB = 1.5  # that a context of CUDA and what draws the screen take of a card at most; more is of other work
NOMINAL = 1.1  # a card has a little less memory than its name says

Measurements = Mapping[str, Measured | None]  # by configuration; None where a step needs more memory than there is


@dataclass(frozen=True, kw_only=True)
class TrainingDevice:
    """What planning must know of the device that is to train.

    ``memory_gb`` is None where it has no memory of its own to fill. ``measure`` runs a configuration's training step
    within so many GB and says what it took, or None if that is too little; it is None itself where nothing can be
    measured. ``free_gb`` is what other programs leave of the memory, asked before steps are measured.
    """

    name: str
    memory_gb: float | None
    probe_flops: Callable[[], float]  # operations per second of training; after steps were measured: it takes memory
    measure: Callable[[Configuration, float], Measured | None] | None = None
    free_gb: Callable[[], float] | None = None


def training_device(device: torch.device) -> TrainingDevice:
    """The device as planning sees it."""

    def measure(configuration: Configuration, memory_gb: float) -> Measured | None:
        patch = configuration.patch_size
        return measure_step(configuration.network, patch, configuration.batch_size, device, memory_gb)

    return TrainingDevice(
        name=device_name(device),
        memory_gb=device_memory_gb(device),
        probe_flops=lambda: training_flops(device),
        measure=measure if device.type == "cuda" else None,
        free_gb=lambda: free_device_memory_gb(device),
    )


@cache
def training_flops(device: torch.device) -> float:
    """Operations per second that training is expected to reach on ``device``, from a probe of part of a second.

    One probe a process, so that all that is said of a plan and its trainings goes by one pace.
    """
    if device.type == "cpu":
        return _flops_of_layers(device)
    return convolution_flops(device) * SHARE_OF_PEAK


def _flops_of_layers(device: torch.device) -> float:
    """Operations per second of two convolutions with their norms and activations, forward and backward.

    A share of a convolution's speed will not do: on an AMD processor training reaches 0.6 of it, on an Intel processor
    with matrix units 0.2, because these make convolutions alone faster.
    """
    keep_freed_pages()  # as training does
    layers: list[nn.Module] = []
    for _ in range(2):
        convolution = nn.Conv3d(PROBE_FEATURES, PROBE_FEATURES, 3, padding=1)
        layers += [convolution, InstanceNorm3d(PROBE_FEATURES, affine=True), nn.LeakyReLU(0.01, inplace=True)]
    network = fastest_layout(nn.Sequential(*layers).to(device))
    image = torch.randn(1, PROBE_FEATURES, *PROBE_EDGES, device=device, requires_grad=True)
    precision = pick_precision("auto", device, for_training=True)
    best_s = float("inf")
    for _ in range(PROBE_STEPS):
        started_s = time.perf_counter()
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            output = network(image)
        output.float().sum().backward()
        best_s = min(best_s, time.perf_counter() - started_s)
    forward = len(layers) / 3 * 2 * 27 * PROBE_FEATURES**2 * prod(PROBE_EDGES)
    return 3 * forward / best_s  # backward computes gradients of inputs and of weights, each as much again


def hours_per_fold(step_s: float) -> float:
    """Hours that training of the published length takes with steps of ``step_s`` seconds."""
    return step_s * EPOCHS * STEPS_PER_EPOCH / 3600


def plan_for_device(
    manifest: DatasetManifest,
    fingerprint: Fingerprint,
    request: PlanRequest,
    device: TrainingDevice,
    *,
    use_shares: Sequence[float] = USE_SHARES,
) -> Plan:
    """The plan with its expected time and, where steps can be measured, with memory that suffices.

    Every configuration is run for two steps within the memory planned for; while one of them needs more, the plan is
    made anew with the next of ``use_shares``. If none is enough, the plan for the smallest of them is taken, and what
    does not fit is without a measurement. A plan that is to be as published is measured but never changed.
    """
    request = replace(request, gpu_memory_gb=planned_memory_gb(request, device.memory_gb))
    first_share, *smaller_shares = use_shares
    plan = make_plan(manifest, fingerprint, request, use_share=first_share)
    measured = measure_plan(plan, device)
    for use_share in () if request.as_published else smaller_shares:
        if all(_fits(step, plan.gpu_memory_gb) for step in measured.values()):
            break
        print(f"a real training step needs more memory than predicted; planning again for {use_share:.0%} of it")
        try:
            plan = make_plan(manifest, fingerprint, request, use_share=use_share)
        except UserError:  # not even the smallest patch fits: the plan before is as small as they get
            break
        measured = measure_plan(plan, device)
    return with_estimates(plan, device, measured)


def measure_plan(plan: Plan, device: TrainingDevice) -> Measurements:
    """What a real step of each configuration takes; nothing where that cannot be told.

    A card that is smaller than the memory planned for cannot tell, nor one that others work on: what they leave today
    says nothing of the memory that the training will find. Both is said.
    """
    if device.measure is None or device.memory_gb is None:
        return {}
    if plan.gpu_memory_gb > device.memory_gb * NOMINAL:
        planned = f"planned for {plan.gpu_memory_gb:g} GB"
        print(f"{planned}, which cannot be checked here: the GPU has {device.memory_gb:.1f} GB")
        return {}
    memory_gb = min(plan.gpu_memory_gb, device.memory_gb)
    free_gb = memory_gb if device.free_gb is None else device.free_gb()
    if free_gb < memory_gb - DESKTOP_GB:
        print(
            f"planned for {memory_gb:.3g} GB, which cannot be checked now: other programs leave {free_gb:.1f} GB of "
            "the GPU; a training needs them ended, or a plan with a smaller --gpu-memory-gb"
        )
        return {}
    return {name: device.measure(configuration, memory_gb) for name, configuration in plan.configurations.items()}


def _fits(measured: Measured | None, memory_gb: float) -> bool:
    return measured is not None and measured.held_gb + CONTEXT_GB <= memory_gb


def with_estimates(plan: Plan, device: TrainingDevice, measured: Measurements) -> Plan:
    """The plan with what each configuration took in a real step, and how long its training is expected to take."""
    configurations = {}
    for name, configuration in plan.configurations.items():
        estimate = configuration.estimate.model_copy(
            update={"device": device.name, "measured": measured.get(name, configuration.estimate.measured)}
        )
        hours = hours_per_fold(estimate.step_s_on(device.name, device.probe_flops))
        estimate = estimate.model_copy(update={"hours_per_fold": hours})
        configurations[name] = configuration.model_copy(update={"estimate": estimate})
    return plan.model_copy(update={"configurations": configurations})
