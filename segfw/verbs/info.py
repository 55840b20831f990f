"""What a plan means, in words, and whether this machine can do it."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from pathlib import Path

import psutil
import torch

from segfw.base.device import cpu_has_bf16, device_name, pick_device, pick_precision
from segfw.base.parallel import cpu_count, free_memory_bytes
from segfw.base.records import GIGABYTE, UserError
from segfw.model.card import Packed
from segfw.model.load import is_packed, load_plan, trained_folds
from segfw.planning.measure import hours_per_fold, training_flops
from segfw.planning.memory import needed_gb
from segfw.planning.plan import PLAN_FILE, Configuration, Estimate
from segfw.planning.rules import EPOCHS, STEPS_PER_EPOCH


def explain(work: Path, *, device: str = "auto") -> str:
    """What was planned and why, what it costs, and what is already trained; raises UserError without a plan.

    Of a model file also its card: licence, training, digests.
    """
    work = Path(work)
    if not is_packed(work) and not (work / PLAN_FILE).is_file():
        raise UserError(f"{work}: holds no {PLAN_FILE}; run segfw plan-and-preprocess RAW {work} first")
    plan = load_plan(work)
    chosen = pick_device(device)
    flops = training_flops(chosen)
    labels = ", ".join(f"{name} = {value}" for name, value in zip(plan.labels.names[1:], plan.labels.values[1:]))
    lines = [
        *([Packed.open(work).card.text(), ""] if is_packed(work) else []),
        f"{plan.dataset}: {plan.training_cases} cases, channels {', '.join(c.name for c in plan.channels)}",
        f"Labels in the files: {labels}.",
        *(f"{sentence}." for sentence in plan.labels.explanation),
        f"Planned for {plan.gpu_memory_gb:g} GB of GPU memory with the {plan.preset!r} preset.",
        *plan.reasons,
    ]
    for configuration in plan.configurations.values():
        lines += ["", *_explain_configuration(configuration)]
        if not plan.is_imported:  # whose training is over
            lines += _explain_costs(configuration.estimate, flops, device_name(chosen))
        folds = trained_folds(work, configuration.name)
        lines.append(f"  Trained folds: {', '.join(folds) if folds else 'none yet'}.")
    return "\n".join(lines)


def _explain_configuration(configuration: Configuration) -> list[str]:
    network = configuration.network
    spacing = " x ".join("own" if s is None else f"{s:.4g}" for s in configuration.preprocessing.spacing_mm)
    shape = " x ".join(f"{size:g}" for size in configuration.median_shape)
    return [
        f"{configuration.name}",
        f"  Resampled to {spacing} mm; the median case is then {shape} voxels (network's axis order).",
        *(f"  {reason}" for reason in configuration.reasons),
        f"  Features per stage {', '.join(map(str, network.features))}; "
        f"downsampled by {' x '.join(map(str, network.downsampling))} in all.",
        f"  Dice of the loss over {'the whole batch' if configuration.batch_dice else 'each patch'}; "
        f"in long runs mirrored along {len(configuration.mirror_axes)} axes in training and prediction.",
        *_explain_previous_stage(configuration),
    ]


def _explain_costs(estimate: Estimate, flops: float, device: str) -> list[str]:
    step_s = estimate.teraflop_per_step * 1e12 / flops
    return [
        f"  Needs in training: a GPU of {needed_gb(estimate.training_memory_gb):.1f} GB ({_measured(estimate)}), "
        f"{estimate.ram_gb:.1f} GB of memory with the data set kept in it, and {estimate.disk_gb:.2f} GB of disk for "
        f"preprocessed data before compression.",
        f"  Expected on {device}: {_seconds(step_s)} per step, so {EPOCHS} epochs of {STEPS_PER_EPOCH} steps take "
        f"about {hours_per_fold(step_s):,.1f} hours per fold. --time-budget trains to a length of your choice.",
    ]


def _explain_previous_stage(configuration: Configuration) -> list[str]:
    if configuration.previous_stage is None:
        return []
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


def doctor() -> str:
    """Versions, devices, memory and disk, and a remedy for each thing that is wrong."""
    versions = [f"{name} {_version(name)}" for name in ("segfw", "torch", "numpy", "nibabel", "SimpleITK", "blosc2")]
    disk = shutil.disk_usage(Path.cwd())
    memory_gb, free_gb = psutil.virtual_memory().total / GIGABYTE, free_memory_bytes() / GIGABYTE
    device = pick_device("auto")
    lines = [
        f"Python {platform.python_version()} on {platform.platform()}",
        ", ".join(versions),
        f"Processor: {cpu_count()} usable cores, {torch.get_num_threads()} threads, "
        f"{'computes' if cpu_has_bf16() else 'does not compute'} in bf16",
        f"Memory: {free_gb:.1f} of {memory_gb:.1f} GB free",
        f"Disk here: {disk.free / GIGABYTE:.1f} GB free",
        *(f"CUDA device {i}: {_cuda_line(i)}" for i in range(torch.cuda.device_count())),
        f"segfw will use: {device_name(device)} in {str(pick_precision('auto', device)).removeprefix('torch.')}",
        "",
    ]
    wrong = _complaints(free_gb, disk.free / GIGABYTE, device)
    return "\n".join(lines + (wrong or ["Nothing is wrong."]))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "MISSING"


def _cuda_line(index: int) -> str:
    free, total = torch.cuda.mem_get_info(index)
    return f"{torch.cuda.get_device_name(index)}, {free / GIGABYTE:.1f} of {total / GIGABYTE:.1f} GB free"


def _complaints(free_gb: float, disk_gb: float, device: torch.device) -> list[str]:
    complaints = []
    if free_gb < 4:
        complaints.append(f"Only {free_gb:.1f} GB of memory are free: close other programs, or use --workers 1.")
    if disk_gb < 10:
        complaints.append(f"Only {disk_gb:.1f} GB of disk are free: work in another folder, or make room.")
    if device.type == "cpu":
        driver = shutil.which("nvidia-smi")
        if driver and torch.version.cuda is None:
            complaints.append(
                "There is an NVIDIA driver, but this PyTorch is built for the CPU only: install the CUDA build "
                "(see pytorch.org) into this environment."
            )
        elif driver:
            complaints.append(
                "There is an NVIDIA driver, but PyTorch finds no device: see nvidia-smi, update the driver."
            )
        else:
            complaints.append("No GPU: everything works, but train small data sets only, and give --time-budget.")
    if "MISSING" in (_version("nibabel"), _version("SimpleITK"), _version("blosc2")):
        complaints.append(f"A package is missing: install segfw again with {Path(sys.executable).name} -m pip.")
    return complaints
