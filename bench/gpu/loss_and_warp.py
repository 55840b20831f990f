"""Section ``kernels``: losses of classes, of the hardest voxels and of regions, and the warp, plain and as kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from bench.gpu.timing import call_ms_and_gib
from bench.gpu.visit import Visit, attempt
from segfw.kernels.trial import has_triton, why_not
from segfw.networks.fused_losses import fused_sums
from segfw.networks.loss_sums import SumsOfOutputs, Target
from segfw.networks.losses import HARDEST, LABELS, deep_supervision_loss
from segfw.training.augment import Warp, warp
from segfw.training.augment_params import SpatialParams, draw_spatial, source_size
from segfw.training.training_kernels import fused_warp

BATCH = 2
REGIONS = Target(regions=tuple(tuple(range(first, 6)) for first in range(1, 6)), ignore=6)


@dataclass(frozen=True, kw_only=True)
class LossKind:
    """A loss that is timed: outputs of the network, on a card and in miniature, and what they mean."""

    name: str
    outputs: int
    in_miniature: int
    target: Target = LABELS
    hardest: float = 1.0


KINDS = (
    LossKind(name="loss 15 classes", outputs=15, in_miniature=3),
    LossKind(name="loss 117 classes", outputs=117, in_miniature=9),
    LossKind(name="loss 15 classes hardest tenth", outputs=15, in_miniature=3, hardest=HARDEST),
    LossKind(name="loss 5 regions", outputs=5, in_miniature=5, target=REGIONS),
)


def loss_and_warp(visit: Visit, found: dict, until_left_s: float) -> None:
    """ms of loss and gradient, and of the warp of a whole batch; the kernels' too where Triton is there."""
    for kind in KINDS:
        attempt(found, f"{kind.name}, plain", partial(_loss_ms, visit, kind, None))
    attempt(found, "warp, plain", partial(_warp_ms, visit, warp))
    if not has_triton(visit.device):
        found["skipped_kernels"] = why_not(visit.device)
        return
    sums = {target: fused_sums(visit.device, target) for target in (LABELS, REGIONS)}
    apply = fused_warp(visit.device)
    found["loss_agrees"] = sums[LABELS] is not None
    found["loss_of_regions_agrees"] = sums[REGIONS] is not None
    found["warp_agrees"] = apply is not warp
    for kind in KINDS:
        attempt(found, f"{kind.name}, kernel", partial(_loss_ms, visit, kind, sums[kind.target]))
    attempt(found, "warp, kernel", partial(_warp_ms, visit, apply))


def _loss_ms(visit: Visit, kind: LossKind, sums: SumsOfOutputs | None) -> dict:
    patch = visit.pick((128, 128, 128), (8, 8, 8))
    precision = visit.pick(torch.bfloat16, torch.float32)
    outputs = visit.pick(kind.outputs, kind.in_miniature)
    logits = torch.randn(BATCH, outputs, *patch, device=visit.device, dtype=precision)
    logits = logits.to(memory_format=torch.channels_last_3d).requires_grad_()
    truth = torch.randint(0, outputs, (BATCH, *patch), device=visit.device)

    def step() -> None:
        logits.grad = None
        deep_supervision_loss([logits], truth, False, kind.target, hardest=kind.hardest, fused=sums).backward()

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
