"""A data set to train on: its layout, cases, channels and labels as its folder tells them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segfw.base.answers import Answer
from segfw.base.errors import UserError
from segfw.base.shell_line import shell_line
from segfw.base.words import count
from segfw.dataset.dataset_json import DESCRIPTION_FILE
from segfw.dataset.layouts import find_dataset


class DataStanding(Answer):
    """What a folder of images and masks holds; channels and labels are None where only the files can tell."""

    kind: Literal["data"] = "data"
    path: Path
    name: str
    layout: str
    cases: tuple[str, ...]
    channels: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    findings: tuple[str, ...]
    next: str

    def text(self) -> str:
        """A few lines, and the next command."""
        lines = [
            f"{self.path}: data set {self.name}, {count(len(self.cases), 'case')} ({self.layout} layout)",
            f"channels: {', '.join(self.channels) if self.channels else 'told by the images'}",
            f"labels: {', '.join(self.labels) if self.labels else 'told by the masks'}",
            *self.findings,
        ]
        return "\n".join([*lines, f"next: {self.next}"])


def data_standing(path: Path) -> DataStanding | None:
    """What a data set holds; None if the folder is none. UserError if its dataset.json is wrong."""
    if not path.is_dir():
        return None
    try:
        found = find_dataset(path)
    except UserError:
        if (path / DESCRIPTION_FILE).is_file():
            raise
        return None
    return DataStanding(
        path=path,
        name=found.name,
        layout=found.layout,
        cases=tuple(case.id for case in found.cases),
        channels=None if found.channels is None else tuple(channel.name for channel in found.channels),
        labels=None if found.labels is None else tuple(found.labels.structures),
        findings=tuple(finding.full_sentence for finding in found.findings),
        next=shell_line("segfw", "check", path),
    )
