"""What a fold's folder tells of its training: run.json, of each session, and metrics.jsonl, of each epoch.

Training writes both; whoever shows or hands on a model reads them here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypedDict

from pydantic import JsonValue, SerializerFunctionWrapHandler, model_serializer

from segfw.base.records import Record, UserError
from segfw.base.written_by_people import parse_json, read_json

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
VALIDATION_SCORES = Path("validation", "scores.json")  # of whole cases, after the training


class GitState(Record):
    """Commit that the code was checked out at; ``is_changed`` if files of the package differ from it."""

    commit: str
    is_changed: bool


class Session(Record):
    """One process, or group of processes, that trained; a run that was resumed or extended has several.

    Names of people, hosts and home folders are left out, since runs are handed on with their models.
    """

    how: Literal["started", "resumed", "extended"]
    started: str  # ISO 8601, UTC
    first_epoch: int  # counted from 1
    command: str
    settings: dict[str, JsonValue]
    device: str
    precision: str
    processes: int
    threads: int  # of each process
    versions: dict[str, str]
    system: str
    git: GitState | None  # None where the code is no checkout
    data_digest: str  # of the training cases as stored
    expected: str = ""  # steps, and what they are enough for, as was said before the first one


class StartFacts(Record):
    """The weights that a run began with: a file's name and SHA-256, and under which licence they were published.

    ``kind`` says whether they were trained on masks, pretrained on images by segfw, or published for others to use.
    """

    name: str
    sha256: str
    kind: Literal["trained", "pretrained", "published"]
    licence: str | None = None  # None where nothing beside the file says it

    @property
    def text(self) -> str:
        """'begun with FILE (published, licence cc-by-4.0)'."""
        licence = f", licence {self.licence or 'not stated beside it'}" if self.kind == "published" else ""
        return f"begun with {self.name} ({self.kind}{licence})"


class TrainingEnd(Record):
    """How much was trained when a run came to its end; ``warning`` says so where it is too little to be of use."""

    steps: int
    epochs: int
    seconds: float
    warning: str


class RunRecord(Record):
    """All sessions of one run, the oldest first, and its end once it has come; ``has_last_page`` where progress.html
    says that it has."""

    label_names: tuple[str, ...]
    sessions: tuple[Session, ...]
    end: TrainingEnd | None = None
    start: StartFacts | None = None
    has_last_page: bool = False

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """What was added later is left out where it says nothing: runs are written as before."""
        content: dict[str, object] = handler(self)
        if self.start is None:
            del content["start"]
        if not self.has_last_page:
            del content["has_last_page"]
        return content


def read_run_record(folder: Path) -> RunRecord | None:
    """The record of the run in ``folder``; None if there is none. UserError if it cannot be read."""
    path = folder / RUN_FILE
    return RunRecord.load(path) if path.is_file() else None


class TrainFigures(TypedDict):
    """What the steps of an epoch say."""

    train_loss: float  # mean over the steps
    learning_rate: float  # of the last step
    steps: int
    epoch_s: float
    augment_share: float  # of epoch_s
    stalled_share: float  # of epoch_s: how long the device waited for batches


class PatchFigures(TypedDict, total=False):
    """What the validation patches say after an epoch: of a run that learns masks its Dice."""

    val_loss: float
    val_dice: float  # mean over the structures that are known
    val_dice_per_label: list[float]
    val_explained: float  # of a run that learns hidden voxels: 1 less its squared error in units of that of zeros


class WholeCaseFigures(TypedDict, total=False):
    """What whole validation cases say, after the epochs that they are predicted in."""

    whole_case_dice: float
    whole_case_dice_per_label: list[float]


class Events(TypedDict, total=False):
    """What befell a run in an epoch, each as a sentence."""

    rescued: str
    extended: str
    cooling: str
    patches: str  # that grew


class EpochRow(TrainFigures, PatchFigures, WholeCaseFigures, Events, total=False):
    """A line of metrics.jsonl."""

    epoch: int  # counted from 0
    elapsed_s: float
    gpu_memory_gb: float  # on CUDA: held by PyTorch at the peak, since the first step on patches of that size
    gpu_tensors_gb: float  # of it, the tensors


NUMBERS = (
    *("epoch", "elapsed_s", "gpu_memory_gb", "gpu_tensors_gb", "train_loss", "learning_rate", "steps", "epoch_s"),
    *("augment_share", "stalled_share", "val_loss", "val_dice", "val_explained", "whole_case_dice"),
)
MOST_OF_A_FLOAT = 10**308  # JSON has integers of any length


def read_metrics(folder: Path) -> list[EpochRow]:
    """All lines of metrics.jsonl up to the first that is none, such as a last one that was cut off by a kill."""
    path = folder / METRICS_FILE
    rows: list[EpochRow] = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            row: EpochRow = parse_json(line, path, finite=False)  # a loss that is no number is one that was
        except UserError:
            break
        if not _is_row(row):
            break
        rows.append(row)
    return rows


def _is_row(row: object) -> bool:
    """Whether a line is of an epoch, with numbers where these belong; a loss may be NaN or infinite."""
    if not isinstance(row, dict) or not isinstance(row.get("epoch"), int):
        return False
    numbers = [row[name] for name in NUMBERS if name in row]
    return all(isinstance(each, float) or (isinstance(each, int) and abs(each) < MOST_OF_A_FLOAT) for each in numbers)


def read_curve(folder: Path) -> list[dict[str, float]]:
    """What is one number in each row of metrics.jsonl."""
    return [
        {name: value for name, value in row.items() if isinstance(value, int | float)} for row in read_metrics(folder)
    ]


def validation_dice(folder: Path) -> float | None:
    """Mean Dice of a fold's whole validation cases; None where they are not scored, or the file is damaged."""
    if not (folder / VALIDATION_SCORES).is_file():
        return None
    try:
        dice = read_json(folder / VALIDATION_SCORES)["foreground_mean"]["dice"]
    except (UserError, KeyError, TypeError):
        return None
    return dice if isinstance(dice, float | int) else None
