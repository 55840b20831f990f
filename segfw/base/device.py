"""Which device and which precision to compute in."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time
from functools import lru_cache

import torch

from segfw.base.records import GIGABYTE, UserError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# Length of a training on the CPU from which compiling it pays.
COMPILE_FROM_S = 1800.0
COMPILE_FROM_STEPS = 2000
COMPILE_FROM_S_ON_CUDA = 600.0  # of each shape of patches: not measured; if a minute of compiling saves a fifth
PROBE_CHANNELS = 32
# Voxels. In float32 PyTorch leaves an image of less than 20 480 values beside its last axis to another, far slower
# convolution, which patches do not meet.
PROBE_EDGES = (32, 48, 48)
PROBE_TRIES = 3
COMPILE_FROM_TILES = 4000  # of a prediction on CUDA; not measured: if a minute of compiling saves a fifth

# Parameters of glibc's mallopt, from its malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def pick_device(name: str = "auto") -> torch.device:
    """The device called ``name``; 'auto' takes CUDA, then Apple's MPS, then the CPU. Raises UserError if absent."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name!r} is unknown; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name!r} is not supported; use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise UserError(f"--device {name}: PyTorch sees {found} CUDA devices; use --device cpu or run segfw doctor")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: PyTorch finds no Apple GPU here; use --device cpu")
    return device


def pick_precision(
    name: str, device: torch.device, *, as_nnunet: bool = False, for_training: bool = False
) -> torch.dtype:
    """Data type of the network's arithmetic; 'auto' takes 16 bit where the device computes faster in it.

    On a CPU that is measured, once a process: ``for_training`` forward and backward, else forward alone.
    ``as_nnunet`` it is what nnU-Net predicts in: float16 on CUDA, float32 elsewhere, because bf16, which rounds eight
    times as coarsely as float16, moves more voxels than all other differences from nnU-Net together.
    """
    if name == "auto" and as_nnunet:
        return torch.float16 if device.type == "cuda" else torch.float32
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "cpu" and cpu_has_bf16() and bf16_gain(torch.get_num_threads(), for_training=for_training) > 1:
        return torch.bfloat16
    return torch.float32


def cpu_has_bf16() -> bool:
    """True if the processor multiplies bf16 in hardware; elsewhere bf16 is emulated, and slow beyond doubt.

    Whether it is then faster than float32 the flag does not say: a Xeon with AVX512-bf16 and without matrix units
    trains 1.5 times slower in bf16, an AMD Zen 4 twice as fast.
    """
    return cpu_has_amx() or getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


@lru_cache
def bf16_gain(threads: int, *, for_training: bool) -> float:
    """How many times as fast as float32 this CPU convolves in bf16, with so many ``threads``, as they are set."""
    del threads  # what is measured holds for as many as now; others are measured anew
    return probed_convolution_s(torch.float32, for_training=for_training) / probed_convolution_s(
        torch.bfloat16, for_training=for_training
    )


def probed_convolution_s(precision: torch.dtype, *, for_training: bool) -> float:
    """Seconds of a 3x3x3 convolution of 32 channels on this CPU, the best of a few; with its gradients for training.

    Under autocast, as networks are computed, with weights in float32. The random numbers of a training stay as they
    are.
    """
    weight = torch.full((PROBE_CHANNELS, PROBE_CHANNELS, 3, 3, 3), 0.01).to(memory_format=torch.channels_last_3d)
    image = torch.ones(1, PROBE_CHANNELS, *PROBE_EDGES).to(memory_format=torch.channels_last_3d)
    for tensor in (weight, image):
        tensor.requires_grad_(for_training)
    best_s = float("inf")
    with torch.set_grad_enabled(for_training), autocast(torch.device("cpu"), precision):
        for _ in range(PROBE_TRIES):
            started_s = time.perf_counter()
            result = torch.nn.functional.conv3d(image, weight, padding=1)
            if for_training:
                result.sum().backward()
            best_s = min(best_s, time.perf_counter() - started_s)
    return best_s


def cpu_has_amx() -> bool:
    """True if the processor has matrix units, which make convolutions about ten times faster in bf16."""
    return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def compiling_pays(device: torch.device, *, seconds: float | None, steps: int, shapes: int = 1) -> bool:
    """Whether torch.compile shortens a training of ``seconds``, or else of ``steps``, its own time included.

    It takes up to a minute for each of the ``shapes`` of patches. What it speeds up is what stands between the
    convolutions: much of a step on CUDA, and on CPUs that are as fast in convolutions. On others it gains 3 %. The
    answer depends on nothing that is measured, so that a run with the same settings repeats on the same machine.
    """
    if device.type == "cuda":
        return seconds is None or seconds >= COMPILE_FROM_S_ON_CUDA * shapes
    is_long = steps >= COMPILE_FROM_STEPS if seconds is None else seconds >= COMPILE_FROM_S
    return device.type == "cpu" and cpu_has_amx() and is_long


def compiling_pays_in_prediction(device: torch.device, tiles: float) -> bool:
    """Whether torch.compile shortens a prediction of so many tiles, mirrored copies and folds counted each.

    On a CPU it does not: convolutions are nearly all of the time there, and it takes up to a minute.
    """
    return device.type == "cuda" and tiles >= COMPILE_FROM_TILES


def autocast(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Mixed precision for the network's forward pass; nothing at all in float32."""
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)


def keep_freed_pages() -> None:
    """Tells glibc to keep freed memory instead of returning it to the system after every layer.

    Returning and faulting in the same pages again took a quarter of a training step's time on the CPU. The price is
    that the process holds its peak. Elsewhere than on glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_MMAP_THRESHOLD, 2**30)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def convolution_flops(device: torch.device) -> float:
    """Operations per second of a 3x3x3 convolution here, measured in a fraction of a second."""
    precision = pick_precision("auto", device, for_training=True)
    layer = torch.nn.Conv3d(32, 32, 3, padding=1).to(device, precision)
    image = torch.randn(1, 32, 32, 48, 48, device=device, dtype=precision)
    if device.type != "mps":
        layer.weight.data = layer.weight.data.to(memory_format=torch.channels_last_3d)
        image = image.to(memory_format=torch.channels_last_3d)
    operations = 2 * 27 * 32 * 32 * image[0, 0].numel()
    best_s = float("inf")
    with torch.inference_mode():
        for _ in range(4):
            started = time.perf_counter()
            layer(image).sum().item()  # reading a value waits for the device
            best_s = min(best_s, time.perf_counter() - started)
    return operations / best_s


def device_memory_gb(device: torch.device) -> float | None:
    """Memory of a GPU in GB; None for the CPU, whose memory is no limit of its own."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1] / GIGABYTE
    if device.type == "mps":
        return torch.mps.recommended_max_memory() / GIGABYTE
    return None


def device_name(device: torch.device) -> str:
    """Human-readable name of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
