"""Results that are lines of a file."""

from __future__ import annotations

from pathlib import Path

from segfw.base.records import Record


class ResultLine(Record):
    """A result that is kept as a line of a file."""

    def append_to(self, path: Path) -> None:
        """Adds it to the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(self.model_dump_json() + "\n")
