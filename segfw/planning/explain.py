"""What a plan means, in words."""

from __future__ import annotations

from segfw.base.words import count
from segfw.planning.memory import needed_gb
from segfw.planning.plan import Configuration, Estimate, Plan
from segfw.planning.plan_for_device import hours_per_fold
from segfw.planning.published import EPOCHS, STEPS_PER_EPOCH


def explain_plan(plan: Plan) -> list[str]:
    """What was found in the data and decided for all configurations, a line each."""
    labels = ", ".join(f"{name} = {value}" for name, value in zip(plan.labels.names[1:], plan.labels.values[1:]))
    return [
        f"{plan.dataset}: {count(plan.training_cases, 'case')}, channels {', '.join(c.name for c in plan.channels)}",
        f"Labels in the files: {labels}.",
        *(f"{sentence}." for sentence in plan.labels.explanation),
        f"Planned for {plan.gpu_memory_gb:g} GB of GPU memory with the {plan.preset!r} preset.",
        *plan.reasons,
    ]


def explain_configuration(configuration: Configuration, length_unit: str) -> list[str]:
    """What one configuration resamples to, in the plan's ``length_unit``, and the network that it trains."""
    network = configuration.network
    spacing = " x ".join("own" if s is None else f"{s:.4g}" for s in configuration.preprocessing.spacing_mm)
    shape = " x ".join(f"{size:g}" for size in configuration.median_shape)
    return [
        f"{configuration.name}",
        f"  Resampled to {spacing} {length_unit}; the median case is then {shape} voxels (network's axis order).",
        *(f"  {reason}" for reason in configuration.reasons),
        f"  Features per stage {', '.join(map(str, network.features))}; "
        f"downsampled by {' x '.join(map(str, network.downsampling))} in all.",
        f"  Dice of the loss over {'the whole batch' if configuration.batch_dice else 'each patch'}; "
        f"in long runs mirrored along {count(len(configuration.mirror_axes), 'axis', 'axes')} in training and "
        "prediction.",
        *_explain_previous_stage(configuration),
    ]


def explain_costs(estimate: Estimate, device: str, step_s: float) -> list[str]:
    """What the training of one configuration takes on ``device``, where a step takes ``step_s`` seconds."""
    return [
        f"  Needs in training: a GPU, if any, of {needed_gb(estimate.training_memory_gb):.1f} GB "
        f"({_measured(estimate)}), "
        f"{estimate.ram_gb:.1f} GB of memory with the data set kept in it, and {estimate.disk_gb:.2f} GB of disk for "
        f"preprocessed data before compression.",
        f"  Expected on {device}: {_seconds(step_s)} per step, so {EPOCHS} epochs of "
        f"{STEPS_PER_EPOCH} steps take about {hours_per_fold(step_s):,.1f} hours per fold. "
        f"Another length: --time-budget 2h, or --epochs.",
    ]


def _explain_previous_stage(configuration: Configuration) -> list[str]:
    if configuration.previous_stage is None:
        return []
    if configuration.is_refiner:
        return [
            f"  Learns from the masks that {configuration.previous_stage} finds in cases that it did not see, one "
            f"structure at a time, after all folds of {configuration.previous_stage}; segfw refine uses it."
        ]
    return [
        f"  Sees the labels that {configuration.previous_stage} finds as further channels, one for each. It is trained "
        f"after all folds of {configuration.previous_stage}; segfw predict runs both."
    ]


def _measured(estimate: Estimate) -> str:
    counted = f"the tensors of a step take {estimate.training_memory_gb:.1f} GB, counted"
    if estimate.measured is None:
        return counted
    return f"{counted}, and {estimate.measured.tensors_gb:.1f} GB measured on {estimate.device}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"
