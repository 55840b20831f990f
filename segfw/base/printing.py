"""What goes to the terminal: names of files that it cannot show, and none of the commands that names may hide."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

# All that a terminal acts on but line ends and tabs, and what turns the direction of writing round.
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
BAR_MOVES = re.compile(r"(?:[\r\n]|\x1b\[A)*")  # how tqdm moves between several bars
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # of cells that spreadsheets compute

NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?%?")


def printable(text: str, encoding: str = "utf-8") -> str:
    """The text with what is no character, what a terminal would act on, and what ``encoding`` lacks as \\x escapes.

    Python reads bytes of a file's name that are no UTF-8 as half characters (PEP 383), which no file can be written
    with.
    """
    text = CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def safe_cell(value: object) -> object:
    """A cell of a CSV table that no spreadsheet takes for a formula: a text that begins like one gets a quote before.

    (OWASP, CSV injection.) Numbers stay numbers, also as text, and so does a lone sign.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    is_harmless = text in FORMULA_STARTS or NUMBER.fullmatch(text)
    return f"'{text}" if text.startswith(FORMULA_STARTS) and not is_harmless else text


def number_cell(value: object, digits: int) -> object:
    """A cell of a table: empty for None, 0 or 1 for a bool, and so many significant digits of a float."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    return f"{value:.{digits}g}" if isinstance(value, float) else value


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV table whose cells are safe to open in a spreadsheet and to write in any encoding of Unicode."""
    import csv  # here, because --help has no need of it

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([safe_cell(cell) for cell in head])
    for row in rows:
        writer.writerow([safe_cell(cell) for cell in row])
    return text.getvalue()


class PrintableStream:
    """A text stream that takes every text, as ``printable`` makes it.

    Nothing that keeps it from being written is raised: neither a reader that has gone, such as ``head`` or a closed
    terminal, nor a full disk may end the work that is spoken of. ``lost`` is the first error of the others.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Writes what is printable of the text."""
        if not BAR_MOVES.fullmatch(text):
            text = printable(text, getattr(self._stream, "encoding", None) or "utf-8")
        with self._kept_errors():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Writes what is held back, as far as it can be written."""
        with self._kept_errors():
            self._stream.flush()

    @contextlib.contextmanager
    def _kept_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # whoever read along has seen enough
            pass
        except OSError as error:
            self.lost = self.lost or error

    def writelines(self, lines: list[str]) -> None:
        """Writes the lines one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def printable_output() -> Iterator[PrintableStream]:
    """Lets everything be printed while the block runs, whatever the encoding of the terminal or the log.

    What it yields is the stream of standard output.

    A line is seen when it is said: else a pipe or a log file gets none before there are some thousand characters.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    printed = PrintableStream(sys.stdout)
    out: Any = printed
    errors: Any = PrintableStream(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        yield printed
