"""Section ``step``: milliseconds of an optimiser step at the published plain plan, without a data path."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from bench.gpu.steps import nnunet_step, segfw_step
from bench.gpu.timing import call_ms_and_gib, free_cached_memory, synchronize
from bench.gpu.visit import SMALL_NETWORK, Problem, Visit, attempt
from segfw.kernels.trial import has_triton
from segfw.planning.memory import step_cost
from segfw.training.captured_steps import with_launch_share

SMALL = Problem(network=SMALL_NETWORK, patch_size=(40, 56, 40), batch_size=2)  # as of hippocampus


def stepping(visit: Visit, found: dict, until_left_s: float) -> None:
    """segfw compiled, eager, contiguous and in fp16, nnU-Net compiled and eager, and the eager step of resenc-l."""
    problem = visit.problem()
    tflop = _tflop(problem)
    found["patch"] = list(problem.patch_size)
    found["batch"] = problem.batch_size
    found["tflop"] = round(tflop, 4)
    for name, make in _variants(visit, problem).items():
        if visit.on_cuda and visit.seconds_left() < until_left_s:
            return
        attempt(found, name, partial(_measured, visit, make, tflop))
        free_cached_memory(visit.device)
    for name, make in _small_variants(visit).items():
        attempt(found, name, partial(_measured, visit, make, _tflop(SMALL)))
        free_cached_memory(visit.device)
    attempt(found, "resenc-l eager", partial(_large, visit))


def _variants(visit: Visit, problem: Problem) -> dict[str, Callable[[], Callable[[], object]]]:
    """Makers of the steps by name, those of most interest first; on the CPU those that it computes in short time."""
    variants: dict[str, Callable[[], Callable[[], object]]] = {}
    if visit.on_cuda and visit.has_nnunet:
        variants["nnunet compiled"] = lambda: nnunet_step(visit, problem, compiled=True)
    if visit.on_cuda:
        variants["segfw compiled"] = lambda: segfw_step(visit, problem, compiled=True).call
    variants["segfw eager"] = lambda: segfw_step(visit, problem).call
    variants["segfw eager contiguous"] = lambda: segfw_step(visit, problem, own_layout=False).call
    if visit.on_cuda and has_triton(visit.device):  # Triton's interpreter, on a CPU, takes minutes for a step
        variants["segfw eager kernels"] = lambda: segfw_step(visit, problem, kernels=True).call
    if visit.on_cuda:
        variants["segfw eager fp16"] = lambda: segfw_step(visit, problem, precision="fp16").call
    if visit.has_nnunet:
        variants["nnunet eager"] = lambda: nnunet_step(visit, problem, compiled=False)
    return variants


def _small_variants(visit: Visit) -> dict[str, Callable[[], Callable[[], object]]]:
    """Steps of patches so small that launches take longer than the work: what ``--cuda-graphs`` is for."""
    variants: dict[str, Callable[[], Callable[[], object]]] = {
        "small patches eager": lambda: segfw_step(visit, SMALL).call
    }
    if visit.on_cuda:
        variants["small patches graphed"] = lambda: segfw_step(visit, SMALL, graphed=True).call
    if visit.on_cuda and has_triton(visit.device):
        variants["small patches kernels"] = lambda: segfw_step(visit, SMALL, kernels=True).call
        variants["small patches kernels graphed"] = lambda: segfw_step(visit, SMALL, kernels=True, graphed=True).call
    return variants


def _tflop(problem: Problem) -> float:
    return step_cost(problem.network).flops(problem.patch_size, problem.batch_size) / 1e12


def _measured(visit: Visit, make: Callable[[], Callable[[], object]], tflop: float) -> dict:
    began = time.monotonic()
    step = make()
    step()
    synchronize(visit.device)
    first_s = time.monotonic() - began
    found = call_ms_and_gib(step, visit.pick(30, 2), visit.device)
    found["first_s"] = round(first_s, 1)
    if visit.on_cuda:  # what --cuda-graphs auto goes by
        found["launch_share"] = round(with_launch_share(step, visit.device)[1], 3)
    found["tflop_per_s"] = round(tflop / found["median_ms"] * 1e3, 3)
    return found


def _large(visit: Visit) -> dict:
    problem = visit.problem("resenc-l")
    found = call_ms_and_gib(segfw_step(visit, problem).call, visit.pick(8, 1), visit.device)
    return found | {"patch": list(problem.patch_size), "batch": problem.batch_size}
