"""What was delivered so far, by the review log, and which of it no longer holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from segfw.base.errors import UserError
from segfw.base.records import Record
from segfw.reviewing.review_log import LogReader

DELIVER = "deliver"
DELIVER_RESEARCH = "deliver-research"
DELIVER_FAILED = "deliver-failed"
# What makes an earlier copy wrong: of a signed one only that the signature was taken back.
ENDS_SIGNED = ("amend",)
ENDS_RESEARCH = ("save", "autosave", "sign", "amend", "reject", "new-draft")
WORDS = {
    "amend": "the signature was taken back",
    "sign": "it was signed",
    "reject": "it was rejected",
    "new-draft": "the model made a new draft",
    "save": "it was edited",
    "autosave": "it was edited",
}


class Parcel(Record):
    """What the log keeps of a delivery, as the reason of its line: where it went, and in which formats.

    ``image_not_found``: the image on which the mask was signed was not there to be compared.
    """

    place: str
    formats: tuple[str, ...]
    image_not_found: bool = False

    def text(self) -> str:
        """As JSON in one line."""
        return json.dumps(self.model_dump(), sort_keys=True, ensure_ascii=False)


class DeliveredCopy(Record):
    """A copy of a case in one format: line ``n`` of the log tells of it. ``superseded`` says why it no longer holds."""

    case: str
    format: str
    place: str
    version: int
    version_sha256: str
    is_research: bool
    n: int
    utc: str
    superseded: str = ""

    def text(self) -> str:
        """A line for a reader."""
        return f"{self.case}: version {self.version} as {self.format} in {self.place} ({self.utc}): {self.superseded}"


def delivered_copies(log: Path) -> list[DeliveredCopy]:
    """All copies that were made, in the order of the log, except those of deliveries that failed.

    Raises LogDamaged if a line of the log was changed.
    """
    found: dict[str, list[DeliveredCopy]] = {}  # by case
    for event in LogReader(log).more():
        kind = event["event"]
        case = event["case"]
        if kind in (DELIVER, DELIVER_RESEARCH):
            found.setdefault(case, []).extend(_copies(event))
        elif kind == DELIVER_FAILED:
            failed = event["reason"].split(":")[0]
            found[case] = [copy for copy in found.get(case, []) if str(copy.n) != failed]
        elif kind in ENDS_RESEARCH:
            for one in list(found) if case is None else [case]:
                found[one] = [_ended(copy, event) for copy in found.get(one, [])]
    copies = [copy for of_case in found.values() for copy in of_case]
    return sorted(copies, key=lambda copy: copy.n)


def last_copies(copies: Iterable[DeliveredCopy]) -> list[DeliveredCopy]:
    """Without those that later ones were written over."""
    last = {(copy.case, copy.format, copy.place, copy.is_research): copy for copy in copies}
    return sorted(last.values(), key=lambda copy: copy.n)


def superseded_copies(log: Path) -> list[DeliveredCopy]:
    """Those that no longer hold, and should be called back or replaced."""
    return [copy for copy in last_copies(delivered_copies(log)) if copy.superseded]


def _copies(event: Mapping[str, Any]) -> Iterator[DeliveredCopy]:
    try:
        parcel = Parcel.model_validate_json(event["reason"])
    except ValueError:
        raise UserError(f"line {event['n']} of the review log tells of no place; was it written by segfw?") from None
    for format in parcel.formats:
        yield DeliveredCopy(
            case=event["case"],
            format=format,
            place=parcel.place,
            version=event["version"],
            version_sha256=event["version_sha256"],
            is_research=event["event"] == DELIVER_RESEARCH,
            n=event["n"],
            utc=event["utc"],
        )


def _ended(copy: DeliveredCopy, event: Mapping[str, Any]) -> DeliveredCopy:
    """The copy as it stands after an event of its case."""
    ends = ENDS_RESEARCH if copy.is_research else ENDS_SIGNED
    if copy.superseded or event["event"] not in ends:
        return copy
    return copy.model_copy(update={"superseded": _why(event)})


def _why(event: Mapping[str, Any]) -> str:
    who = f" by {event['user']}" if event["user"] else ""
    reason = f" ({event['reason']})" if event["event"] == "amend" else ""
    return f"{WORDS[event['event']]} at {event['utc']}{who}{reason}"
