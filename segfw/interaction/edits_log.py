"""``edits.jsonl`` beside a corrected mask: a line for every click, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.base.errors import UserError
from segfw.base.file_names import HIDDEN
from segfw.base.files import write_text
from segfw.base.locks import in_turn
from segfw.base.records import Record
from segfw.base.written_by_people import read_text
from segfw.clicks.click import Click

EDITS_FILE = "edits.jsonl"


class Edit(Record):
    """A click, what it changed, and the refiner that did it.

    ``gained`` and ``lost`` are voxels by label or region. ``model`` is the SHA-256 of the refiner's weights.
    """

    mask: str  # name of the file that was written
    made_from: str  # name of the mask before all clicks
    number: int  # of the click among those of one call, from 1 on
    click: Click
    may_overwrite: bool
    gained: dict[str, int]
    lost: dict[str, int]
    seconds: float
    model: str


def read_edits(path: Path) -> list[Edit]:
    """All lines; none where there is no file. UserError naming file and line if one is no edit."""
    if not path.is_file():
        return []
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); move it away") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    return [Edit.parse(line, f"{path}: line {number}") for number, line in lines]


def write_edits(path: Path, edits: Sequence[Edit], *, replaces: str = "") -> None:
    """Adds lines to the log, which is written whole; those of the mask ``replaces``, which is no longer there, go."""
    with in_turn(path.with_name(HIDDEN) / f"{path.name}.lock", f"{path}: is being written"):
        kept = [edit for edit in read_edits(path) if edit.mask != replaces]
        write_text(path, "".join(f"{edit.model_dump_json()}\n" for edit in (*kept, *edits)))
