"""Section ``right``: values on the device against the CPU's. A difference that moves from run to run is a race."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bench.gpu.steps import segfw_step
from bench.gpu.timing import GIB, free_cached_memory, synchronize
from bench.gpu.visit import SMALL_NETWORK, Problem, Visit, attempt
from bench.made_up import uncropped_record
from segfw.base.device import autocast, pick_precision
from segfw.grid.restore import Restoring
from segfw.grid.store import CaseArrays
from segfw.inference.ready_networks import in_precision
from segfw.inference.sliding_window import sliding_window
from segfw.inference.summands import summands_of
from segfw.networks import build_network, fastest_layout
from segfw.networks.losses import LABELS, Target, deep_supervision_loss
from segfw.training.batches import Batches
from segfw.training.checkpoint import load_checkpoint, save_checkpoint
from segfw.training.feeding import Feeder, on_device

CPU = torch.device("cpu")
CLASSES = SMALL_NETWORK.classes
# name: (precision, largest relative difference of the logits; ten times as much of the gradients)
PRECISIONS = {
    "fp32": (torch.float32, 1e-3),
    "bf16": (torch.bfloat16, 6e-2),
    "fp16": (torch.float16, 2e-2),
}
REGIONS = Target(regions=((1,), (1, 2), (3,), (4,), (2, 4)))
# name: (target, share of the voxels that count)
LOSS_KINDS = {
    "labels": (LABELS, 1.0),
    "ignore": (Target(ignore=4), 1.0),
    "topk": (LABELS, 0.1),
    "regions": (REGIONS, 1.0),
}


def agreement(visit: Visit, found: dict, until_left_s: float) -> None:
    """Network and gradients, losses, batches, prediction, what follows a full memory, and a checkpoint read back."""
    for name in PRECISIONS:
        if visit.on_cuda or name != "fp16":  # which the CPU has no kernels for
            attempt(found, f"network_{name}", partial(network_differences, visit, name))
    for name in LOSS_KINDS:
        attempt(found, f"loss_{name}", partial(loss_differences, visit, name))
    for place in ("host", "device"):
        attempt(found, f"batches_{place}", partial(batch_differences, visit, place))
    for classes in (5, 40):  # sums of logits, and sums of features
        attempt(found, f"predict_{classes}", partial(equal_voxels_of_prediction, visit, classes))
    if visit.on_cuda:
        attempt(found, "out_of_memory", partial(training_with_little_memory, visit))
    attempt(found, "resume_in_process", partial(losses_after_checkpoint, visit))


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    found = found.detach().double().cpu()
    expected = expected.detach().double().cpu()
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def network_differences(visit: Visit, name: str) -> dict:
    """Relative differences of logits, loss and gradients of the small network from float32 on the CPU."""
    precision, largest = PRECISIONS[name]
    expected = _logits_loss_gradients(CPU, torch.float32)
    allowed_before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = name != "fp32"
    try:
        computed = _logits_loss_gradients(visit.device, precision)
    finally:
        torch.backends.cudnn.allow_tf32 = allowed_before
    logits, loss, gradients = (relative_difference(a, b) for a, b in zip(computed, expected))
    return {
        "logits": round(logits, 6),
        "loss": round(loss, 6),
        "gradients": round(gradients, 6),
        "ok": logits < largest and gradients < 10 * largest,
    }


def _logits_loss_gradients(device: torch.device, precision: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    network = build_network(SMALL_NETWORK).train()
    image = torch.randn(2, 1, 32, 32, 32)
    truth = torch.randint(0, CLASSES, (2, 32, 32, 32))
    network = fastest_layout(network.to(device))
    with autocast(device, precision):
        outputs = network(image.to(device))
    loss = deep_supervision_loss(outputs, truth.to(device), False)
    loss.backward()
    gradients = torch.cat([weight.grad.flatten() for weight in network.parameters()])
    return outputs[0].float(), loss, gradients


def loss_differences(visit: Visit, name: str) -> dict:
    """Relative differences of a loss and its gradient from the CPU's."""
    target, hardest = LOSS_KINDS[name]
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, CLASSES, 24, 24, 24, generator=generator)
    truth = torch.randint(0, CLASSES, (2, 24, 24, 24), generator=generator)
    values = []
    for device in (CPU, visit.device):
        leaf = logits.to(device).clone().requires_grad_()
        loss = deep_supervision_loss([leaf], truth.to(device), True, target, hardest=hardest)
        loss.backward()
        values.append((loss, leaf.grad))
    (expected_loss, expected_gradient), (loss, gradient) = values
    return {
        "loss": relative_difference(loss, expected_loss),
        "gradient": relative_difference(gradient, expected_gradient),
    }


def batch_differences(visit: Visit, place: str) -> dict:
    """Augmented batches that reach a busy device by the feeder, against the CPU's, and once more against themselves.

    ``place`` says where the cases lie: 'host' or 'device'. Images with noise are compared with themselves only: each
    device has a random generator of its own.
    """
    steps = visit.pick(12, 2)
    cases = _made_up_cases(visit)
    reference = _batches(visit, cases)
    expected = [reference.finish(reference.cut(step), CPU) for step in range(steps)]
    has_noise = [any(patch.intensity.noise_std > 0 for patch in reference.cut(step).patches) for step in range(steps)]

    batches = _batches(visit, cases if place == "host" else [on_device(case, visit.device) for case in cases])
    edge = visit.pick(4096, 64)
    matrix = torch.randn(edge, edge, device=visit.device)
    feeder = Feeder(batches.cut, 0, device=visit.device)
    largest = 0.0
    labels_agree = 1.0
    first_round = []
    for step, cut in zip(range(steps), feeder):
        for _ in range(visit.pick(20, 1)):  # so that the copies run beside work
            matrix = torch.tanh(matrix @ matrix)
        image, classes = batches.finish(cut, visit.device)
        first_round.append((image, classes))
        if not has_noise[step]:
            largest = max(largest, float((image.cpu() - expected[step][0]).abs().max()))
        labels_agree = min(labels_agree, float((classes.cpu() == expected[step][1]).float().mean()))
    feeder.close()

    second_round = [batches.finish(batches.cut(step).to(visit.device), visit.device) for step in range(steps)]
    synchronize(visit.device)
    repeats = all(
        bool((image == again_image).all() and (classes == again_classes).all())
        for (image, classes), (again_image, again_classes) in zip(first_round, second_round)
    )
    return {"largest_difference": largest, "labels_agree": labels_agree, "repeats_bit_for_bit": repeats}


def _made_up_cases(visit: Visit) -> list[CaseArrays]:
    rng = np.random.default_rng(0)
    edge = visit.pick(96, 48)
    return [
        CaseArrays(
            image=rng.normal(size=(2, edge, edge, edge)).astype(np.float16),
            classes=rng.integers(0, CLASSES, (edge, edge, edge)).astype(np.uint8),
            foreground={1: np.arange(5000, 9000, dtype=np.uint32)},
            previous=None,
        )
        for _ in range(3)
    ]


def _batches(visit: Visit, cases: Sequence[CaseArrays]) -> Batches:
    return Batches(
        cases=cases,
        patch_size=visit.pick((64, 64, 64), (24, 24, 24)),
        batch_size=4,
        seed=0,
        stream=0,
        augmentation="device",
        mirror_axes=(0, 1, 2),
        foreground_share=0.33,
        elastic=True,
        zero_outside=(1,),
        swapped={2: ((1, 2),)},
    )


def equal_voxels_of_prediction(visit: Visit, classes: int) -> dict[str, float]:
    """Shares of the voxels of a restored mask that are those of float32 on the CPU."""
    shape = (40, 44, 36)
    full = (60, 50, 50)
    record = uncropped_record(full, (1.0, 1.0, 1.0), shape)
    torch.manual_seed(0)
    spec = SMALL_NETWORK.model_copy(update={"classes": classes})
    weights = build_network(spec).state_dict()
    image = torch.randn(1, *shape)

    def mask(device: torch.device, precision: torch.dtype) -> np.ndarray:
        network = build_network(spec).eval()
        network.load_state_dict(weights)
        network = fastest_layout(in_precision(network, precision).to(device))
        restoring = Restoring(record)
        summands = summands_of([network], (0, 2))
        for slab in sliding_window(image, summands, (32, 32, 32), device=device, precision=precision):
            restoring.add(slab)
        return restoring.result()

    expected = mask(CPU, torch.float32)
    automatic = pick_precision("auto", visit.device)
    return {
        "fp32": float((mask(visit.device, torch.float32) == expected).mean()),
        "auto": float((mask(visit.device, automatic) == expected).mean()),
    }


def training_with_little_memory(visit: Visit) -> dict:
    """A batch that does not fit in 1.2 GiB: it must be computed in parts, and nothing of it may stay behind."""
    free_cached_memory(visit.device)
    allocated_before = torch.cuda.memory_allocated(visit.device)
    total = torch.cuda.mem_get_info(visit.device)[1]
    allowed = torch.cuda.memory_reserved(visit.device) + 1.2 * GIB
    torch.cuda.set_per_process_memory_fraction(allowed / total, visit.device)
    try:
        found = _two_steps(visit, Problem(network=SMALL_NETWORK, patch_size=(96, 96, 96), batch_size=8))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, visit.device)
    free_cached_memory(visit.device)
    left_over = torch.cuda.memory_allocated(visit.device) - allocated_before
    return found | {"left_over_mib": left_over / 2**20}


def _two_steps(visit: Visit, problem: Problem) -> dict:
    step = segfw_step(visit, problem)
    first = float(step.call())
    return {"first_loss": first, "parts": step.state.counters.parts, "second_loss": float(step.call())}


def losses_after_checkpoint(visit: Visit) -> dict[str, list[float]]:
    """Losses of three steps, and of the same three after the checkpoint before them was read back."""
    problem = Problem(network=SMALL_NETWORK, patch_size=(32, 32, 32), batch_size=2)
    step = segfw_step(visit, problem, precision=visit.pick("fp16", "fp32"))
    step.call()
    path = visit.folder / "agreement.safetensors"
    save_checkpoint(path, step.state)
    straight_on = [float(step.call()) for _ in range(3)]
    load_checkpoint(path, step.state)
    path.unlink()
    return {"straight_on": straight_on, "resumed": [float(step.call()) for _ in range(3)]}
