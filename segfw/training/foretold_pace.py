"""How long steps will take, found by a few of them on an untrained network, before any run has begun."""

from __future__ import annotations

import time

import torch

from segfw.base.device import pick_precision
from segfw.base.ranks import ALONE
from segfw.base.resources import ran_out_of_memory
from segfw.networks import BuildNetwork, build_network
from segfw.networks.losses import LABELS, LOSSES
from segfw.planning.plan import Configuration
from segfw.training.pace import Pace, measured_pace
from segfw.training.patch_stages import smaller_patches
from segfw.training.prepare import new_state
from segfw.training.settings import TrainSettings
from segfw.training.step import Compute


def foretold_pace(
    configuration: Configuration,
    settings: TrainSettings,
    device: torch.device,
    build: BuildNetwork = build_network,
) -> Pace | None:
    """The pace of steps as the run will measure it, for a time budget; None where the device has no memory for one.

    The rate of a single convolution says less: on a CPU with matrix units it was three times what a whole step reaches.
    No random number is drawn that training would draw.
    """
    if settings.time_budget_s is None:
        raise ValueError("only what has a time to fill is measured beforehand")
    with torch.random.fork_rng():
        state = new_state(configuration, settings, device, build)
        compute = Compute(
            device=device,
            precision=pick_precision(settings.precision, device, for_training=True),
            loss=LOSSES[settings.loss](configuration, LABELS, ALONE.sum_with_gradient),
            ranks=ALONE,
            gradient_clip=settings.gradient_clip,
            in_channels=configuration.network.in_channels,
            patch_size=configuration.patch_size,
        )
        patches = smaller_patches(configuration.patch_size, configuration.network.downsampling)
        try:
            return measured_pace(compute, state, patches, settings.time_budget_s, time.monotonic)
        except Exception as error:  # the run itself says it, with what to do
            if not ran_out_of_memory(error):
                raise
            return None
