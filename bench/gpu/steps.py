"""Whole optimiser steps on random data that lies on the device: segfw's own, and nnU-Net's beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch

from bench.gpu.visit import Problem, Visit
from segfw.base.device import pick_precision
from segfw.base.ranks import ALONE
from segfw.networks import build_network
from segfw.networks.losses import LABELS, LOSSES
from segfw.training.captured_steps import WARM_UP_STEPS, CapturedSteps
from segfw.training.checkpoint import TrainState
from segfw.training.prepare import new_state
from segfw.training.settings import TrainSettings
from segfw.training.step import Compute, train_step_that_fits
from segfw.training.training_kernels import training_kernels


@dataclass(frozen=True, kw_only=True)
class SegfwStep:
    """``call()`` takes one step and returns its loss, which stays on the device."""

    call: Callable[[], torch.Tensor]
    compute: Compute
    state: TrainState


def segfw_step(
    visit: Visit,
    problem: Problem,
    *,
    precision: str = "auto",
    compiled: bool = False,
    own_layout: bool = True,
    kernels: bool = False,
    graphed: bool = False,
) -> SegfwStep:
    """segfw's step. Without ``own_layout`` weights are laid out as PyTorch makes them (contiguous).

    ``kernels`` are used as ``--kernels on`` would. ``graphed`` steps are replayed as with ``--cuda-graphs on``; the
    plain ones that go ahead are taken here. Raises RuntimeError where they cannot be recorded.
    """
    torch.manual_seed(0)
    settings = TrainSettings(
        precision=precision, batch_size=problem.batch_size, momentum=0.99, learning_rate=0.01, kernels=kernels
    )
    configuration = SimpleNamespace(network=problem.network, patch_size=problem.patch_size, batch_dice=False)
    state = new_state(configuration, settings, visit.device, build_network)
    if not own_layout:
        for weight in state.network.parameters():
            weight.data = weight.data.contiguous()
            state.optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    if compiled:
        state.forward = torch.compile(state.network)
    compute = Compute(
        device=visit.device,
        precision=pick_precision(precision, visit.device, for_training=True),
        loss=LOSSES["dice-ce"](
            configuration,
            LABELS,
            ALONE.sum_with_gradient,
            training_kernels(visit.device, are_wanted=kernels).sums,
        ),
        ranks=ALONE,
        gradient_clip=settings.gradient_clip,
        in_channels=problem.network.in_channels,
        patch_size=problem.patch_size,
    )
    batch = problem.batch_size
    image = torch.randn(batch, problem.network.in_channels, *problem.patch_size, device=visit.device)
    truth = torch.randint(0, problem.network.classes, (batch, *problem.patch_size), device=visit.device)
    call = partial(train_step_that_fits, compute, state, image, truth)
    if graphed:
        captured = CapturedSteps(compute, "on")
        call = partial(captured.step, state, image, truth)
        for _ in range(WARM_UP_STEPS + 1):
            call()
        if not captured.is_replaying:
            raise RuntimeError("the step could not be recorded as a CUDA graph; the line before says why")
    return SegfwStep(call=call, compute=compute, state=state)


def nnunet_step(visit: Visit, problem: Problem, *, compiled: bool) -> Callable[[], np.ndarray]:
    """nnU-Net's network, loss and train_step (as its nnUNetTrainerBenchmark_5epochs_noDataLoading)."""
    network, loss = _nnunet_network_and_loss(visit, problem, compiled)
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    scaler = torch.amp.GradScaler(visit.device.type, enabled=visit.on_cuda)
    image = torch.rand(problem.batch_size, 1, *problem.patch_size, device=visit.device)
    targets = _targets_of_all_stages(visit, problem)

    def step() -> np.ndarray:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(visit.device.type, enabled=visit.on_cuda):
            value = loss(network(image), targets)
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        scaler.step(optimizer)
        scaler.update()
        return value.detach().cpu().numpy()  # as nnU-Net does in every step

    return step


def nnunet_network(visit: Visit, problem: Problem, *, deep_supervision: bool) -> torch.nn.Module:
    """nnU-Net's plain network of the same size, on the device."""
    if str(visit.nnunet_folder) not in sys.path:
        sys.path.insert(0, str(visit.nnunet_folder))
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    spec = problem.network
    stages = len(spec.features)
    return PlainConvUNet(
        input_channels=1,
        n_stages=stages,
        features_per_stage=list(spec.features),
        conv_op=torch.nn.Conv3d,
        kernel_sizes=[list(kernel) for kernel in spec.kernels],
        strides=[list(stride) for stride in spec.strides],
        n_conv_per_stage=[2] * stages,
        num_classes=spec.classes,
        n_conv_per_stage_decoder=[2] * (stages - 1),
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
    ).to(visit.device)


def _nnunet_network_and_loss(visit: Visit, problem: Problem, compiled: bool) -> tuple[torch.nn.Module, torch.nn.Module]:
    network = nnunet_network(visit, problem, deep_supervision=True)
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    loss = DC_and_CE_loss(
        {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False},
        {},
        weight_ce=1,
        weight_dice=1,
        ignore_label=None,
        dice_class=MemoryEfficientSoftDiceLoss,
    )
    if compiled:
        network = torch.compile(network)
        loss.dc = torch.compile(loss.dc)
    stages = len(problem.network.features)
    weights = np.array([1 / 2**stage for stage in range(stages - 1)])
    weights[-1] = 0
    return network, DeepSupervisionWrapper(loss, weights / weights.sum())


def _targets_of_all_stages(visit: Visit, problem: Problem) -> list[torch.Tensor]:
    targets = []
    size = problem.patch_size
    for strides in problem.network.strides[:-1]:
        size = tuple(voxels // stride for voxels, stride in zip(size, strides))
        shape = (problem.batch_size, 1, *size)
        targets.append(torch.randint(0, problem.network.classes, shape, device=visit.device).float())
    return targets
