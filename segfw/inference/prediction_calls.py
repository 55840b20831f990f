"""Which cases were asked for in a folder of masks, so that it can be told how many are left."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from segfw.base.file_names import HIDDEN
from segfw.base.records import Record, UserError

CALLS = "calls"  # in HIDDEN: a file for each part


class PredictionCall(Record):
    """What ``predict`` was last asked for: model and images as they were typed, and the cases of its part."""

    model: Path
    images: Path
    cases: tuple[str, ...]
    part: str  # '1/1' are all
    started: str  # ISO 8601, UTC


def note_call(output: Path, model: Path, images: Path, cases: tuple[str, ...], part: str) -> None:
    """Keeps what is asked for; another call for the same part replaces it."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    call = PredictionCall(model=model, images=images, cases=cases, part=part, started=started)
    folder = output / HIDDEN / CALLS
    folder.mkdir(parents=True, exist_ok=True)
    call.save(folder / f"part_{part.replace('/', '_of_')}.json")


def read_calls(output: Path) -> list[PredictionCall]:
    """What was asked for in a folder of masks, the newest last; none of a folder of an older version."""
    calls = []
    for file in (output / HIDDEN / CALLS).glob("[!.]*.json"):
        try:
            calls.append(PredictionCall.load(file))
        except UserError:  # damaged, or of another version: masks count, not this
            continue
    return sorted(calls, key=lambda call: call.started)
