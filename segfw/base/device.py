"""Which device and which precision to compute in."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
import time
from collections.abc import Iterator
from functools import cache, lru_cache

import torch

from segfw.base.records import GIGABYTE, UserError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# Length of a training on the CPU from which compiling it pays.
COMPILE_FROM_S = 1800.0
COMPILE_FROM_STEPS = 2000
# Of each shape of patches on CUDA: not measured; if a minute of compiling saves a fifth of steps of 60 ms.
COMPILE_FROM_S_ON_CUDA = 600.0
COMPILE_FROM_STEPS_ON_CUDA = 10_000
PROBE_CHANNELS = 32
# Voxels. In float32 PyTorch leaves an image of less than 20 480 values beside its last axis to another, far slower
# convolution, which patches do not meet.
PROBE_EDGES = (32, 48, 48)
PROBE_TRIES = 2
PROBE_ROUNDS = 2  # both precisions by turns, so that what disturbs for a moment does not disturb one of them alone
# How many times as fast bf16 has to be. Where both are about as fast, chance would decide, and processes that share a
# folder of masks would compute in different precisions.
BF16_WORTH_GAIN = 1.15
# Of the probe on CUDA: 0.23 TFLOP a call, beside which the microseconds of a launch are nothing.
CUDA_PROBE_EDGES = (128, 128, 128)
CUDA_PROBE_CALLS = 5
# Of AMD's cards, by the beginning of their architecture's name, those that multiply bf16 in hardware: MI100 to MI355,
# and Radeon from the 7000 series on (AMD's tables of data types of ROCm). On others it is emulated.
AMD_WITH_BF16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
FREE_SHARE_ON_WINDOWS = 0.95  # of a GPU's free memory, beyond which its driver takes the host's instead of saying no
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

    On a CPU that is measured, once a process: ``for_training`` forward and backward, else forward alone. It has to be
    clearly faster there.
    ``as_nnunet`` it is what nnU-Net predicts in: float16 on CUDA, float32 elsewhere, because bf16, which rounds eight
    times as coarsely as float16, moves more voxels than all other differences from nnU-Net together.
    """
    if name == "auto" and as_nnunet:
        return torch.float16 if device.type == "cuda" else torch.float32
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if gpu_has_bf16(device) else torch.float16
    if device.type != "cpu" or not cpu_has_bf16():
        return torch.float32
    gain = bf16_gain(torch.get_num_threads(), for_training=for_training)
    return torch.bfloat16 if gain > BF16_WORTH_GAIN else torch.float32


def is_rocm(device: torch.device) -> bool:
    """True of AMD's GPUs, which PyTorch calls CUDA devices as well."""
    return device.type == "cuda" and torch.version.hip is not None


def gpu_has_bf16(device: torch.device) -> bool:
    """True if a CUDA device multiplies bf16 in hardware: NVIDIA's from Ampere on, and AMD_WITH_BF16."""
    if is_rocm(device):
        return torch.cuda.get_device_properties(device).gcnArchName.startswith(AMD_WITH_BF16)
    return torch.cuda.get_device_capability(device)[0] >= 8


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
    float32_s = float("inf")
    bf16_s = float("inf")
    for _ in range(PROBE_ROUNDS):
        float32_s = min(float32_s, probed_convolution_s(torch.float32, for_training=for_training))
        bf16_s = min(bf16_s, probed_convolution_s(torch.bfloat16, for_training=for_training))
    return float32_s / bf16_s


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
        if seconds is None:
            return steps >= COMPILE_FROM_STEPS_ON_CUDA * shapes
        return seconds >= COMPILE_FROM_S_ON_CUDA * shapes
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


def tune_convolutions(device: torch.device) -> None:
    """Has cuDNN try its algorithms once for each size of convolution and keep the fastest, on NVIDIA's cards.

    Worth it where sizes repeat, as those of patches and tiles do. On AMD's the same switch starts a search of minutes.
    """
    if device.type == "cuda" and not is_rocm(device):
        torch.backends.cudnn.benchmark = True


@contextlib.contextmanager
def tuned_convolutions(device: torch.device) -> Iterator[None]:
    """``tune_convolutions`` while the block lasts."""
    before = torch.backends.cudnn.benchmark
    tune_convolutions(device)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def release_workspace(device: torch.device) -> None:
    """Gives back what trying out algorithms has taken of a CUDA device, and counts its peaks from now on.

    cuDNN tries with as much workspace as is free, and PyTorch keeps that: tens of GB on a large card, where a training
    planned for 8.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def is_windows() -> bool:
    """True on Windows and in its subsystem for Linux, whose GPUs have the same driver."""
    return sys.platform == "win32" or "microsoft" in platform.release().lower()


@cache
def memory_share(device: torch.device) -> float:
    """Share of a CUDA device's memory that this process may take: all, but on Windows what was free at first.

    There the driver would go on in the host's memory: steps are then many times slower, without a word, and nothing is
    ever made smaller. Asked before the process takes memory of the device, and kept.
    """
    if not is_windows():
        return 1.0
    free, total = torch.cuda.mem_get_info(device)
    return FREE_SHARE_ON_WINDOWS * free / total


def keep_to_device_memory(device: torch.device) -> None:
    """Has PyTorch say that memory ran out where ``memory_share`` of a CUDA device is taken."""
    if device.type == "cuda" and is_windows():
        device = numbered(device)
        torch.cuda.set_per_process_memory_fraction(memory_share(device), device)


@contextlib.contextmanager
def held_to_memory(device: torch.device, limit_gb: float | None) -> Iterator[None]:
    """PyTorch takes at most ``limit_gb`` of a CUDA device while the block lasts, and says that memory ran out beyond.

    None is no limit but ``memory_share``. What CUDA itself takes for a process is not in it.
    """
    if device.type != "cuda" or limit_gb is None:
        yield
        return
    device = numbered(device)
    usual_share = memory_share(device)
    share = limit_gb * GIGABYTE / torch.cuda.mem_get_info(device)[1]
    torch.cuda.set_per_process_memory_fraction(min(usual_share, share), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(usual_share, device)


def numbered(device: torch.device) -> torch.device:
    """A CUDA device with its number, on which some of PyTorch's calls insist; others as they are."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


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
    if device.type == "cuda":
        return _cuda_convolution_flops(device)
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


def _cuda_convolution_flops(device: torch.device) -> float:
    """By the card's own clock, of a convolution beside which its launch is nothing; of a small one where it is full."""
    precision = pick_precision("auto", device, for_training=True)
    layer = torch.nn.Conv3d(PROBE_CHANNELS, PROBE_CHANNELS, 3, padding=1).to(device, precision)
    layer.weight.data = layer.weight.data.to(memory_format=torch.channels_last_3d)
    free_bytes = torch.cuda.mem_get_info(device)[0]
    edges = CUDA_PROBE_EDGES if free_bytes > 2 * GIGABYTE else PROBE_EDGES
    image = torch.randn(1, PROBE_CHANNELS, *edges, device=device, dtype=precision)
    image = image.to(memory_format=torch.channels_last_3d)
    started = torch.cuda.Event(enable_timing=True)
    ended = torch.cuda.Event(enable_timing=True)
    with torch.inference_mode(), tuned_convolutions(device):
        layer(image)  # chooses its algorithm
        started.record(torch.cuda.current_stream(device))
        for _ in range(CUDA_PROBE_CALLS):
            layer(image)
        ended.record(torch.cuda.current_stream(device))
    ended.synchronize()
    operations = 2 * 27 * PROBE_CHANNELS**2 * image[0, 0].numel() * CUDA_PROBE_CALLS
    return operations / (started.elapsed_time(ended) / 1000)


def device_memory_gb(device: torch.device) -> float | None:
    """Memory of a GPU in GB; None for the CPU, whose memory is no limit of its own."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1] / GIGABYTE
    if device.type == "mps":
        return torch.mps.recommended_max_memory() / GIGABYTE
    return None


def free_device_memory_gb(device: torch.device) -> float:
    """What other programs leave of a CUDA device's memory, in GB; of other devices no limit."""
    return torch.cuda.mem_get_info(device)[0] / GIGABYTE if device.type == "cuda" else float("inf")


def device_name(device: torch.device) -> str:
    """Human-readable name of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
