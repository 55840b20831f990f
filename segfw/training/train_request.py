"""What is asked for when one fold is to be trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from segfw.base.ranks import ALONE, Ranks
from segfw.model.training_record import StartFacts
from segfw.networks import BuildNetwork, build_network
from segfw.networks.losses import LABELS, Loss, Target
from segfw.planning.plan import Configuration
from segfw.planning.splits import Fold
from segfw.training.batches import Augment
from segfw.training.checkpoint import CHECKPOINT_EVERY_S
from segfw.training.lesson import Lesson
from segfw.training.schedule import FEWEST_GAIN
from segfw.training.settings import TrainSettings
from segfw.training.stop_file import LOOK_EVERY_S
from segfw.training.whole_case_validation import WHOLE_CASES_SHARE, CountWholeCase

BuildLoss = Callable[[Configuration, Target], Loss]


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """One fold to train, and all that is wanted of it.

    With ``resume`` the run in ``folder`` goes on from its last checkpoint, with the settings that it was started with
    in place of ``settings``; with ``extend_epochs`` or ``extend_s`` as well, for so much longer than it was to last.
    ``build``, ``build_loss`` and ``augment`` take the place of the network, the loss and the augmentation, and
    ``lesson`` that of masks and of all that is known by them.
    """

    folder: Path  # of the run: checkpoints, figures and in the end weights
    preprocessed: Path  # the configuration's folder of stored cases
    configuration: Configuration
    fold: Fold
    settings: TrainSettings
    label_names: Sequence[str]  # of all but the background
    target: Target = LABELS  # what the network's outputs mean
    structures: Sequence[tuple[int, ...]] = ()  # as classes: for a refiner, which learns one of them in each sample
    annotated: Mapping[str, tuple[bool, ...]] = field(default_factory=dict)  # outputs, of cases annotated in part
    output_orders: Mapping[int, tuple[int, ...]] = field(
        default_factory=dict
    )  # outputs of an image mirrored along axes
    previous: Path | None = None  # for the second stage of a cascade: the folder of what the first one found
    device: str = "auto"
    resume: bool = False
    extend_epochs: int | None = None
    extend_s: float | None = None
    build: BuildNetwork = build_network
    build_loss: BuildLoss | None = None
    augment: Augment | None = None
    lesson: Lesson | None = None
    keep_at: Sequence[float] = ()  # parts of the schedule after which the weights are kept
    structure_shares: Mapping[str, float] = field(default_factory=dict)  # of a case, as far as they are known
    keeps_patch: bool = False  # also where a time budget has room for few of them, as in the published recipe
    start: Callable[[nn.Module], None] | None = None  # may change a new network's weights
    start_facts: StartFacts | None = None  # what these begin with
    count_whole_case: CountWholeCase | None = None  # predicts a validation case as a whole
    log: Sequence[str] = ()  # further writers of the figures (writers.WRITERS)
    ranks: Ranks = ALONE
    checkpoint_every_s: float = CHECKPOINT_EVERY_S
    look_for_stop_every_s: float = LOOK_EVERY_S
    whole_cases_share: float = WHOLE_CASES_SHARE  # of the work of training
    fewest_gain: float = FEWEST_GAIN  # of the smoothed Dice; less is no progress
    now_s: Callable[[], float] = time.monotonic  # the clock that budgets, checkpoints and looks for STOP go by

    @property
    def is_extended(self) -> bool:
        """True if a run is to last longer than it was made for."""
        return bool(self.extend_epochs or self.extend_s)
