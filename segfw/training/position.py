"""Where a run is, between two epochs as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from segfw.training.metrics_log import clock, pace

Phase = Literal["training", "validating"]


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run is. What is not known yet, or not at all, is None."""

    phase: Phase
    epoch: int  # counted from 1
    epochs: int | None  # in all; None where the run lasts a time
    epoch_step: int  # done in this epoch
    epoch_steps: int | None  # of an epoch; None where an epoch lasts a time
    share: float  # done of the whole run, 0 to 1
    elapsed_s: float
    left_s: float | None
    step_s: float | None  # lately
    loss: float | None  # mean of the steps before the last look at it

    def step(self) -> str:
        """'step 12 of 250', 'step 12', or what is done before and after the steps."""
        of = f" of {self.epoch_steps}" if self.epoch_steps else ""
        if self.phase == "validating":
            return "validating"
        return f"step {self.epoch_step}{of}" if self.epoch_step else f"before step 1{of}"

    def place(self) -> str:
        """'epoch 1 of 1000, step 12 of 250'."""
        of = f" of {self.epochs}" if self.epochs else ""
        return f"epoch {self.epoch}{of}, {self.step()}"

    def line(self) -> str:
        """'epoch 1 of 1000, step 12 of 250: loss -0.312, 2.1 s/step, 0:25 so far, about 145:10:00 left'."""
        parts = []
        if self.loss is not None:
            parts.append(f"loss {self.loss:+.3f}")
        if self.step_s is not None:
            parts.append(pace(1, self.step_s))
        parts.append(f"{clock(self.elapsed_s)} so far")
        if self.left_s is not None:
            parts.append(f"about {clock(self.left_s)} left")
        return f"{self.place()}: {', '.join(parts)}"
