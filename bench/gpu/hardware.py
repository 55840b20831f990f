"""Section ``machine``: versions, and what the card copies and multiplies at best."""

from __future__ import annotations

import os
import sys
from functools import partial

import torch

from bench.gpu.timing import call_ms
from bench.gpu.visit import Visit
from segfw.base.device import pick_precision

EDGE = 8192  # of the square matrices


def hardware(visit: Visit, found: dict, until_left_s: float) -> None:
    """Bandwidth of the card's memory and of the way to it, and products of bfloat16 matrices."""
    device = visit.device
    found["python"] = sys.version.split()[0]
    found["cores"] = len(os.sched_getaffinity(0))
    found["precision"] = str(pick_precision("auto", device))
    if not visit.on_cuda:
        return
    found["gpu"] = torch.cuda.get_device_name(device)
    found["cudnn"] = torch.backends.cudnn.version()
    found["multiprocessors"] = torch.cuda.get_device_properties(device).multi_processor_count

    found["copy_tb_per_s"] = _copy_tb_per_s(device)
    for name, is_pinned in (("pinned", True), ("pageable", False)):
        on_host = torch.randn(2**26, pin_memory=is_pinned)
        on_device = torch.empty(2**26, device=device)
        copy_ms = call_ms(partial(on_device.copy_, on_host), 5, device)["median_ms"]
        found[f"host_to_device_{name}_gb_per_s"] = round(on_host.nbytes / copy_ms / 1e6, 1)

    matrix = torch.randn(EDGE, EDGE, device=device, dtype=torch.bfloat16)
    product_ms = call_ms(lambda: matrix @ matrix, 20, device)["median_ms"]
    found["bf16_product_tflop_per_s"] = round(2 * EDGE**3 / product_ms / 1e9)


def _copy_tb_per_s(device: torch.device) -> float:
    source = torch.randn(2**30, device=device)
    goal = torch.empty_like(source)
    copy_ms = call_ms(lambda: goal.copy_(source), 10, device)["median_ms"]
    return round(2 * source.nbytes / copy_ms / 1e9, 2)  # read and written
