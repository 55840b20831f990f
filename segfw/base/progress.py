"""How far the work is and how long it will take: a bar on a terminal, lines now and then in the log of a job."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from tqdm import tqdm

from segfw.base.speech import aside, is_first_process

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0
Item = TypeVar("Item")


class ProgressBar(Protocol):
    """Something that is told how far the work is."""

    def update(self, number: int = 1) -> object:
        """So many more are done."""


def growing_pauses_s(first_s: float = FIRST_PAUSE_S) -> Iterator[float]:
    """Seconds between the lines of a log: few at first, so that a start is soon seen, and twice as many each time.

    A job of days would otherwise fill its log with them.
    """
    pause_s = first_s
    while True:
        yield min(pause_s, LONGEST_PAUSE_S)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


class SpokenLines:
    """Says what ``line`` returns, on stderr, at growing pauses while the block lasts; nothing where that is nothing.

    A thread speaks, so that a log shows life also while a single case or step takes an hour. ``line`` is called in that
    thread: it may look at counters, and must not touch a device.
    """

    def __init__(self, line: Callable[[], str], pauses_s: Iterator[float] | None = None) -> None:
        self._line = line
        self._pauses_s = growing_pauses_s() if pauses_s is None else pauses_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._speak, name="progress", daemon=True)

    def __enter__(self) -> SpokenLines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _speak(self) -> None:
        for pause_s in self._pauses_s:
            if self._is_over.wait(pause_s):
                return
            say_line(self._line())


def say_line(text: str) -> None:
    """A line on stderr, whole even where another thread prints; nothing if there is no text."""
    if text:
        aside(text, sys.stderr)


class ProgressLines(SpokenLines):
    """A progress bar for a log: a line now and then, and none of work that is done before the first is due."""

    def __init__(self, what: str, total: int, *, unit: str = "case", pauses_s: Iterator[float] | None = None) -> None:
        super().__init__(self.line, pauses_s)
        self._what = what
        self._total = total
        self._unit = unit
        self._done = 0
        self._started_s = time.monotonic()

    def __enter__(self) -> ProgressLines:
        super().__enter__()
        return self

    def update(self, number: int = 1) -> None:
        """So many more are done."""
        self._done += number

    def line(self) -> str:
        """'predicting: 3 of 20 cases in 01:30, about 08:30 left'."""
        done = self._done
        elapsed_s = time.monotonic() - self._started_s
        text = f"{self._what}: {done} of {self._total} {self._unit}s in {tqdm.format_interval(elapsed_s)}"
        if not done:
            return text
        left = tqdm.format_interval(elapsed_s / done * (self._total - done))
        return f"{text}, about {left} left"


class Silence:
    """The progress bar of a process that has nothing to say."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, number: int = 1) -> None:
        """So many more are done."""


def is_watched() -> bool:
    """True where progress is shown on a terminal."""
    return sys.stderr.isatty()


def progress_bar(what: str, total: int, *, unit: str = "case") -> AbstractContextManager[ProgressBar]:
    """A bar with the time left that is updated by hand; where there is no terminal, lines now and then.

    Of several processes that ``torchrun`` started only the first one draws it.
    """
    if not is_first_process():
        return Silence()
    if is_watched():
        return tqdm(total=total, desc=what, unit=unit, leave=False)
    return ProgressLines(what, total, unit=unit)


def progress(what: str, items: Collection[Item]) -> Iterator[Item]:
    """The cases ``items`` one after the other, shown as by ``progress_bar``."""
    with progress_bar(what, len(items)) as bar:
        for item in items:
            yield item
            bar.update()
