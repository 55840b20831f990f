"""Section ``kernels``: the loss of 15 and of 117 classes and the warp of a batch, plain and as kernels."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from bench.gpu.timing import call_ms_and_gib
from bench.gpu.visit import Visit, attempt
from segfw.kernels.trial import has_triton, why_not
from segfw.networks.fused_layers import fused_sums
from segfw.networks.loss_sums import SumsOfOutputs
from segfw.networks.losses import deep_supervision_loss
from segfw.training.augment import Warp, warp
from segfw.training.augment_params import SpatialParams, draw_spatial, source_size
from segfw.training.training_kernels import fused_warp

BATCH = 2


def loss_and_warp(visit: Visit, found: dict, until_left_s: float) -> None:
    """ms of loss and gradient, and of the warp of a whole batch; the kernels' too where Triton is there."""
    ways: dict[str, tuple[SumsOfOutputs | None, Warp]] = {"plain": (None, warp)}
    if has_triton(visit.device):
        ways["kernel"] = (fused_sums(visit.device), fused_warp(visit.device))
        found["loss_agrees"] = ways["kernel"][0] is not None
        found["warp_agrees"] = ways["kernel"][1] is not warp
    else:
        found["skipped_kernels"] = why_not(visit.device)
    for name, (sums, apply) in ways.items():
        for classes in visit.pick((15, 117), (3, 9)):
            attempt(found, f"loss {classes} classes, {name}", partial(_loss_ms, visit, classes, sums))
        attempt(found, f"warp, {name}", partial(_warp_ms, visit, apply))


def _loss_ms(visit: Visit, classes: int, sums: SumsOfOutputs | None) -> dict:
    patch = visit.pick((128, 128, 128), (8, 8, 8))
    precision = visit.pick(torch.bfloat16, torch.float32)
    logits = torch.randn(BATCH, classes, *patch, device=visit.device, dtype=precision)
    logits = logits.to(memory_format=torch.channels_last_3d).requires_grad_()
    truth = torch.randint(0, classes, (BATCH, *patch), device=visit.device)

    def step() -> None:
        logits.grad = None
        deep_supervision_loss([logits], truth, False, fused=sums).backward()

    return call_ms_and_gib(step, visit.pick(10, 1), visit.device, warm_up=visit.pick(3, 1))


def _warp_ms(visit: Visit, apply: Warp) -> dict:
    patch = visit.pick((128, 128, 128), (12, 12, 12))
    rng = np.random.default_rng(0)
    params: list[SpatialParams] = []
    while len(params) < BATCH:
        drawn = draw_spatial(rng, patch, (0, 1, 2), False)
        if drawn.is_warped:
            params.append(drawn)
    boxes = []
    for drawn in params:
        size = source_size(patch, drawn)
        image = torch.randn(1, *size, device=visit.device).half()
        mask = torch.randint(0, 5, (1, *size), device=visit.device, dtype=torch.int16)
        boxes.append((image, mask))
    call = partial(apply, boxes, params, patch)
    return call_ms_and_gib(call, visit.pick(10, 1), visit.device, warm_up=visit.pick(3, 1))
