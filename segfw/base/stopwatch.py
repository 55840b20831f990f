"""Where the seconds of a prediction go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CaseTimes:
    """Seconds of one case by part. Parts of different cases overlap in time."""

    case: str
    read_s: float = 0.0
    preprocess_s: float = 0.0
    network_s: float = 0.0
    restore_s: float = 0.0  # from logits to classes on the file's own grid, and what else is made of logits
    write_s: float = 0.0


class Stopwatch:
    """Adds up the seconds of the parts of one case, which several threads may work on one after the other."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Adds the block's time to a field of ``CaseTimes``, such as 'network_s'."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] = self._seconds.get(part, 0.0) + time.perf_counter() - started

    def times(self, case: str) -> CaseTimes:
        """What was measured so far."""
        return CaseTimes(case=case, **self._seconds)
