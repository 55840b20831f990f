"""Steps that can be taken back: which voxels changed, from which values to which."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

MOST_BYTES = 64 * 1024**2  # of a case; of more, the oldest steps are forgotten


@dataclass(frozen=True, kw_only=True)
class Step:
    """``voxels`` are flat indices, ``before`` and ``after`` the values of each."""

    voxels: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @property
    def held_bytes(self) -> int:
        """Memory that it takes."""
        return self.voxels.nbytes + self.before.nbytes + self.after.nbytes


class UndoStack:
    """The last steps, as many as fit into a memory that does not grow."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._steps: deque[Step] = deque()
        self._most_bytes = most_bytes
        self.held_bytes = 0

    def push(self, step: Step) -> None:
        """Adds a step; the one that is newest is always kept."""
        self._steps.append(step)
        self.held_bytes += step.held_bytes
        while self.held_bytes > self._most_bytes and len(self._steps) > 1:
            self.held_bytes -= self._steps.popleft().held_bytes

    def pop(self) -> Step | None:
        """The newest step, which is taken away; None if there is none left."""
        if not self._steps:
            return None
        step = self._steps.pop()
        self.held_bytes -= step.held_bytes
        return step
