"""The way to end a run early: a file called STOP, or STOP.txt, in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from segfw.base.errors import UserError
from segfw.base.written_by_people import read_text

STOP_FILE = "STOP"
NAMES = (STOP_FILE, "STOP.txt")  # Windows' Notepad adds the ending, and its Explorer hides it
LOOK_EVERY_S = 2.0
GO_ON = 0
COOL_DOWN = 1
STOP_NOW = 2


class Stopped(KeyboardInterrupt):
    """The run was told to stop at once; its checkpoint is written."""


class StopFile:
    """Looks for ``folder/STOP`` (``NAMES``): as it is the run is brought to a good end soon.

    With 'now' in it, it ends at once.
    """

    def __init__(
        self, folder: Path, look_every_s: float = LOOK_EVERY_S, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = folder / STOP_FILE
        self._paths = tuple(folder / name for name in NAMES)
        self.done()  # one that was left behind has had its effect
        self._look_every_s = look_every_s
        self._now_s = now_s
        self._looked_at = now_s()

    def asked(self) -> int:
        """GO_ON, COOL_DOWN or STOP_NOW; looks at the disk every ``look_every_s`` only, until it finds the file."""
        if self._now_s() - self._looked_at < self._look_every_s:
            return GO_ON
        found = max(_asked_by(path) for path in self._paths)
        if found == GO_ON:
            self._looked_at = self._now_s()
        return found

    def done(self) -> None:
        """Removes the file once it is obeyed."""
        for path in self._paths:
            path.unlink(missing_ok=True)


def _asked_by(path: Path) -> int:
    try:
        text = read_text(path, latin=True)
    except FileNotFoundError:
        return GO_ON
    except (OSError, UserError):  # it is there, whatever is in it
        return COOL_DOWN
    return STOP_NOW if text.strip().strip("\"'").lower() == "now" else COOL_DOWN
