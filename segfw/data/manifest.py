"""What a data set consists of: its channels, labels and cases; and what can be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import model_validator

from segfw.records import Record

LABELS_FILE = "labels.json"  # beside predicted masks: the LabelSet they were written with


class Channel(Record):
    """One input channel; the name (such as 'CT' or 'T1') decides its normalisation."""

    name: str


class LabelSet(Record):
    """Names and file values of the classes; class 0 is the background. Masks hold ``values``, the network classes."""

    names: tuple[str, ...]
    values: tuple[int, ...]

    @model_validator(mode="after")
    def _consistent(self) -> LabelSet:
        if len(self.names) != len(self.values) or len(self.names) < 2:
            raise ValueError("needs one value per name, and at least the background and one label")
        for kind, items in (("names", self.names), ("values", self.values)):
            if len(set(items)) != len(items):
                raise ValueError(f"{kind} {items} are not distinct")
        return self

    @property
    def classes(self) -> int:
        """Number of classes including the background: the channels of the network's output."""
        return len(self.values)

    @property
    def foreground(self) -> dict[str, int]:
        """Class index of each label except the background, by name."""
        return {name: index for index, name in enumerate(self.names) if index > 0}

    def to_classes(self, mask: np.ndarray) -> np.ndarray:
        """Class index of every voxel, uint8 or uint16; raises ValueError on a value that is no label."""
        order = np.argsort(self.values)
        sorted_values = np.asarray(self.values)[order]
        place = np.searchsorted(sorted_values, mask).clip(0, len(order) - 1)
        if not np.array_equal(sorted_values[place], mask):
            raise ValueError(f"mask holds values outside {sorted(self.values)}")
        return order.astype(np.uint8 if self.classes <= 256 else np.uint16)[place]

    def to_values(self, classes: np.ndarray) -> np.ndarray:
        """File value of every voxel: the inverse of ``to_classes``."""
        return np.asarray(self.values, dtype=np.int32)[classes]


class Case(Record):
    """One patient or scan: its image files (one per channel, or one with all channels) and its mask, if any."""

    id: str
    images: tuple[Path, ...]
    label: Path | None = None


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
    """One thing that is wrong with the data: where, what, and what to do. Warnings do not stop the work."""

    case: str
    file: str
    what: str
    remedy: str
    is_warning: bool = False

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
