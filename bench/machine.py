"""How far a training step is from the machine: its operations per second beside those of large matrix products.

python -m bench machine
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch

from bench.small_network import BATCH, NETWORK, PATCH, step_of
from bench.timing import alternate
from segfw.base.device import device_name, keep_freed_pages, pick_device, pick_precision
from segfw.planning.memory import step_cost

MATRIX = {"cpu": 2048, "cuda": 8192, "mps": 4096}  # edge of the matrices by kind of device: large, but not for long
CUDA_BATCH = 64


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(prog="python -m bench machine", description=__doc__.splitlines()[0]).parse_args(arguments)
    keep_freed_pages()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {device_name(pick_device('auto'))}")
    machine()


def machine(repetitions: int = 7) -> None:
    """Operations per second of a training step as a percentage of those of a large matrix product, by precision.

    There are as many products as have the operations of a step, so that other load slows both alike.
    """
    device = pick_device("auto")
    edge = MATRIX[device.type]
    batch = CUDA_BATCH if device.type == "cuda" else BATCH
    operations = step_cost(NETWORK).flops(PATCH, batch)
    count = round(operations / (2 * edge**3))
    if torch.backends.cudnn.allow_tf32:  # as in the convolutions of a float32 step, lest the products be the slower
        torch.set_float32_matmul_precision("high")
    for precision in dict.fromkeys((pick_precision("auto", device), torch.float32)):
        step = step_of(precision, device, batch, fastest=True)
        products_s, step_s = alternate(products_of(precision, device, edge, count), step, repetitions)
        product_flops = count * 2 * edge**3 / products_s
        step_flops = operations / step_s
        name = str(precision).removeprefix("torch.")
        print(
            f"training step, batch {batch}, {name}: {step_s:.3f} s, {operations / 1e9:.0f} GFLOP, "
            f"{step_flops / 1e9:.0f} GFLOP/s = {step_flops / product_flops:.0%} of the "
            f"{product_flops / 1e9:.0f} GFLOP/s of {edge} x {edge} matrix products"
        )


def products_of(precision: torch.dtype, device: torch.device, edge: int, count: int) -> Callable[[], float]:
    """A closure that multiplies two square matrices ``count`` times and waits for the results."""
    left = torch.randn(edge, edge, device=device).to(precision)
    right = torch.randn(edge, edge, device=device).to(precision)

    def products() -> float:
        result = left
        for _ in range(count):
            result = left @ right
        return result[0, 0].item()

    return products
