"""What is kept of each finished training: a line of JSON, with the scores of every validation case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import JsonValue

from bench.result_lines import sourced_lines
from segfw.base.records import Record, UserError

# By name in METRICS of segfw/evaluation/metrics.py; scans have millimetres, photographs pixels.
KEPT_METRICS = ("dice", "nsd", "hd95_mm", "hd95_px")
DIGITS = 5  # of a score: lines are committed, and more digits tell nothing

Key = tuple[str, str, float, int, str, int]


class Arm(Record):
    """One way to train. Without a configuration the time budget chooses it; ``options`` are those of ``segfw run``."""

    name: str
    options: tuple[str, ...] = ()
    configuration: str | None = None


class Training(Record):
    """One training that is asked for; ``minutes`` are those of one core, so that two cores take half of them."""

    arm: Arm
    data_set: str
    minutes: float
    cores: int
    fold: str
    seed: int

    @property
    def key(self) -> Key:
        """What it is told apart by."""
        return (self.data_set, self.arm.name, self.minutes, self.cores, self.fold, self.seed)

    @property
    def group(self) -> tuple[str, float, int]:
        """Data set, minutes and cores: only arms with the same are compared."""
        return (self.data_set, self.minutes, self.cores)

    @property
    def text(self) -> str:
        """As it is called in what is printed."""
        return f"{self.data_set}, {self.arm.name}, fold {self.fold}, seed {self.seed}"


class CaseScores(Record):
    """Scores of one validation case, {structure: {metric: value}}; a metric that does not exist there is left out."""

    patient: str
    structures: dict[str, dict[str, float]]


class Result(Training):
    """A training that is finished. ``patch`` is that of its configuration in voxels (z, y, x), which prediction has.

    ``settings`` are those it was trained with, ``said`` is whatever else its run.json says of it as a whole.
    ``started`` (ISO 8601, UTC) tells it from another training of the same key. ``core_share`` is how much of its cores'
    time the process that ended it got: less than 1 where other programs used them, and then minutes are no measure.
    ``features`` are those of the network's first stage and ``shares`` what part of a case each structure takes: with
    the steps that were foretold all that a statement of usefulness goes by.
    """

    commit: str  # of the code that ended the training; '' where it is no checkout
    is_changed: bool  # whether files of the package differed from the commit, or the commits of its sessions do
    started: str
    processor: str
    device: str
    configuration: str
    patch: tuple[int, ...]
    precision: str
    steps: int
    seconds: float
    core_share: float | None
    settings: dict[str, JsonValue]
    said: dict[str, JsonValue]
    cases: dict[str, CaseScores]
    features: int | None = None
    shares: dict[str, float] = {}

    @classmethod
    def of(cls, training: Training, **found: Any) -> Self:
        """What was found of a training."""
        return cls(**dict(training), **found)


def every_result(path: Path) -> list[Result]:
    """All lines of a file, also those of trainings that were done again; UserError names a line that is none."""
    return [Result.parse(line, source) for source, line in sourced_lines(path)]


def require_same_arm(training: Training, results: Iterable[Training]) -> None:
    """UserError if the name of an arm stands for another way to train among the results."""
    for before in results:
        if before.arm.name == training.arm.name and before.arm != training.arm:
            raise UserError(
                f"arm {training.arm.name!r} was trained {how(before.arm)}, not {how(training.arm)}; give this one "
                "another name"
            )


def how(arm: Arm) -> str:
    """'with --patches grow as 2d', 'as it comes'."""
    options = f"with {' '.join(arm.options)}" if arm.options else ""
    configuration = f"as {arm.configuration}" if arm.configuration else ""
    return " ".join(part for part in (options, configuration) if part) or "as it comes"


def kept_scores(score: Record) -> dict[str, float]:
    """The scores of a structure in a case that are kept."""
    values = {name: getattr(score, name) for name in KEPT_METRICS}
    return {name: round(value, DIGITS) for name, value in values.items() if value is not None}


def structures_of(results: Sequence[Result]) -> list[str]:
    """Names of all structures that were scored, in the order of the labels."""
    cases = (case for result in results for case in result.cases.values())
    return list(dict.fromkeys(name for case in cases for name in case.structures))
