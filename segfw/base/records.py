"""Frozen records kept as strict JSON, and errors that a user can act on."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from segfw.base.files import write_text

GIGABYTE = 1024**3
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # of a configuration or fold, as part of a path everywhere


class UserError(Exception):
    """The user's input is wrong. The message is one sentence: which file, what value, what to do."""


class Record(BaseModel):
    """Base of every decision that is kept in a work folder: frozen, and no unknown or missing key passes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def save(self, path: Path) -> None:
        """Writes the record as indented JSON, atomically."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a record; raises UserError naming the file and the field that is wrong."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); is this the folder segfw wrote?") from None
        except UnicodeDecodeError:
            raise UserError(f"{path}: is not text; restore the file or make it again") from None
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str | bytes, source: Path | str) -> Self:
        """The record in a text of JSON; raises UserError naming ``source`` and the field that is wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the file"
            raise UserError(f"{source}: field {field!r}: {first['msg']}; restore the file or make it again") from None
