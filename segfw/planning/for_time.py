"""Planning for time: networks that a training of a given length on a given device can teach.

A network for a thousand epochs has millions of weights that a few thousand steps do not reach. One of half the features
takes a third to a quarter of the time per step, and in little time the steps are worth more: 2d slices of cine MRI,
6 minutes on one core, gave a Dice of 0.58 with 32 features in the first stage and 0.81 with 16 (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segfw.base.records import GIGABYTE
from segfw.networks.spec import PLAIN, RESIDUAL_ENCODER, NetworkSpec
from segfw.planning import rules
from segfw.planning.fitting import CostOf
from segfw.planning.memory import step_cost
from segfw.planning.plan import FULLRES, TWO_D, Configuration, Plan
from segfw.planning.structure_sizes import SMALL_SHARE

# On top of forward and backward: the optimiser, cutting and augmenting patches, validation on patches (a fifth of the
# steps, forward only) and on whole cases. Of 8 trainings on one core it was 1.3 in large networks and 1.7 in tiny ones.
OVERHEAD = 1.3
WANTED_STEPS = 1500  # of the smallest batch on the planned patch: below, a network of fewer features learns more
FEWEST_FEATURES = 8  # of the first stage
SCALABLE = (PLAIN, RESIDUAL_ENCODER)  # the others' features are part of what they are
FEWEST_STEPS_3D = 2000  # below, slices are learned better than volumes


def fitted_to_time(
    plan: Plan, time_budget_s: float, flops: float, shares: Mapping[str, float], *, cost_of: CostOf = step_cost
) -> Plan:
    """The plan with networks for so many seconds of training, at ``flops`` operations per second, and what to train.

    The features of all stages are halved until WANTED_STEPS fit, or the first stage has FEWEST_FEATURES, unless some
    structure is small. Spacing, patch and batch stay as they are planned for the memory: a run has fewer and smaller
    patches where time asks for that. ``shares`` are what part of a case each structure takes, as far as that is known.
    """
    configurations = dict(plan.configurations)
    if are_large(shares):
        configurations = {name: _fitted(each, time_budget_s, flops, cost_of) for name, each in configurations.items()}
    fitted = plan.model_copy(update={"configurations": configurations, "planned_time_s": time_budget_s})
    choice = choice_for_time(fitted, time_budget_s, flops)
    return fitted.model_copy(update={"chosen": choice.name, "reasons": (*plan.reasons, choice.reason)})


def are_large(shares: Mapping[str, float]) -> bool:
    """Whether a network of fewer features still finds all structures, which take such shares of a case.

    Large ones it finds, with 8: cine MRI 0.90, hippocampus 0.88. Organs of the neck, each under 0.2 % of a case, it
    loses nearly all: 0.12 in slices with 16 and 0.11 in volumes with 8, where slices with 32 have 0.69
    (docs/benchmarks.md).
    """
    return bool(shares) and min(shares.values()) >= SMALL_SHARE


@dataclass(frozen=True, kw_only=True)
class ChoiceForTime:
    """The configuration that a time is best spent on, and why, in a sentence."""

    name: str
    reason: str


def choice_for_time(plan: Plan, time_budget_s: float, flops: float) -> ChoiceForTime:
    """Volumes where the time has room for FEWEST_STEPS_3D of their patches, else slices, which take far less each.

    Plans that were made elsewhere, and have no such names, are taken in their own order.
    """
    minutes = f"{time_budget_s / 60:.3g} minutes"
    volumes = plan.configurations.get(FULLRES)
    slices = plan.configurations.get(TWO_D)
    if volumes is None or slices is None:
        name = next(iter(plan.configurations))
        return ChoiceForTime(name=name, reason=f"In {minutes} {name} is trained.")
    steps_3d = steps_in_time(volumes, time_budget_s, flops)
    steps_2d = steps_in_time(slices, time_budget_s, flops)
    if steps_3d >= FEWEST_STEPS_3D:
        return ChoiceForTime(
            name=FULLRES, reason=f"In {minutes} {FULLRES} is trained: about {steps_3d:,.0f} steps on its patches fit."
        )
    return ChoiceForTime(
        name=TWO_D,
        reason=f"In {minutes} {TWO_D} is trained: about {steps_2d:,.0f} steps on slices fit, and only "
        f"{steps_3d:,.0f} on the patches of {FULLRES}.",
    )


def _fitted(configuration: Configuration, time_budget_s: float, flops: float, cost_of: CostOf) -> Configuration:
    network = configuration.network
    if network.architecture not in SCALABLE:
        return configuration
    divisor = 1
    while steps_in_time(configuration, time_budget_s, flops) < WANTED_STEPS:
        if network.features[0] // (2 * divisor) < FEWEST_FEATURES:
            break
        divisor *= 2
        configuration = _with_network(configuration, with_fewer_features(network, divisor), cost_of)
    if divisor == 1:
        return configuration
    reason = (
        f"The first stage has {configuration.network.features[0]} features in place of {network.features[0]}, so that "
        f"more steps fit into {time_budget_s / 60:g} minutes."
    )
    return configuration.model_copy(update={"reasons": (*configuration.reasons, reason)})


def steps_in_time(configuration: Configuration, time_budget_s: float, flops: float) -> float:
    """Steps of the smallest batch on the planned patch that fit, with all that comes with a step."""
    step_s = configuration.estimate.step_s(flops) / configuration.batch_size * rules.SMALLEST_BATCH * OVERHEAD
    return time_budget_s / step_s


def with_fewer_features(network: NetworkSpec, divisor: int) -> NetworkSpec:
    """The network with so many times fewer features in every stage."""
    return network.model_copy(update={"features": tuple(features // divisor for features in network.features)})


def _with_network(configuration: Configuration, network: NetworkSpec, cost_of: CostOf) -> Configuration:
    cost = cost_of(network)
    patch = configuration.patch_size
    batch = configuration.batch_size
    before = configuration.estimate
    teraflop = cost.flops(patch, batch) / 1e12
    hours = before.hours_per_fold
    estimate = before.model_copy(
        update={
            "training_memory_gb": cost.peak_bytes(patch, batch) / GIGABYTE,
            "teraflop_per_step": teraflop,
            "measured": None,  # on a GPU, of the network before
            "hours_per_fold": None if hours is None else hours * teraflop / before.teraflop_per_step,
        }
    )
    return configuration.model_copy(update={"network": network, "estimate": estimate})
