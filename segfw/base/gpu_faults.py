"""What PyTorch and the libraries under it are known to do wrong on a GPU, by their versions: refused, or warned about.

Nothing of this was seen by this project's own tests, which run without a GPU: each fault names where it is reported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

from segfw.base.device import pick_precision
from segfw.base.records import UserError

GpuKind = Literal["cuda", "rocm", "mps"]
OF_16_BIT = (torch.bfloat16, torch.float16)
# cuDNN as torch.backends.cudnn.version() counts it: 91002 is 9.10.2.
WRONG_FROM = 90800
WRONG_BEFORE = 91300
SLOW_BEFORE = 91500
OLD_TORCH = (2, 10)  # the first release without the faults of 2.8 and 2.9


@dataclass(frozen=True, kw_only=True)
class GpuLibraries:
    """What computes on a GPU: which maker's, and the versions; ``cudnn`` (or MIOpen's) is None where there is none."""

    kind: GpuKind
    torch_version: tuple[int, int]
    cudnn: int | None = None
    runtime: str = ""  # version of CUDA or ROCm that PyTorch was built for

    def text(self) -> str:
        """The libraries and their versions, as ``segfw doctor`` shows them: 'CUDA 13.0, cuDNN 9.15.1'."""
        if self.kind == "mps":
            return "Metal"
        runtime, name = ("CUDA", "cuDNN") if self.kind == "cuda" else ("ROCm", "MIOpen")
        if self.cudnn is None:
            return f"{runtime} {self.runtime}, no {name}"
        version = cudnn_text(self.cudnn) if self.kind == "cuda" else str(self.cudnn)
        return f"{runtime} {self.runtime}, {name} {version}"


@dataclass(frozen=True, kw_only=True)
class GpuFault:
    """One fault, in a sentence with its remedy; ``is_wrong`` where results cannot be relied on."""

    is_wrong: bool
    sentence: str


def libraries_of(device: torch.device) -> GpuLibraries | None:
    """What is installed for a device; None for the CPU."""
    if device.type not in ("cuda", "mps"):
        return None
    if device.type == "mps":
        return GpuLibraries(kind="mps", torch_version=version_of(torch.__version__))
    return GpuLibraries(
        kind="cuda" if torch.version.hip is None else "rocm",
        torch_version=version_of(torch.__version__),
        cudnn=torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        runtime=torch.version.hip or torch.version.cuda or "",
    )


def version_of(text: str) -> tuple[int, int]:
    """Major and minor number of a version such as '2.13.0+cu130'."""
    major, minor = re.findall(r"\d+", text)[:2]
    return int(major), int(minor)


def cudnn_text(version: int) -> str:
    """'9.10.2' of 91002; before version 9 the numbers were counted in hundreds, '8.9.7' of 8907."""
    thousands = 10_000 if version >= 90_000 else 1000
    return f"{version // thousands}.{version % thousands // 100}.{version % 100}"


def faults_of(libraries: GpuLibraries, precision: torch.dtype) -> tuple[GpuFault, ...]:
    """What is known of these libraries for arithmetic in ``precision``; none of most."""
    if libraries.kind == "cuda":
        return _faults_of_cuda(libraries, is_16_bit=precision in OF_16_BIT)
    if libraries.kind == "rocm":
        return ()
    if precision in OF_16_BIT:
        return (
            GpuFault(
                is_wrong=True,
                # pytorch#130256 (float32 since 2.8), #160739 (16 bit, open)
                sentence="PyTorch has no transposed 3-D convolution of 16 bit for Apple's GPU: take --precision fp32, "
                "or --device cpu",
            ),
        )
    if libraries.torch_version < OLD_TORCH:
        return (
            GpuFault(
                is_wrong=True,
                sentence=f"PyTorch {_text(libraries.torch_version)} lacks 3-D operations for Apple's GPU: install "
                f"PyTorch {_text(OLD_TORCH)} or newer, or take --device cpu",
            ),
        )
    return ()


def _faults_of_cuda(libraries: GpuLibraries, *, is_16_bit: bool) -> tuple[GpuFault, ...]:
    cudnn = libraries.cudnn
    if cudnn is None:
        return (
            GpuFault(
                is_wrong=False,
                sentence="PyTorch finds no cuDNN, without which convolutions take several times as long: install "
                "PyTorch anew from pytorch.org",
            ),
        )
    if not is_16_bit or not WRONG_FROM <= cudnn < SLOW_BEFORE:
        return ()
    what = f"cuDNN {cudnn_text(cudnn)} under PyTorch {_text(libraries.torch_version)}"
    remedy = f"install PyTorch {_text(OLD_TORCH)} or newer with cuDNN {cudnn_text(SLOW_BEFORE)} or newer"
    if libraries.torch_version < (2, 9) and cudnn < WRONG_BEFORE:
        # pytorch#163539: values of bf16 conv3d are wrong, without a word. From 2.9 on PyTorch goes round it.
        return (
            GpuFault(
                is_wrong=True,
                sentence=f"{what} computes 3-D convolutions of 16 bit wrong on some cards: {remedy}, or take "
                "--precision fp32",
            ),
        )
    if libraries.torch_version < (2, 9):
        return ()
    # pytorch#166122, #166643: what goes round it is four times as slow and takes three times the memory.
    return (
        GpuFault(
            is_wrong=False,
            sentence=f"with {what} 3-D convolutions of 16 bit can be four times as slow and take three times the "
            f"memory: {remedy}",
        ),
    )


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def require_right_gpu_for(device: torch.device, precision: str, *, for_training: bool) -> None:
    """``require_right_gpu`` in the precision that an option names, before anything is read; of the CPU nothing."""
    if device.type != "cpu":
        require_right_gpu(device, pick_precision(precision, device, for_training=for_training))


@lru_cache
def require_right_gpu(device: torch.device, precision: torch.dtype) -> None:
    """Raises UserError where the libraries of ``device`` compute wrong in ``precision``; warns, once, where slowly."""
    libraries = libraries_of(device)
    for fault in faults_of(libraries, precision) if libraries is not None else ():
        if fault.is_wrong:
            raise UserError(f"{device}: {fault.sentence}")
        print(f"warning: {device}: {fault.sentence}")
