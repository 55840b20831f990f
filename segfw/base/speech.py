"""What a command says: on the terminal, less of it under --quiet, and all of it in a log of the folder it works in."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from segfw.base.printing import printable
from segfw.base.shell_line import shell_line

LOG_FILE = "log.txt"
WARNING = "warning: "  # how lines begin that --quiet keeps
BAR_LINE_EVERY_S = 30.0  # of a progress bar that moves, in the log


def aside(text: str, stream: TextIO | None = None) -> None:
    """Prints what --quiet leaves out: how far the work is, tables that are in files as well, and what to do next."""
    stream = stream or sys.stdout
    write = getattr(stream, "write_aside", stream.write)
    write(f"{text}\n")
    stream.flush()


def say_next(*parts: object) -> None:
    """Prints the command that comes next, as it can be pasted."""
    aside(f"next: {shell_line('segfw', *parts)}")


def is_first_process() -> bool:
    """True for the first of several processes that ``torchrun`` started, and for one alone."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True, kw_only=True)
class LogPlace:
    """Where a command's log lies. It begins when one of ``marks`` is there: then the folder is the command's own."""

    file: Path
    marks: tuple[Path, ...]


class Log:
    """Whole lines, each with its time and process, so that several processes may write to one file.

    What cannot be written is left out: a full disk must not end a training for the sake of its log.
    """

    def __init__(self, place: LogPlace) -> None:
        self._place = place
        self._waiting: list[str] = []
        self._has_begun = False
        self._is_torn = False  # a full disk took a part of a line
        self._lock = threading.RLock()

    def add(self, text: str) -> None:
        """Writes the lines of a text, or keeps them until the log begins."""
        now = time.strftime("%Y-%m-%d %H:%M:%S%z")
        with self._lock:
            self._waiting += [
                f"{now} [{os.getpid()}] {printable(line)}\n" for line in text.splitlines() if line.strip()
            ]
            self._has_begun = self._has_begun or any(mark.exists() for mark in self._place.marks)
            if self._has_begun and self._waiting:
                with contextlib.suppress(OSError):
                    self._write("".join(self._waiting).encode())
                self._waiting.clear()

    def _write(self, lines: bytes) -> None:
        with open(self._place.file, "ab", buffering=0) as file:
            content = b"\n" + lines if self._is_torn else lines
            self._is_torn = True
            self._is_torn = file.write(content) != len(content)


class Speech:
    """What is said by one command; ``is_quiet`` and ``log`` are set once it is known what was typed."""

    def __init__(self) -> None:
        self.is_quiet = False
        self.is_at_end = False  # where --quiet keeps all but asides
        self.log: Log | None = None
        self._last_bar_s = 0.0

    def note(self, text: str) -> None:
        """Writes into the log alone."""
        if self.log is not None:
            self.log.add(text)

    def note_bar(self, text: str) -> None:
        """Writes a progress bar into the log now and then."""
        if time.monotonic() - self._last_bar_s >= BAR_LINE_EVERY_S and text.strip():
            self._last_bar_s = time.monotonic()
            self.note(text.strip())


class SpokenStream:
    """A text stream that a command speaks to."""

    def __init__(self, stream: TextIO, speech: Speech, *, is_errors: bool) -> None:
        self._stream = stream
        self._speech = speech
        self._is_errors = is_errors
        self._of_thread = threading.local()  # the line that a thread has begun

    def write(self, text: str) -> int:
        """Says a text, of which --quiet keeps errors, warnings and the end."""
        if text.startswith("\r") or "\x1b[A" in text:
            self._speech.note_bar(text)
            if not self._speech.is_quiet:
                self._stream.write(text)
            return len(text)
        lines = self._note(text)
        if not self._speech.is_quiet:
            self._stream.write(text)
        else:
            for line in lines:
                if line and (self._is_errors or self._speech.is_at_end or line.startswith(WARNING)):
                    self._stream.write(f"{line}\n")
        return len(text)

    def write_aside(self, text: str) -> None:
        """Says what --quiet leaves out."""
        self._note(text)
        if not self._speech.is_quiet:
            self._stream.write(text)

    def writelines(self, lines: list[str]) -> None:
        """Says the lines one after the other."""
        for line in lines:
            self.write(line)

    def _note(self, text: str) -> list[str]:
        """The lines that end in the text, which go into the log."""
        *lines, begun = (getattr(self._of_thread, "begun", "") + text).split("\n")
        self._of_thread.begun = begun
        for line in lines:
            self._speech.note(line)
        return lines

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def spoken_output() -> Iterator[Speech]:
    """Lets what is printed while the block runs be logged, and left out under --quiet, as the speech says."""
    speech = Speech()
    out: Any = SpokenStream(sys.stdout, speech, is_errors=False)
    errors: Any = SpokenStream(sys.stderr, speech, is_errors=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        yield speech
