"""The machine that segfw runs on: versions, devices, memory and disk, and a remedy for each thing that is wrong."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from pathlib import Path

import psutil
import torch

from segfw.base.device import cpu_has_bf16, device_name, pick_device, pick_precision
from segfw.base.records import GIGABYTE
from segfw.base.resources import cpu_count, free_memory_bytes


def describe_machine() -> str:
    """What is here and what is wrong with it, a line each."""
    versions = [f"{name} {_version(name)}" for name in ("segfw", "torch", "numpy", "nibabel", "SimpleITK", "blosc2")]
    disk = shutil.disk_usage(Path.cwd())
    memory_gb = psutil.virtual_memory().total / GIGABYTE
    free_gb = free_memory_bytes() / GIGABYTE
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
