"""What a data set consists of: its channels, labels and cases; and what can be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from segfw.base.records import Record
from segfw.dataset.labels import LabelMap, LabelSet

MANIFEST_FILE = "manifest.json"


class Channel(Record):
    """One input channel; the name (such as 'CT' or 'T1') decides its normalisation."""

    name: str


class Case(Record):
    """One patient or scan: its image files (one per channel, or one with all channels) and its mask, if any."""

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    label_map: LabelMap = ()  # what some values in this case's mask mean


class DatasetManifest(Record):
    """A verified data set. ``notes`` say in words what was inferred rather than read."""

    name: str
    root: Path
    layout: str
    channels: tuple[Channel, ...]
    labels: LabelSet
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with the data: where, what, and what to do. Warnings do not stop the work.

    ``kind`` is a short name that stays the same however the sentence is worded; ``others`` are further cases involved.
    """

    kind: str
    case: str
    file: str
    what: str
    remedy: str
    is_warning: bool = False
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = f"{self.case}: {self.file}" if self.file else self.case
        return f"{'warning: ' if self.is_warning else ''}{place}: {self.what}; {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class FoundDataset:
    """A data set as its folder and dataset.json describe it; no image has been opened yet.

    ``channels`` and ``labels`` are None where only the files themselves can tell.
    """

    name: str
    root: Path
    layout: str
    channels: tuple[Channel, ...] | None
    labels: LabelSet | None
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = field(default=())
