"""The way to end a run early: a file called STOP in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from segfw.base.errors import UserError
from segfw.base.written_by_people import read_text

STOP_FILE = "STOP"
LOOK_EVERY_S = 2.0
GO_ON = 0
COOL_DOWN = 1
STOP_NOW = 2


class Stopped(KeyboardInterrupt):
    """The run was told to stop at once; its checkpoint is written."""


class StopFile:
    """Looks for ``folder/STOP``: as it is the run is brought to a good end soon, with 'now' in it it ends at once."""

    def __init__(
        self, folder: Path, look_every_s: float = LOOK_EVERY_S, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = folder / STOP_FILE
        self.path.unlink(missing_ok=True)  # one that was left behind has had its effect
        self._look_every_s = look_every_s
        self._now_s = now_s
        self._looked_at = now_s()

    def asked(self) -> int:
        """GO_ON, COOL_DOWN or STOP_NOW; looks at the disk every ``look_every_s`` only, until it finds the file."""
        if self._now_s() - self._looked_at < self._look_every_s:
            return GO_ON
        try:
            text = read_text(self.path, latin=True)
        except FileNotFoundError:
            self._looked_at = self._now_s()
            return GO_ON
        except (OSError, UserError):  # it is there, whatever is in it
            return COOL_DOWN
        return STOP_NOW if text.strip().strip("\"'").lower() == "now" else COOL_DOWN

    def done(self) -> None:
        """Removes the file once it is obeyed."""
        self.path.unlink(missing_ok=True)
