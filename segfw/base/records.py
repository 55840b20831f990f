"""Frozen records kept as strict JSON, and errors that a user can act on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PlainSerializer, ValidationError
from pydantic_core import PydanticSerializationError

from segfw.base.errors import UserError as UserError
from segfw.base.files import write_text
from segfw.base.printing import printable
from segfw.base.written_by_people import decode_text, read_text
from segfw.base.wrong_value import wrong_value

GIGABYTE = 1024**3
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # of a configuration or fold, as part of a path everywhere


# A path in a record: with / on every system, so that what Windows wrote can be read elsewhere.
StoredPath = Annotated[Path, PlainSerializer(lambda path: path.as_posix(), return_type=str, when_used="json")]


class Record(BaseModel):
    """Base of every decision that is kept in a work folder: frozen, and no unknown or missing key passes.

    ``REMEDY`` is what to do where one in a file is wrong: another thing for files that people write.
    """

    REMEDY: ClassVar[str] = "restore the file or make it again"

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def save(self, path: Path) -> None:
        """Writes the record as indented JSON, atomically."""
        try:
            text = self.model_dump_json(indent=1)
        except PydanticSerializationError:  # a name of a file that is not UTF-8
            text = json.dumps(_printable(self.model_dump(mode="python")), indent=1, default=str)
        write_text(path, text + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a record; raises UserError naming the file and the field that is wrong."""
        try:
            text = read_text(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); is this the folder segfw wrote?") from None
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str | bytes, source: Path | str) -> Self:
        """The record in a text of JSON; raises UserError naming ``source`` and the field that is wrong."""
        if isinstance(text, bytes):
            text = decode_text(text, source)
        if "\\u0000" in text:
            raise UserError(f"{source}: holds a text with NUL in it, which no name can; restore the file")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            what = wrong_value(f"field {field!r}" if field else "", first)
            raise UserError(f"{source}: {what.strip()}; {cls.REMEDY}") from None


def _printable(value: Any) -> Any:
    """The value, as JSON holds it, with half characters in its texts escaped."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {_printable(key): _printable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(part) for part in value]
    return value
