"""``review/log.jsonl``: a line for each event, chained by hashes, so that a change of any line shows.

Each line is JSON with sorted keys and without spaces; its ``sha256`` is over the same line without that key, which
holds the hash of the line before in ``prev``. That does not show a tail that was cut off, nor a log that was written
anew as a whole: the head (number and hash of the last line), kept elsewhere, does (an anchor).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from segfw.base.errors import UserError, raise_if_full
from segfw.base.file_names import REVIEW_FOLDER
from segfw.base.files import write_text
from segfw.base.locks import alone
from segfw.base.own_version import own_version
from segfw.base.records import Record
from segfw.base.written_by_people import read_text
from segfw.reviewing.states import Meaning, State

LOG_FILE_NAME = "log.jsonl"
LOCKS_FOLDER = "locks"
LOG_LOCK = "log.lock"
NOTHING_BEFORE = "0" * 64  # what the first line has as ``prev``
OWN_HASH = re.compile(rb'"sha256":"([0-9a-f]{64})",')
TAIL_BYTES = 1 << 16  # a line is shorter than this, as a rule
TORN_SHOWN = 200
Clock = Callable[[], datetime]


class Edited(Record):
    """Voxels that changed."""

    added: int
    removed: int


class Entry(Record):
    """What is to be noted. ``active_s`` is the time that somebody worked since the last event of the case.

    ``version`` 0 is the draft. ``model_digest`` is of the model whose drafts lie in the folder at that time.
    ``slices_viewed`` is how many slices were displayed since the case was opened; ``quality_shown`` and
    ``overlay_shown`` are whether a predicted quality, or a mask, was on the screen (None: not known). ``planted`` is
    written when planted errors are revealed, never before. ``name`` and ``meaning`` are of a signature.
    """

    model_config = ConfigDict(populate_by_name=True)

    event: str
    case: str | None = None
    structure: str | None = None
    region: int | None = None
    from_state: State | None = Field(default=None, alias="from")
    to_state: State | None = Field(default=None, alias="to")
    user: str = ""
    identity: str = "declared"
    version: int | None = None
    version_sha256: str | None = None
    image_sha256: str | None = None
    model_digest: str | None = None
    active_s: float = 0.0
    slices_viewed: int = 0
    edited: Edited | None = None
    quality_shown: bool | None = None
    overlay_shown: bool | None = None
    planted: bool | None = None
    decision: str | None = None
    reason: str = ""
    meaning: Meaning | None = None
    name: str | None = None


class Event(Entry):
    """A line of the log."""

    n: int
    utc: str
    segfw: str
    prev: str
    sha256: str


class LogCheck(Record):
    """Whether the log is as it was written; else which line is not, from 1, and in words what is wrong.

    The head is that of the lines before it.
    """

    ok: bool
    line: int | None = None
    what: str = ""
    head_n: int
    head_sha256: str


class Anchor(Record):
    """The head of a log as it was once: line ``n`` had this hash."""

    n: int
    sha256: str
    utc: str


class LogDamaged(UserError):
    """A line of the log is not as it was written; ``line`` is its number."""

    def __init__(self, path: Path, line: int, what: str) -> None:
        super().__init__(
            f"{path}: line {line} {what}; put the log back from a copy: nothing is added to a log that was changed"
        )
        self.line = line
        self.what = what


class LogReader:
    """Reads a log from where it stopped, checks every line against the one before, and keeps the head."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0
        self.n = 0
        self.sha256 = NOTHING_BEFORE
        self.torn = b""  # after the last whole line

    def more(self) -> Iterator[dict[str, Any]]:
        """The lines that were added since; LogDamaged at the first that was changed."""
        self.torn = b""
        if not self.path.exists():
            if self.n:
                raise LogDamaged(self.path, self.n, "is gone, and so is the whole log")
            return
        with open(self.path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < self.bytes_read:
                raise LogDamaged(self.path, self.n, "is gone: the log has become shorter while it was used")
            file.seek(self.bytes_read)
            for line in file:
                if not line.endswith(b"\n"):
                    self.torn = line
                    return
                content = self._checked(line[:-1])
                self.bytes_read += len(line)
                yield content

    def _checked(self, line: bytes) -> dict[str, Any]:
        number = self.n + 1
        content = parsed(line)
        if content is None:
            raise LogDamaged(self.path, number, "was changed after it was written: its hash is another one")
        if content.get("prev") != self.sha256 or content.get("n") != number:
            raise LogDamaged(self.path, number, "does not follow the line before: one was taken out, put in or moved")
        self.n = number
        self.sha256 = content["sha256"]
        return content


class ReviewLog:
    """The log of one folder of masks. Any number of processes and threads may append to it."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.path = Path(folder) / REVIEW_FOLDER / LOG_FILE_NAME
        self._lock = self.path.parent / LOCKS_FOLDER / LOG_LOCK
        self._clock = clock

    @classmethod
    def open(cls, folder: Path, clock: Clock | None = None) -> ReviewLog:
        """The log of a folder of masks, whether there is one already or not."""
        return cls(folder, clock or now_utc)

    def append(self, entry: Entry) -> Event:
        """Adds a line, which is on the disk when this returns."""
        return self.append_all([entry])[0]

    def append_all(self, entries: Sequence[Entry]) -> list[Event]:
        """Adds lines that follow each other.

        A last line that was torn by a dead process is ended, or cut off and noted, and so is a clock that went back.
        Raises DiskFull where not all can be written, and LogDamaged if the last line is not as it was written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(self._lock):
            whole_bytes, torn, last = self._end()
            now = utc_text(self._clock())
            noted: list[Entry] = []
            unended = b""
            if torn and _follows(parsed(torn), last):
                unended = torn + b"\n"
                last = parsed(torn)
                noted.append(Entry(event="mended", reason="the end of the line before was missing"))
            elif torn:
                shown = torn[:TORN_SHOWN].decode("utf-8", "backslashreplace")
                noted.append(Entry(event="mended", reason=f"a torn line of {len(torn)} bytes was cut off: {shown}"))
            if last is not None and now < last["utc"]:
                noted.append(Entry(event="clock-back", reason=f"the clock went back from {last['utc']} to {now}"))
            events = _chained([*noted, *entries], last, now)
            self._write(whole_bytes, unended + b"".join(line_of(event) for event in events))
        return events[len(noted) :]

    def events(self) -> list[Event]:
        """All events, in their order; LogDamaged if a line was changed."""
        return [Event.model_validate(content) for content in LogReader(self.path).more()]

    def verify(self, anchor: Path | None = None) -> LogCheck:
        """Reads all lines; with an ``anchor`` also whether the head that it keeps is still there."""
        reader = LogReader(self.path)
        anchors = [] if anchor is None else read_anchors(anchor)
        seen: dict[int, str] = {0: NOTHING_BEFORE}
        wanted = {each.n for each in anchors}
        try:
            for content in reader.more():
                if content["n"] in wanted:
                    seen[content["n"]] = content["sha256"]
        except LogDamaged as error:
            return _check(reader, error.line, error.what)
        if reader.torn:
            what = f"is torn: it ends after {len(reader.torn)} bytes, of a process that was killed while it wrote"
            return _check(reader, reader.n + 1, what)
        for each in anchors:
            if each.n > reader.n:
                what = f"is missing: the anchor of {each.utc} knows {each.n} lines, so the end was cut off"
                return _check(reader, reader.n + 1, what)
            if seen[each.n] != each.sha256:
                return _check(
                    reader, each.n, f"is not the one that the anchor of {each.utc} knows: it was written anew"
                )
        return _check(reader, None, "")

    def write_anchor(self, path: Path) -> Anchor:
        """Adds the present head to a file, which belongs elsewhere; UserError unless log and file agree so far."""
        path = Path(path)
        check = self.verify(path if path.is_file() else None)
        if not check.ok:
            raise LogDamaged(self.path, check.line or 0, check.what)
        anchors = read_anchors(path) if path.is_file() else []
        made = Anchor(n=check.head_n, sha256=check.head_sha256, utc=utc_text(self._clock()))
        write_text(path, "".join(f"{each.model_dump_json()}\n" for each in [*anchors, made]))
        return made

    def _end(self) -> tuple[int, bytes, dict[str, Any] | None]:
        """How many bytes are whole lines, what comes after them, and the last whole line."""
        try:
            with open(self.path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                tail = b""
                start = size
                while start > 0 and tail.count(b"\n") < 2:
                    start = max(0, start - TAIL_BYTES)
                    file.seek(start)
                    tail = file.read(size - start)
        except FileNotFoundError:
            return 0, b"", None
        lines, newline, torn = tail.rpartition(b"\n")
        if not newline:
            return 0, torn, None
        last = parsed(lines.rpartition(b"\n")[2])
        if last is None:
            check = self.verify()
            raise LogDamaged(self.path, check.line or 0, check.what)
        return size - len(torn), torn, last

    def _write(self, whole_bytes: int, lines: bytes) -> None:
        """Adds lines after so many bytes; what follows these is cut off, before or where not all can be written."""
        with open(self.path, "ab", buffering=0) as file:
            try:
                if file.tell() > whole_bytes:
                    file.truncate(whole_bytes)
                written = file.write(lines)
                while written < len(lines):
                    written += file.write(lines[written:])
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(whole_bytes)
                raise_if_full(error, self.path)
                raise


def now_utc() -> datetime:
    """The time of this computer."""
    return datetime.now(UTC)


def parsed(line: bytes) -> dict[str, Any] | None:
    """What a line holds, without its end; None if its own hash is another one."""
    found = OWN_HASH.search(line)
    if found is None:
        return None
    without = line[: found.start()] + line[found.end() :]
    if hashlib.sha256(without).hexdigest() != found[1].decode():
        return None
    content = json.loads(line)
    return content if isinstance(content, dict) else None


def _follows(content: dict[str, Any] | None, last: dict[str, Any] | None) -> bool:
    """Whether a line is the one after ``last``."""
    n = 0 if last is None else last["n"]
    sha256 = NOTHING_BEFORE if last is None else last["sha256"]
    return content is not None and (content.get("n"), content.get("prev")) == (n + 1, sha256)


def line_of(event: Event) -> bytes:
    """The line of an event, with its end."""
    return _canonical(event.model_dump(by_alias=True)) + b"\n"


def read_anchors(path: Path) -> list[Anchor]:
    """The heads that a file keeps; UserError if it is no such file."""
    lines = read_text(path).splitlines()
    if not lines:
        raise UserError(f"{path}: holds no anchor; give a file that segfw status --anchor wrote, or a new name")
    return [Anchor.parse(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]


def _canonical(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")  # half characters as JSON writes them: \udcXX


def _chained(entries: Sequence[Entry], last: dict[str, Any] | None, utc: str) -> list[Event]:
    """Events that follow the line ``last``."""
    n = 0 if last is None else last["n"]
    sha256 = NOTHING_BEFORE if last is None else last["sha256"]
    version = own_version()
    events = []
    for entry in entries:
        n += 1
        content = entry.model_dump(by_alias=True)
        content |= {"n": n, "utc": utc, "segfw": version, "prev": sha256}
        sha256 = hashlib.sha256(_canonical(content)).hexdigest()
        events.append(Event.model_validate({**content, "sha256": sha256}))
    return events


def _check(reader: LogReader, line: int | None, what: str) -> LogCheck:
    return LogCheck(ok=line is None, line=line, what=what, head_n=reader.n, head_sha256=reader.sha256)


def utc_text(time: datetime) -> str:
    """As the log writes times: ISO 8601 in UTC, with milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
