"""What a plan will take on the device at hand: time from a probe, memory from a real step where there is a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import zip_longest
from typing import Literal

import torch

from segfw.base.device import convolution_flops, device_memory_gb, device_name
from segfw.base.records import UserError
from segfw.planning.memory import CONTEXT_GB, Measured, measure_step
from segfw.planning.plan import Configuration, Plan
from segfw.planning.presets import preset_called
from segfw.planning.published import EPOCHS, STEPS_PER_EPOCH

# A training step reaches this share of the speed of a single large convolution: norms, loss and optimiser take the
# rest. Measured on a CPU (python -m bench speed step); good for an estimate, not for a promise.
SHARE_OF_PEAK = 0.6
USE_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the memory for tensors, tried in turn where a real step needs more

NOMINAL = 1.1  # a card has a little less memory than its name says

MakePlan = Callable[[float], Plan]  # the share of the memory that may be used -> plan
Measure = Callable[[Configuration], Measured | None]


def planned_memory_gb(
    wanted: float | Literal["auto"] | None, preset: str, device: torch.device, *, as_published: bool = False
) -> float:
    """GB to plan for: as wanted; 'auto' is the device's; None the published.

    Unless the plan is to be as published, None is the device's memory if that is less.
    """
    if wanted is not None and wanted != "auto":
        return wanted
    published_gb, available_gb = preset_called(preset).memory_gb, device_memory_gb(device)
    if available_gb is None or (as_published and wanted is None):
        return published_gb
    return available_gb if wanted == "auto" else min(published_gb, available_gb)


def expected(make: MakePlan, device: torch.device, *, fixed: bool = False) -> Plan:
    """The plan with its expected time on ``device`` and, on CUDA, with memory that was measured and that suffices.

    Every configuration is run for two steps within the memory planned for; while one of them needs more, the plan is
    made anew with less. A ``fixed`` plan is measured but never changed. A card that is smaller than the memory planned
    for cannot tell, which is said.
    """
    plan = make(1.0)
    available_gb = device_memory_gb(device)
    if device.type == "cuda" and plan.gpu_memory_gb > available_gb * NOMINAL:
        print(f"planned for {plan.gpu_memory_gb:g} GB, which cannot be checked here: the GPU has {available_gb:.1f} GB")
    elif device.type == "cuda":
        measure = partial(_measure, device=device, memory_gb=min(plan.gpu_memory_gb, available_gb))
        plan = measured_to_fit(make, measure, (1.0,) if fixed else USE_SHARES)
    flops = training_flops(device)
    return _with_estimates(
        plan,
        lambda configuration: {
            "device": device_name(device),
            "hours_per_fold": hours_per_fold(configuration.estimate.teraflop_per_step * 1e12 / flops),
        },
    )


def training_flops(device: torch.device) -> float:
    """Operations per second that training is expected to reach on ``device``, from a probe of part of a second."""
    return convolution_flops(device) * SHARE_OF_PEAK


def hours_per_fold(step_s: float) -> float:
    """Hours that training of the published length takes with steps of ``step_s`` seconds."""
    return step_s * EPOCHS * STEPS_PER_EPOCH / 3600


def measured_to_fit(make: MakePlan, measure: Measure, shares: tuple[float, ...]) -> Plan:
    """The plan for the largest of ``shares`` with which every configuration fits, and what was measured.

    If none does, the plan for the smallest share; what does not fit is then without a measurement.
    """
    for share, next_share in zip_longest(shares, shares[1:]):
        try:
            plan = make(share)
        except UserError:  # not even the smallest patch fits: the plan before is as small as they get
            if share == shares[0]:
                raise
            break
        measured = {name: measure(configuration) for name, configuration in plan.configurations.items()}
        if all(_fits(result, plan.gpu_memory_gb) for result in measured.values()):
            break
        if next_share is not None:
            print(f"a real training step needs more memory than predicted; planning again for {next_share:.0%} of it")
    return _with_estimates(plan, lambda configuration: {"measured": measured[configuration.name]})


def _fits(measured: Measured | None, memory_gb: float) -> bool:
    return measured is not None and measured.held_gb + CONTEXT_GB <= memory_gb


def _measure(configuration: Configuration, device: torch.device, memory_gb: float) -> Measured | None:
    return measure_step(configuration.network, configuration.patch_size, configuration.batch_size, device, memory_gb)


def _with_estimates(plan: Plan, values: Callable[[Configuration], dict]) -> Plan:
    """The plan with further values in the estimate of each configuration."""
    configurations = {}
    for name, configuration in plan.configurations.items():
        estimate = configuration.estimate.model_copy(update=values(configuration))
        configurations[name] = configuration.model_copy(update={"estimate": estimate})
    return plan.model_copy(update={"configurations": configurations})
