"""What ``refine`` did, for people and programs."""

from __future__ import annotations

from pathlib import Path

from segfw.base.answers import Answer
from segfw.base.records import Record, StoredPath
from segfw.base.words import count
from segfw.clicks.click import Click


class DoneClick(Record):
    """A click, and what it changed: voxels by label or region."""

    click: Click
    gained: dict[str, int]
    lost: dict[str, int]
    seconds: float

    @property
    def line(self) -> str:
        """'liver, inside, at (1.5, 2, 3) mm: liver +120, spleen -3 (0.41 s)'."""
        side = "inside" if self.click.inside else "outside"
        place = ", ".join(f"{each:.6g}" for each in self.click.ras_mm)
        parts = [f"{name} +{number}" for name, number in self.gained.items()]
        parts += [f"{name} -{number}" for name, number in self.lost.items()]
        changed = ", ".join(parts) or "nothing changed: the mask says so already"
        return f"{self.click.label}, {side}, at ({place}) mm: {changed} ({self.seconds:.2f} s)"


class Refined(Answer):
    """A corrected mask; ``labels_from`` is the file that names its labels, None if the model does."""

    kind: str = "refined"
    output: StoredPath
    edits: StoredPath
    clicks: tuple[DoneClick, ...]
    labels_from: StoredPath | None
    model: str

    def text(self) -> str:
        """A line for each click, and where the mask is."""
        names = Path(self.labels_from) if self.labels_from is not None else "the model"
        lines = [each.line for each in self.clicks]
        lines.append(f"{count(len(self.clicks), 'click')}; names of labels are those of {names}")
        lines.append(f"written: {self.output}, which nobody has reviewed, and {self.edits}")
        return "\n".join(lines)
