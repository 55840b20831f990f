"""What a network learns in place of masks: what it is shown, what it is to say, and how good it is at that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from segfw.model.training_record import PatchFigures
from segfw.networks.losses import Join, Loss
from segfw.training.batches import Batches, Pose
from segfw.training.checkpoint import TrainState
from segfw.training.step import Compute


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How good a network is on validation patches: the larger the score, the better."""

    figures: PatchFigures
    score: float
    predicts_nothing: bool = False  # background everywhere


# Of so many steps' patches
Judge = Callable[[Compute, TrainState, Batches, int], Judged]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a run learns of images alone. Its cases have no masks, and its network an output for whatever it says.

    ``title`` and ``afterwards`` are for the page of the run: what it is, and what follows it.
    """

    pose: Pose
    truth_channels: int  # of what ``pose`` says is right
    build_loss: Callable[[Join], Loss]
    judge: Judge
    title: str
    afterwards: str
