"""What stays the same while one fold is trained: built once, when all is decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segfw.base.device_timer import DeviceTimer
from segfw.base.ranks import Ranks
from segfw.images.geometry import Shape
from segfw.networks.losses import Target
from segfw.planning.plan import Configuration
from segfw.training.batches import Batches
from segfw.training.captured_steps import CapturedSteps
from segfw.training.checkpoint import Checkpoints
from segfw.training.lesson import Lesson
from segfw.training.patch_stages import PatchStage
from segfw.training.progress_page import ProgressPage
from segfw.training.schedule import FittedSettings
from segfw.training.step import Compute, TriedWorkspace
from segfw.training.stop_file import StopFile
from segfw.training.whole_case_validation import WholeCases
from segfw.training.writers import Writer


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """One fold's training: what is computed, on which data, and where it is written down.

    Whatever changes while it trains is in TrainState.
    """

    folder: Path
    configuration: Configuration
    settings: FittedSettings
    label_names: tuple[str, ...]  # of all but the background
    target: Target  # what the network's outputs mean
    compute: Compute
    train_ids: tuple[str, ...]  # of the training cases, in the order of the batches' cases
    stages: tuple[PatchStage, ...]  # of growing patches; a single one where they are all alike
    stage_batches: tuple[Batches, ...]  # of the training cases, for each stage
    val_batches: Batches
    whole_cases: WholeCases | None
    checkpoints: Checkpoints
    stop_file: StopFile
    augmentation_timer: DeviceTimer
    workspace: TriedWorkspace
    steps: CapturedSteps
    writers: Sequence[Writer]  # of the first rank
    page: ProgressPage
    lesson: Lesson | None  # in place of masks
    keep_at: Sequence[float]  # parts of the schedule after which the weights are kept
    fewest_gain: float  # of the smoothed Dice; less is no progress
    now_s: Callable[[], float]

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return self.compute.ranks

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Axes along which the network sees mirrored images."""
        return self.stage_batches[0].mirror_axes

    @property
    def patch_size(self) -> Shape:
        """Of the last stage: prediction takes tiles of it."""
        return self.stages[-1].patch_size
