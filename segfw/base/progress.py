"""How far the work is and how long it will take: a bar on a terminal, lines now and then in the log of a job."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from tqdm import tqdm

from segfw.base.speech import aside

LINE_EVERY_S = 30.0
Item = TypeVar("Item")


class ProgressBar(Protocol):
    """Something that is told how far the work is."""

    def update(self, number: int = 1) -> object:
        """So many more are done."""


class ProgressLines:
    """A progress bar for a log: a line now and then, and none of work that is done before the first is due."""

    def __init__(self, what: str, total: int, *, is_silent: bool) -> None:
        self._what = what
        self._total = total
        self._is_silent = is_silent
        self._done = 0
        self._started_s = time.monotonic()
        self._last_line_s = self._started_s

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, number: int = 1) -> None:
        """So many more are done."""
        self._done += number
        now_s = time.monotonic()
        if self._is_silent or now_s - self._last_line_s < LINE_EVERY_S:
            return
        self._last_line_s = now_s
        elapsed_s = now_s - self._started_s
        left_s = elapsed_s / self._done * (self._total - self._done)
        elapsed = tqdm.format_interval(elapsed_s)
        left = tqdm.format_interval(left_s)
        line = f"{self._what}: {self._done} of {self._total} cases in {elapsed}, about {left} left"
        aside(line, sys.stderr)


def progress_bar(what: str, total: int, *, unit: str = "case") -> AbstractContextManager[ProgressBar]:
    """A bar with the time left that is updated by hand; where there is no terminal, lines of cases, and else nothing.

    Of several processes that ``torchrun`` started only the first one draws it.
    """
    is_first = os.environ.get("RANK", "0") == "0"
    is_watched = sys.stderr.isatty()
    if is_watched or unit != "case":
        return tqdm(total=total, desc=what, unit=unit, disable=not (is_first and is_watched), leave=False)
    return ProgressLines(what, total, is_silent=not is_first)


def progress(what: str, items: Collection[Item]) -> Iterator[Item]:
    """The cases ``items`` one after the other, shown as by ``progress_bar``."""
    with progress_bar(what, len(items)) as bar:
        for item in items:
            yield item
            bar.update()
