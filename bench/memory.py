"""On CUDA: what is counted for a training step beside what 20 real ones take, for every preset and budget.

python -m bench memory --limit 600
python -m bench memory --presets plain resenc-l --budgets-gb 8 24
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence

import torch

from bench.gpu.memory import counted_and_taken
from segfw.base.device import device_memory_gb, device_name
from segfw.planning.presets import PRESETS

BUDGETS_GB = (4.0, 8.0, 16.0, 24.0, 40.0, 70.0)
STEPS = 20
# median shape: spacing_mm
BODIES = {
    (160, 256, 256): (1.5, 0.8, 0.8),
    (300, 300, 300): (1.0, 1.0, 1.0),
    (512, 512): (1.0, 1.0),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", default=tuple(PRESETS), choices=tuple(PRESETS))
    parser.add_argument("--budgets-gb", nargs="+", type=float, default=BUDGETS_GB, metavar="GB")
    parser.add_argument("--limit", type=float, default=600.0, metavar="SECONDS", help="begin nothing after that")
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("memory: no CUDA device here, nothing measured")
        return
    device = torch.device("cuda", 0)
    print(f"{device_name(device)}: counted against taken memory of a training step, in GiB of all tensors")
    memory(args.presets, args.budgets_gb, device, limit_s=args.limit)


def memory(presets: Sequence[str], budgets_gb: Sequence[float], device: torch.device, *, limit_s: float) -> None:
    """A line for every preset, budget and body, the small budgets of all presets first, as far as the time allows."""
    began = time.monotonic()
    sizes = list(itertools.product(budgets_gb, presets, BODIES))
    for number, (memory_gb, preset, shape) in enumerate(sizes):
        if time.monotonic() - began > limit_s:
            print(f"{limit_s:g} s are over: {len(sizes) - number} of {len(sizes)} were not measured")
            return
        if device.type == "cuda" and device_memory_gb(device) < memory_gb:
            print(f"  {preset} at {memory_gb:g} GB: the card has less")
            continue
        found = counted_and_taken(preset, memory_gb, shape, device, spacing_mm=BODIES[shape], steps=STEPS)
        print(f"  {preset} at {memory_gb:g} GB: {described(found)}", flush=True)


def described(found: dict) -> str:
    """One measurement of :func:`bench.gpu.memory.counted_and_taken` in words."""
    size = "x".join(map(str, found["patch"]))
    text = f"{size} x {found['batch']}: {found['counted_gib']:.2f}"
    if "tensors_gib" in found:
        excess = found["counted_gib"] / found["tensors_gib"] - 1
        return f"{text} against {found['tensors_gib']:.2f}, held {found['held_gib']:.2f} ({excess:+.0%})"
    return f"{text} against OUT OF MEMORY" if "out_of_memory" in found else text
