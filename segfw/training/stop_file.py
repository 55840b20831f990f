"""Ways to end a run early: a file called STOP, and a plateau."""

from __future__ import annotations

import time
from pathlib import Path

STOP_FILE = "STOP"
LOOK_EVERY_S = 2.0
GO_ON, COOL_DOWN, STOP_NOW = 0, 1, 2
FEWEST_GAIN = 1e-3  # of the smoothed Dice; less is no progress


class Stopped(KeyboardInterrupt):
    """The run was told to stop at once; its checkpoint is written."""


class StopFile:
    """Looks for ``folder/STOP``: as it is the run is brought to a good end soon, with 'now' in it it ends at once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STOP_FILE
        self.path.unlink(missing_ok=True)  # one that was left behind has had its effect
        self._looked_at = time.monotonic()

    def asked(self) -> int:
        """GO_ON, COOL_DOWN or STOP_NOW; looks at the disk every other second only."""
        if time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return GO_ON
        self._looked_at = time.monotonic()
        try:
            return STOP_NOW if self.path.read_text(encoding="utf-8").strip() == "now" else COOL_DOWN
        except OSError:
            return GO_ON

    def done(self) -> None:
        """Removes the file once it is obeyed."""
        self.path.unlink(missing_ok=True)
