"""How one fold is trained: every choice that is not the plan's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from segfw.records import Record

EPOCHS = 1000
STEPS_PER_EPOCH = 250
LONGEST_MEMORY_STEPS = 100  # of SGD's momentum: 0.99, as published
SHORTEST_MEMORY_STEPS = 10  # momentum 0.9


class TrainSettings(Record):
    """Settings of one training run. With a time budget ``epochs`` does not count: the schedule follows the clock."""

    epochs: int = Field(default=EPOCHS, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    time_budget_s: float | None = Field(default=None, gt=0)
    batch_size: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    augmentation: Literal["device", "none"] = "device"
    learning_rate: float = Field(default=0.01, gt=0)
    momentum: float | None = Field(default=None, ge=0, lt=1)  # None: by the length of the run
    weight_decay: float = Field(default=3e-5, ge=0)
    gradient_clip: float = Field(default=12.0, gt=0)
    foreground_share: float = Field(default=0.33, ge=0, le=1)
    compile: bool | None = None  # None: on CUDA only


def poly_learning_rate(progress: float, initial: float, power: float = 0.9) -> float:
    """Polynomial decay from ``initial`` at progress 0 to zero at progress 1 (Isensee et al. 2021)."""
    return initial * max(0.0, 1 - progress) ** power


def momentum_for(total_steps: float) -> float:
    """Momentum whose memory is a hundredth of the run, between 0.9 and the published 0.99 (from 10 000 steps on).

    A memory of 100 steps is made for 250 000 of them: a run of a few hundred steps spends itself overshooting.
    """
    memory_steps = min(max(total_steps / 100, SHORTEST_MEMORY_STEPS), LONGEST_MEMORY_STEPS)
    return 1 - 1 / memory_steps
