"""One change of an image: what it is called, what is demanded of a mask under it, and how strong it is."""

from __future__ import annotations

from typing import Literal

from segfw.base.records import Record

# 'exact' changes must change no voxel of a mask, 'near' ones should change little, 'degrades' are a curve.
Kind = Literal["exact", "near", "degrades"]


class Perturbation(Record):
    """``level`` counts in ``unit``; None where a change has no strength. ``unchanged`` is the level of no change."""

    name: str
    kind: Kind
    level: float | None = None
    unit: str = ""
    unchanged: float = 0.0

    @property
    def text(self) -> str:
        """'noise 0.3 sd of the foreground'."""
        if self.level is None:
            return self.name
        return f"{self.name} {self.level:g} {self.unit}".rstrip()

    @property
    def strength(self) -> float:
        """How far the level is from that of no change; 0 without a level."""
        return 0.0 if self.level is None else abs(self.level - self.unchanged)
