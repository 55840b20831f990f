"""A folder of masks that ``segfw deliver`` wrote for others."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segfw.base.answers import Answer
from segfw.base.shell_line import shell_line
from segfw.base.words import count
from segfw.delivery.delivery_list import LIST_FILE, DeliveryList

SHOWN = 5  # files that lines list


class DeliveryStanding(Answer):
    """How many files of how many cases were delivered, and which of them no longer held at the last delivery.

    ``drafts`` are the cases that were delivered for research only.
    """

    kind: Literal["delivery"] = "delivery"
    path: Path
    files: int
    cases: int
    drafts: tuple[str, ...]
    superseded: dict[str, str]
    next: str

    def text(self) -> str:
        """A few lines, and the next command."""
        signed = self.cases - len(self.drafts)
        parts = [f"{count(signed, 'case')} signed"] if signed else []
        parts += [f"{count(len(self.drafts), 'draft')} for research only"] if self.drafts else []
        lines = [f"{self.path}: {count(self.files, 'file')} that segfw deliver wrote, {', '.join(parts) or 'no case'}"]
        lines += [f"no longer holds: {file}, because {why}" for file, why in list(self.superseded.items())[:SHOWN]]
        if len(self.superseded) > SHOWN:
            lines.append(f"and {len(self.superseded) - SHOWN} more, see delivered.csv")
        return "\n".join([*lines, f"whether all of it still holds: {self.next}"])


def delivery_standing(path: Path) -> DeliveryStanding | None:
    """What a folder of deliveries holds, by its list; None if it is none. UserError if the list is damaged."""
    if not (path / LIST_FILE).is_file():
        return None
    found = DeliveryList.load(path / LIST_FILE)
    return DeliveryStanding(
        path=path,
        files=len(found.files),
        cases=len({each.case for each in found.files}),
        drafts=tuple(dict.fromkeys(each.case for each in found.files if each.state != "SIGNED")),
        superseded={each.file: each.superseded for each in found.files if each.superseded},
        next=shell_line("segfw", "deliver", "MASKS", path, "--check"),
    )
