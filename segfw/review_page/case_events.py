"""The events of one case out of a log of very many: where its lines begin is remembered, and no line is read twice."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from segfw.reviewing.review_log import LogReader

JUDGING = ("decide", "reject")


class CaseEvents:
    """Reads what was added to a log since the last time, and finds the lines of a case."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = LogReader(path)
        self._starts: dict[str, list[int]] = {}  # where lines of each case begin, in bytes
        self._judged: dict[str, set[str]] = {}  # user -> cases on which he has decided something
        self._lock = threading.Lock()

    def of(self, case: str) -> list[dict[str, Any]]:
        """All events of a case, as the log holds them; LogDamaged if a line was changed."""
        with self._lock:
            self._read_on()
            starts = self._starts.get(case, [])
            if not starts:
                return []
            found = []
            with open(self._path, "rb") as file:
                for start in starts:
                    file.seek(start)
                    found.append(json.loads(file.readline()))
            return found

    def judged_by(self, user: str) -> set[str]:
        """Cases on which somebody has decided something."""
        with self._lock:
            self._read_on()
            return set(self._judged.get(user, ()))

    def _read_on(self) -> None:
        start = self._reader.bytes_read
        for event in self._reader.more():
            case = event["case"]
            if case is not None:
                self._starts.setdefault(case, []).append(start)
                if event["event"] in JUDGING:
                    self._judged.setdefault(event["user"], set()).add(case)
            start = self._reader.bytes_read
