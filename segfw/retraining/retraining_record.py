"""What a retraining was decided to be, before anything was trained: retraining.json of the new work folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from segfw.base.durations import typed_duration
from segfw.base.records import Record, StoredPath
from segfw.dataset.cases import Case
from segfw.retraining.retrain_options import LENGTH_SHARE, SEED

RETRAINING_FILE = "retraining.json"
CONTROL_FOLDER = "control"  # in the new work folder: the arm that sees no new label
TEST_FOLDER = "test"  # in the new work folder: masks of the test cases by base, control and new
# unedited: as the model drew it; edited: drawn by the model, then changed; blank: drawn without the model
BeganAs = Literal["unedited", "edited", "blank"]


class NewLabel(Record):
    """A case with a label that experts reviewed, whose it is and where it came from."""

    case: Case
    folder: StoredPath
    version: int
    sha256: str  # of the version's voxels, place and names
    state: str
    began_as: BeganAs
    reviewed_by: str | None
    signed_by: str | None
    patient: str = ""
    held_out_of: tuple[str, ...] = ()  # folds that do not train on it

    @property
    def may_evaluate(self) -> bool:
        """Whether it says something of a model: a label that began as a model's output stays near to it."""
        return self.began_as == "blank"


class FoldStart(Record):
    """What a fold begins with in both arms, and for how long it is trained."""

    fold: str
    weights_sha256: str  # of the base's file; also where new weights are drawn, since it is compared with
    original_steps: int
    original_rate: float
    epochs: int
    steps_per_epoch: int
    learning_rate: float
    old_share: float  # of the samples of a batch, in expectation

    @property
    def steps(self) -> int:
        """Of each arm."""
        return self.epochs * self.steps_per_epoch


class AskedRetraining(Record):
    """What the same command must ask for again to go on."""

    base: StoredPath
    labels: tuple[StoredPath, ...]
    states: Literal["signed", "reviewed"]
    scratch: bool
    length_share: float
    epochs: int | None
    time_budget_s: float | None
    test: StoredPath | None
    groups: str | None
    configuration: str | None
    folds: tuple[str, ...] | None
    seed: int

    def words(self, new: Path) -> list[str]:
        """The command that goes on with it in the folder ``new``."""
        words = ["segfw", "retrain", self.base.as_posix(), new.as_posix(), "--labels", *map(Path.as_posix, self.labels)]
        if self.states != "signed":
            words += ["--states", self.states]
        if self.scratch:
            words.append("--scratch")
        given: dict[str, object] = {
            "--length-share": self.length_share,
            "--epochs": self.epochs,
            "--time-budget": None if self.time_budget_s is None else typed_duration(self.time_budget_s),
            "--test": None if self.test is None else self.test.as_posix(),
            "--groups": self.groups,
            "--configuration": self.configuration,
            "--seed": self.seed,
        }
        for name, value in given.items():
            if value is not None and (name, value) not in (("--length-share", LENGTH_SHARE), ("--seed", SEED)):
                words += [name, str(value)]
        return words if self.folds is None else [*words, "--folds", *self.folds]


class Retraining(Record):
    """All decisions: cases, folds, lengths. Whoever goes on with the folder follows them."""

    asked: AskedRetraining
    configuration: str
    new: tuple[NewLabel, ...]
    left_out: Mapping[str, str]  # case: why it is not taken, though its label is there
    patient_of: Mapping[str, str]  # of all cases, old and new
    test_patient_of: Mapping[str, str]  # of the test cases, if there are any
    folds: tuple[FoldStart, ...]
    version: str  # of segfw

    def count(self, began_as: BeganAs) -> int:
        """How many of the new labels began so."""
        return sum(label.began_as == began_as for label in self.new)


def read_retraining(work: Path) -> Retraining | None:
    """Of a work folder that ``retrain`` made; None for any other."""
    path = Path(work) / RETRAINING_FILE
    return Retraining.load(path) if path.is_file() else None
