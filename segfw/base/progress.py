"""How far the work is and how long it will take: a bar on a terminal, lines now and then in the log of a job."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

from tqdm import tqdm

LINE_EVERY_S = 30.0
Item = TypeVar("Item")


class Lines:
    """What is used of tqdm, for a log: a line now and then, and none of work that is done before the first is due."""

    def __init__(self, items: Collection | None, *, total: int | None, desc: str, is_silent: bool) -> None:
        self.items, self.total, self.desc, self.is_silent = items, total, desc, is_silent
        self.done, self.started = 0, time.monotonic()
        self.told = self.started
        if items is not None:
            self.total = len(items)

    def __iter__(self) -> Iterator:
        for item in self.items:
            yield item
            self.update()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self) -> None:
        """One more is done."""
        self.done += 1
        now = time.monotonic()
        if self.is_silent or now - self.told < LINE_EVERY_S:
            return
        self.told = now
        elapsed_s = now - self.started
        times = [tqdm.format_interval(s) for s in (elapsed_s, elapsed_s / self.done * (self.total - self.done))]
        line = f"{self.desc}: {self.done} of {self.total} cases in {times[0]}, about {times[1]} left"
        print(line, file=sys.stderr, flush=True)


def progress(
    what: str, items: Collection[Item] | None = None, *, total: int | None = None, unit: str = "case"
) -> tqdm | Lines:
    """A progress bar with the time left, over ``items`` or updated by hand; of cases, lines where there is no terminal.

    Of several processes that ``torchrun`` started only the first one draws it.
    """
    is_first, is_watched = os.environ.get("RANK", "0") == "0", sys.stderr.isatty()
    if is_watched or unit != "case":
        return tqdm(items, total=total, desc=what, unit=unit, disable=not (is_first and is_watched), leave=False)
    return Lines(items, total=total, desc=what, is_silent=not is_first)
