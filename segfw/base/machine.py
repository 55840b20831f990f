"""The machine that segfw runs on: versions, devices, memory and disk, and a remedy for each thing that is wrong."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from pathlib import Path
from typing import Literal

import psutil
import torch

from segfw.base.answers import Answer
from segfw.base.device import cpu_has_bf16, device_name, is_rocm, pick_device, pick_precision
from segfw.base.gpu_faults import faults_of, libraries_of
from segfw.base.records import GIGABYTE, Record
from segfw.base.resources import cpu_count, free_memory_bytes
from segfw.base.words import count


class ComputeDevice(Record):
    """A GPU that PyTorch can use."""

    name: str
    free_gb: float
    memory_gb: float


class Machine(Answer):
    """What is here; ``wrong`` are sentences, each with a remedy, and ``hints`` what is right and good to know.

    ``device`` and ``precision`` are those of a training or a prediction that is not told otherwise.
    """

    kind: Literal["machine"] = "machine"
    python: str
    system: str
    versions: dict[str, str]  # of packages; MISSING where there is none
    cores: int
    threads: int
    has_bf16: bool
    memory_gb: float
    free_memory_gb: float
    folder: str
    free_disk_gb: float
    gpus: tuple[ComputeDevice, ...]
    gpu_libraries: str  # and their versions; '' where no GPU is used
    device: str
    precision: str
    wrong: tuple[str, ...]
    hints: tuple[str, ...]

    def text(self) -> str:
        """What is here and what is wrong with it, a line each."""
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        bf16 = "fast in 16 bit (bf16)" if self.has_bf16 else "not faster in 16 bit, so it computes in 32"
        gpus = [f"GPU {number}: {_gpu_text(gpu)}" for number, gpu in enumerate(self.gpus)]
        lines = [
            f"Python {self.python} on {self.system}",
            packages,
            f"Processor: {count(self.cores, 'usable core')}, {count(self.threads, 'thread')}, {bf16}",
            f"Memory: {self.free_memory_gb:.1f} of {self.memory_gb:.1f} GB free",
            f"Disk here: {self.free_disk_gb:.1f} GB free ({self.folder})",
            *(gpus or (["GPU: none that PyTorch can use"] if self.device == "CPU" else [])),
            *([f"Libraries of the GPU: {self.gpu_libraries}"] if self.gpu_libraries else []),
            f"segfw will use: {self.device} in {self.precision}; another one by --device",
            "",
            *(self.wrong or ("Nothing is wrong.",)),
            *self.hints,
        ]
        return "\n".join(lines)


def describe_machine() -> Machine:
    """What is here and what is wrong with it."""
    folder = Path.cwd()
    free_gb = free_memory_bytes() / GIGABYTE
    disk_gb = shutil.disk_usage(folder).free / GIGABYTE
    device = pick_device("auto")
    precision = pick_precision("auto", device)
    libraries = libraries_of(device)
    faults = faults_of(libraries, precision) if libraries is not None else ()
    return Machine(
        python=platform.python_version(),
        system=platform.platform(),
        versions={name: _version(name) for name in ("segfw", "torch", "numpy", "nibabel", "SimpleITK", "blosc2")},
        cores=cpu_count(),
        threads=torch.get_num_threads(),
        has_bf16=cpu_has_bf16(),
        memory_gb=psutil.virtual_memory().total / GIGABYTE,
        free_memory_gb=free_gb,
        folder=str(folder),
        free_disk_gb=disk_gb,
        gpus=tuple(_gpu(index) for index in range(torch.cuda.device_count())),
        gpu_libraries=libraries.text() if libraries is not None else "",
        device=device_name(device),
        precision=str(precision).removeprefix("torch."),
        wrong=(*_complaints(free_gb, disk_gb, device), *(_sentence(fault.sentence) for fault in faults)),
        hints=tuple(_hints(device)),
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "MISSING"


def _gpu(index: int) -> ComputeDevice:
    free, total = torch.cuda.mem_get_info(index)
    return ComputeDevice(name=torch.cuda.get_device_name(index), free_gb=free / GIGABYTE, memory_gb=total / GIGABYTE)


def _gpu_text(gpu: ComputeDevice) -> str:
    return f"{gpu.name}, {gpu.free_gb:.1f} of {gpu.memory_gb:.1f} GB free"


def _complaints(free_gb: float, disk_gb: float, device: torch.device) -> list[str]:
    complaints = []
    if free_gb < 4:
        complaints.append(f"Only {free_gb:.1f} GB of memory are free: close other programs, or use --workers 1.")
    if disk_gb < 10:
        complaints.append(f"Only {disk_gb:.1f} GB of disk are free: work in another folder, or make room.")
    driver = shutil.which("nvidia-smi")
    if device.type == "cpu" and driver:
        if torch.version.cuda is None:
            complaints.append(
                "There is an NVIDIA driver, but this PyTorch is built for the CPU only: install the CUDA build "
                "(see pytorch.org) into this environment."
            )
        else:
            complaints.append(
                "There is an NVIDIA driver, but PyTorch finds no device: see nvidia-smi, update the driver."
            )
    if "MISSING" in (_version("nibabel"), _version("SimpleITK"), _version("blosc2")):
        complaints.append(f"A package is missing: install segfw again with {Path(sys.executable).name} -m pip.")
    return complaints


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _hints(device: torch.device) -> list[str]:
    if device.type == "mps":
        return ["segfw was never run on an Apple GPU: compare a first result with that of --device cpu."]
    if is_rocm(device):
        return ["segfw was never run on an AMD GPU: compare a first result with that of --device cpu."]
    if device.type != "cpu":
        return []
    return [
        "Without a GPU everything works, but a training of the published length takes weeks: give segfw run a length, "
        "such as --time-budget 2h."
    ]
