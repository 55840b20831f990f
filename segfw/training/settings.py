"""How one fold is trained: every choice that is not the plan's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from segfw.base.records import Record
from segfw.planning.rules import EPOCHS


class TrainSettings(Record):
    """Settings of one training run. With a time budget ``epochs`` does not count: the schedule follows the clock."""

    epochs: int = Field(default=EPOCHS, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    time_budget_s: float | None = Field(default=None, gt=0)
    batch_size: int | None = Field(default=None, ge=1)  # None: the plan's, less where a time budget is short
    seed: int = Field(default=0, ge=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    augmentation: Literal["device", "reference", "none"] = "device"
    elastic: bool = False  # elastic deformation as well, which the published recipe leaves out
    loss: Literal["dice-ce", "dice-topk"] = "dice-ce"
    accumulate: int = Field(default=1, ge=1)  # parts that a batch is computed in, one after the other
    patience: int | None = Field(default=None, ge=1)  # epochs without progress after which the run is brought to an end
    learning_rate: float | None = Field(default=None, gt=0)  # at the start; None: by the momentum
    momentum: float | None = Field(default=None, ge=0, lt=1)  # None: by the length of the run
    mirroring: bool | None = None  # None: by the length of the run
    weight_decay: float = Field(default=3e-5, ge=0)
    gradient_clip: float = Field(default=12.0, gt=0)
    foreground_share: float = Field(default=0.33, ge=0, le=1)
    compile: bool | None = None  # None: where it pays (device.compiling_pays)
