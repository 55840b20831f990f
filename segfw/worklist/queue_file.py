"""``review/queue.json``: the queue as the review page reads it, in columns, because there may be very many items."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from segfw.base.file_names import REVIEW_FOLDER
from segfw.base.files import write_text
from segfw.base.records import Record
from segfw.worklist.audit_sample import AuditResult
from segfw.worklist.minutes_model import MinutesModel
from segfw.worklist.stopping_rule import Stop

QUEUE_FILE = "queue.json"
ROLES = ("work", "audit")


class QueueItem(Record):
    """One item. ``region`` is None of a structure as a whole; ``minutes`` it takes, ``gain`` is the Dice it adds.

    Of items with the role 'audit' nothing is told that was predicted, so that they are read blind; their minutes are
    those of looking alone.
    """

    case: str
    structure: str
    region: int | None
    role: Literal["work", "audit"]
    predicted_dice: float | None
    lower_bound: float | None
    verdict: str | None
    reason: str
    minutes: float | None
    gain: float | None


class QueueColumns(Record):
    """Items as columns, in their order; ``case``, ``structure``, ``verdict`` and ``reason`` are numbers in the lists of
    names, ``region`` is -1 of a structure as a whole."""

    case: tuple[int, ...]
    structure: tuple[int, ...]
    region: tuple[int, ...]
    role: tuple[int, ...]
    predicted_dice: tuple[float | None, ...]
    lower_bound: tuple[float | None, ...]
    verdict: tuple[int, ...]
    reason: tuple[int, ...]
    minutes: tuple[float, ...]
    gain: tuple[float, ...]


class ReviewQueue(Record):
    """A queue, what it was made for and by, and whether it is time to stop.

    ``spent_minutes`` are those of the ledger, ``total_minutes`` what all items would take. ``within_minutes`` of the
    items fit into the minutes that may be spent. ``is_blind``: quality is hidden until the first decision.
    ``second_reading`` are the cases that a second reader has, ``left_out`` those of which nothing is told.
    """

    format: Literal["segfw queue 1"] = "segfw queue 1"
    made_utc: str
    goal: Literal["pool", "model"]
    ranked_by: Literal["quality", "doubt"]
    seed: int
    minutes: float | None
    worth: float | None
    weights: dict[str, float]
    is_blind: bool
    minutes_model: MinutesModel
    spent_minutes: float
    total_minutes: float
    within_minutes: int
    closed_items: int
    stop: Stop
    audit_state: Literal["none", "drawn", "begun"]
    audit: tuple[AuditResult, ...]
    second_reading: tuple[str, ...]
    left_out: tuple[str, ...]
    cases: tuple[str, ...]
    structures: tuple[str, ...]
    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]
    columns: QueueColumns

    @model_validator(mode="after")
    def _columns_fit(self) -> ReviewQueue:
        lengths = {len(getattr(self.columns, name)) for name in QueueColumns.model_fields}
        if len(lengths) != 1:
            raise ValueError("the columns differ in length")
        names = {"case": self.cases, "structure": self.structures, "verdict": self.verdicts, "reason": self.reasons}
        for name, known in (names | {"role": ROLES}).items():
            numbers = getattr(self.columns, name)
            if numbers and not 0 <= min(numbers) <= max(numbers) < len(known):
                raise ValueError(f"column {name!r} has a number that none of the {len(known)} names has")
        return self

    def __len__(self) -> int:
        return len(self.columns.case)

    def item(self, place: int) -> QueueItem:
        """The item at a place, from 0."""
        columns = self.columns
        is_audit = ROLES[columns.role[place]] == "audit"
        region = columns.region[place]
        return QueueItem(
            case=self.cases[columns.case[place]],
            structure=self.structures[columns.structure[place]],
            region=None if region < 0 else region,
            role="audit" if is_audit else "work",
            predicted_dice=None if is_audit else columns.predicted_dice[place],
            lower_bound=None if is_audit else columns.lower_bound[place],
            verdict=None if is_audit else self.verdicts[columns.verdict[place]] or None,
            reason="drawn for the audit" if is_audit else self.reasons[columns.reason[place]],
            minutes=columns.minutes[place],
            gain=None if is_audit else columns.gain[place],
        )

    def items(self, offset: int = 0, limit: int | None = None) -> list[QueueItem]:
        """Items from a place on."""
        stop = len(self) if limit is None else min(len(self), offset + limit)
        return [self.item(place) for place in range(offset, stop)]

    def write(self, folder: Path) -> Path:
        """Writes it into a folder of masks, on one line: there may be a million figures."""
        path = queue_file(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, self.model_dump_json() + "\n")
        return path


def queue_file(folder: Path) -> Path:
    """Where the queue lies in a folder of masks."""
    return Path(folder) / REVIEW_FOLDER / QUEUE_FILE


def read_queue(folder: Path) -> ReviewQueue | None:
    """The queue of a folder of masks; None if none was made. UserError if the file is damaged."""
    path = queue_file(folder)
    return ReviewQueue.load(path) if path.is_file() else None
