"""How much of a visit's time a section may take, and what ends it when that is over."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import psutil

from bench.gpu.visit import Visit

LATE_S = 3.0  # that a section may need to end, once it is told to
GRACE_S = 5.0  # before a section is ended, in which it ends its own processes and reads what they wrote
LAST_S = 10.0  # before a visit's last second, in which what hangs is given up

Measure = Callable[[Visit, dict, float], None]
EndedAfter = Callable[[float], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """``measure(visit, found, until_left_s)`` fills ``found``; it starts nothing more once less time is left.

    It is begun where ``least_s`` are there for it, and ended after ``most_s``. Time for what ``is_kept`` is left by all
    that come before it.
    """

    name: str
    least_s: float
    most_s: float
    measure: Measure
    is_kept: bool = False


class OutOfTime(BaseException):
    """A section's time is over. No Exception: what notes the error of one figure would go on with the next."""


def allowed_s(section: Section, behind: Sequence[Section], left_s: float) -> float:
    """Seconds that a section may take of those that are left, so that all kept ones behind it can be begun."""
    kept_s = sum(each.least_s + LATE_S for each in behind if each.is_kept)
    return min(section.most_s, left_s - kept_s - LATE_S)


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in the block when it takes longer, as soon as Python runs (POSIX, main thread)."""

    def end(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def given_up_at_last(visit: Visit, *, leave: Callable[[int], object] = os._exit) -> Iterator[None]:
    """Ends this process and all that it started LAST_S before the visit's whole time is over, with the record written.

    For what hangs within a driver, where Python does not run.
    """

    def give_up() -> None:
        visit.record["given_up"] = "a section hung, and the process was ended when the time was over"
        visit.save()
        for child in psutil.Process().children(recursive=True):
            child.kill()
        leave(1)

    left_s = visit.whole_s - LAST_S - visit.seconds_gone()
    timer = threading.Timer(max(LAST_S, left_s), give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
