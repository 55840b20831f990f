"""How much time a page may book: never more than has passed, whatever it says and whatever the clock of the day does.

A tab that sleeps, two tabs, a computer that was put to sleep, and a page that lies have in common that they would book
more than the time between two heartbeats. That is measured here, by a clock that nobody can set.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from segfw.base.errors import UserError

LONGEST_BEAT_S = 120.0  # between two heartbeats; a page that says nothing for longer was not looked at


class ActiveClock:
    """The time of one person: of all tabs together it is booked once."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._booked_until_s = now_s()
        self._opened_at_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def open(self, case: str) -> None:
        """From now on time of the case can be booked."""
        with self._lock:
            self._opened_at_s.setdefault(case, self._now_s())

    def close(self, case: str) -> None:
        """From now on it cannot."""
        with self._lock:
            self._opened_at_s.pop(case, None)

    def book(self, case: str, active_s: float, idle_s: float) -> tuple[float, float]:
        """What is booked of the seconds that the page says; together at most what has passed since the last booking.

        UserError if they are no lengths of time. Nothing is booked of a case that is not open.
        """
        for name, value in (("active_s", active_s), ("idle_s", idle_s)):
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"{name} is {value}; give seconds, 0 or more")
        with self._lock:
            opened_at_s = self._opened_at_s.get(case)
            if opened_at_s is None:
                return 0.0, 0.0
            now_s = self._now_s()
            passed_s = max(0.0, now_s - max(opened_at_s, self._booked_until_s))
            passed_s = min(passed_s, LONGEST_BEAT_S)
            self._booked_until_s = now_s
        active_s = min(active_s, passed_s)
        return active_s, min(idle_s, passed_s - active_s)
