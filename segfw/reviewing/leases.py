"""Who has a case open: a small file for each, which is over ten minutes after it was last renewed.

A process that died therefore keeps nobody out for longer. The time that somebody worked, and what was displayed to
him, are kept there until the log is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import field_validator

from segfw.base.errors import UserError
from segfw.base.file_names import REVIEW_FOLDER
from segfw.base.records import Record
from segfw.reviewing.review_log import LOCKS_FOLDER, utc_text
from segfw.reviewing.viewing import Shown

LEASE = timedelta(minutes=10)
CLOCKS_DIFFER = timedelta(minutes=2)  # between computers that share a folder
LEASE_ENDING = ".lease.json"


class Lease(Record):
    """Who has a case since when, and until when if he does not renew it.

    Seconds are since he opened it; of them the log was told ``noted_active_s``, and the ledger ``listed_active_s`` and
    ``listed_idle_s``. ``slices_viewed`` are the slices that were displayed, by axis; ``edited_voxels`` (by structure)
    and ``edited_slices`` what he changed and the ledger was not told. ``quality_shown`` and ``overlay_shown`` are
    whether a predicted quality, and a mask, were on the screen; None where nobody said.
    """

    case: str
    user: str
    identity: str
    opened_utc: str
    until_utc: str
    active_s: float = 0.0
    idle_s: float = 0.0
    noted_active_s: float = 0.0
    listed_active_s: float = 0.0
    listed_idle_s: float = 0.0
    slices_viewed: dict[str, tuple[int, ...]] = {}
    edited_voxels: dict[str, int] = {}
    edited_slices: tuple[int, ...] = ()
    quality_shown: bool | None = None
    overlay_shown: bool | None = None

    @field_validator("until_utc")
    @classmethod
    def _is_time(cls, until_utc: str) -> str:
        if datetime.fromisoformat(until_utc).tzinfo is None:
            raise ValueError(f"{until_utc!r} does not say of which zone it is")
        return until_utc

    @property
    def slices(self) -> int:
        """How many slices were displayed, along all axes."""
        return sum(map(len, self.slices_viewed.values()))

    def is_live(self, now: datetime) -> bool:
        """Whether he still has it. A lease that ends much later than one of now could is of a wrong clock, and is over;
        those of two computers differ a little."""
        until = datetime.fromisoformat(self.until_utc)
        return now < until <= now + LEASE + CLOCKS_DIFFER

    def renewed(self, now: datetime) -> Lease:
        """The same until ten minutes from now."""
        return self.model_copy(update={"until_utc": utc_text(now + LEASE)})

    def with_work(self, active_s: float, idle_s: float, slices_viewed: Mapping[str, Sequence[int]]) -> Lease:
        """The same with what was done since it was last renewed."""
        viewed = dict(self.slices_viewed)
        for axis, slices in slices_viewed.items():
            viewed[axis] = tuple(sorted({*viewed.get(axis, ()), *map(int, slices)}))
        changes = {"active_s": self.active_s + active_s, "idle_s": self.idle_s + idle_s, "slices_viewed": viewed}
        return self.model_copy(update=changes)

    def with_shown(self, shown: Shown | None) -> Lease:
        """The same with what was on the screen; what was there once has been seen."""
        if shown is None:
            return self
        changes = {
            "quality_shown": bool(self.quality_shown) or shown.quality,
            "overlay_shown": bool(self.overlay_shown) or shown.overlay,
        }
        return self.model_copy(update=changes)

    def with_edits(self, voxels: Mapping[str, int], slices: Sequence[int]) -> Lease:
        """The same with voxels of structures that were changed, in these slices."""
        edited = dict(self.edited_voxels)
        for name, number in voxels.items():
            edited[name] = edited.get(name, 0) + number
        changes = {"edited_voxels": edited, "edited_slices": tuple(sorted({*self.edited_slices, *slices}))}
        return self.model_copy(update=changes)

    def noted(self) -> Lease:
        """The same after the log was told of the time."""
        return self.model_copy(update={"noted_active_s": self.active_s})

    def listed(self, structure: str | None) -> Lease:
        """The same after the ledger was told of the times, and of the edits of a structure (None: of all)."""
        left = {} if structure is None else {name: n for name, n in self.edited_voxels.items() if name != structure}
        changes = {
            "listed_active_s": self.active_s,
            "listed_idle_s": self.idle_s,
            "edited_voxels": left,
            "edited_slices": self.edited_slices if left else (),
        }
        return self.model_copy(update=changes)


def new_lease(case: str, user: str, identity: str, now: datetime) -> Lease:
    """A lease from now on."""
    return Lease(case=case, user=user, identity=identity, opened_utc=utc_text(now), until_utc=utc_text(now + LEASE))


def lease_file(folder: Path, case: str) -> Path:
    """Where the lease of a case is kept, in a folder of masks."""
    return folder / REVIEW_FOLDER / LOCKS_FOLDER / f"{case}{LEASE_ENDING}"


def read_lease(folder: Path, case: str) -> Lease | None:
    """The lease of a case, also one that is over; None where there is none, or none that can be read."""
    path = lease_file(folder, case)
    try:
        return Lease.load(path) if path.is_file() else None
    except UserError:  # given back a moment ago
        return None


def read_leases(folder: Path) -> dict[str, Lease]:
    """All leases, by case."""
    found = {}
    for path in (folder / REVIEW_FOLDER / LOCKS_FOLDER).glob(f"*{LEASE_ENDING}"):
        lease = read_lease(folder, path.name.removesuffix(LEASE_ENDING))
        if lease is not None:
            found[lease.case] = lease
    return found
