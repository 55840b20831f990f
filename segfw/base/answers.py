"""What a verb found out, as a record: the text for people is made from it, and ``--json`` prints it for programs."""

from __future__ import annotations

import json

from segfw.base.records import Record


class Answer(Record):
    """The base of such records. ``kind`` says which one it is; keys that are documented stay."""

    kind: str

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return 0

    def text(self) -> str:
        """The answer for a reader."""
        raise NotImplementedError

    def json_text(self) -> str:
        """The answer as one JSON document, in ASCII, so that it passes through every terminal and pipe unchanged."""
        return json.dumps(self.model_dump(mode="python"), indent=1, default=str)

    def __str__(self) -> str:
        return self.text()
