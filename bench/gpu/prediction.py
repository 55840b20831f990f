"""Section ``predict``: a CT of 300 x 512 x 512 voxels from the network to a mask in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from bench.gpu.nnunet_prediction import nnunet_predicted
from bench.gpu.timing import free_cached_memory, peak_gib, reset_peak, synchronize
from bench.gpu.visit import Problem, Visit, attempt
from bench.made_up import uncropped_record
from segfw.base.device import pick_precision
from segfw.grid.preprocess import PreprocessRecord
from segfw.grid.restore import Restoring
from segfw.images.geometry import Shape
from segfw.inference.ready_networks import in_precision
from segfw.inference.sliding_window import sliding_window
from segfw.inference.summands import summands_of
from segfw.inference.tiles import tile_count
from segfw.networks import build_network, fastest_layout

STEP = 0.5  # of the window, in patches


@dataclass(frozen=True, kw_only=True)
class Variant:
    """``benchmark`` is cuDNN's search for the fastest kernels."""

    classes: int
    folds: int
    mirror_axes: tuple[int, ...]
    benchmark: bool

    @property
    def name(self) -> str:
        search = "with" if self.benchmark else "without"
        return (
            f"{self.classes} classes, {self.folds} folds, {len(self.mirror_axes)} mirrored axes, {search} kernel search"
        )


VARIANTS = (
    Variant(classes=15, folds=1, mirror_axes=(), benchmark=False),
    Variant(classes=15, folds=1, mirror_axes=(), benchmark=True),
    Variant(classes=15, folds=1, mirror_axes=(0, 1, 2), benchmark=True),
    Variant(classes=117, folds=1, mirror_axes=(), benchmark=True),
    Variant(classes=117, folds=1, mirror_axes=(0, 1, 2), benchmark=True),
    Variant(classes=15, folds=5, mirror_axes=(), benchmark=True),
)


def prediction(visit: Visit, found: dict, until_left_s: float) -> None:
    """Seconds of the network and of restoring in the second of two predictions, and peak memory."""
    nnunet_variants = (VARIANTS[1], VARIANTS[3]) if visit.has_nnunet else ()
    benchmark_before = torch.backends.cudnn.benchmark
    try:
        for variant in VARIANTS:
            if visit.on_cuda and visit.seconds_left() < until_left_s:
                return
            torch.backends.cudnn.benchmark = variant.benchmark and visit.on_cuda
            attempt(found, variant.name, partial(_predicted, visit, variant))
            free_cached_memory(visit.device)
        for variant in nnunet_variants:
            if visit.on_cuda and visit.seconds_left() < until_left_s:
                return
            torch.backends.cudnn.benchmark = visit.on_cuda  # as nnU-Net sets it
            attempt(found, f"nnU-Net, {variant.name}", partial(_predicted_by_nnunet, visit, variant))
            free_cached_memory(visit.device)
    finally:
        torch.backends.cudnn.benchmark = benchmark_before


def _predicted(visit: Visit, variant: Variant) -> dict:
    problem = visit.problem()
    precision = pick_precision("auto", visit.device)
    record = _record(visit)
    image = torch.randn(1, *record.shape)
    spec = problem.network.model_copy(update={"classes": variant.classes})
    networks = [
        fastest_layout(in_precision(build_network(spec), precision).to(visit.device)).eval()
        for _ in range(variant.folds)
    ]
    seconds = {}
    for _ in range(visit.pick(2, 1)):  # the first warms up
        reset_peak(visit.device)
        seconds = _seconds(visit, problem, networks, variant.mirror_axes, image, record)
    tile_runs = tile_count(record.shape, problem.patch_size, STEP) * 2 ** len(variant.mirror_axes) * variant.folds
    return seconds | {"tile_runs": tile_runs} | peak_gib(visit.device)


def _predicted_by_nnunet(visit: Visit, variant: Variant) -> dict:
    problem = visit.problem()
    spec = problem.network.model_copy(update={"classes": variant.classes})
    image = torch.randn(1, *_record(visit).shape)
    return nnunet_predicted(visit, replace(problem, network=spec), image, mirror_axes=variant.mirror_axes)


def _seconds(
    visit: Visit,
    problem: Problem,
    networks: Sequence[torch.nn.Module],
    mirror_axes: tuple[int, ...],
    image: torch.Tensor,
    record: PreprocessRecord,
) -> dict[str, float]:
    restoring = Restoring(record)
    network_s = 0.0
    restore_s = 0.0
    slabs = sliding_window(
        image,
        summands_of(networks, mirror_axes),
        problem.patch_size,
        device=visit.device,
        precision=pick_precision("auto", visit.device),
    )
    while True:
        began = time.perf_counter()
        slab = next(slabs, None)
        synchronize(visit.device)
        network_s += time.perf_counter() - began
        if slab is None:
            break
        began = time.perf_counter()
        restoring.add(slab)
        restore_s += time.perf_counter() - began
    began = time.perf_counter()
    restoring.result()
    restore_s += time.perf_counter() - began
    return {"network_s": round(network_s, 2), "restore_s": round(restore_s, 2)}


def _record(visit: Visit) -> PreprocessRecord:
    full: Shape = visit.pick((300, 512, 512), (40, 48, 48))
    shape: Shape = visit.pick((300, 341, 341), (40, 36, 36))
    return uncropped_record(full, (1.0, 0.8, 0.8), shape)
