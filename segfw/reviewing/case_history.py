"""What the log says of each case: its state, versions, decisions and signature, folded event by event."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from sys import intern
from typing import Any

from segfw.reviewing.states import Decision, Meaning, RejectReason, State

SAVED = ("save", "autosave")
NO_EDIT = "accept"  # the decision that changes nothing


@dataclass(frozen=True, kw_only=True)
class CaseStanding:
    """Where a case stands. ``version`` 0 is the draft, of which ``sha256`` is not known before it is opened.

    ``holder`` has it open until ``lease_until_utc``. ``active_s`` is the time that all people worked on it.
    ``autosaved``: the newest version was saved by the page on its own.
    """

    case: str
    state: State = "DRAFT"
    version: int = 0
    sha256: str | None = None
    holder: str | None = None
    lease_until_utc: str | None = None
    decisions: dict[str, Decision] = field(default_factory=dict)
    reviewed_by: str | None = None
    signed_by: str | None = None
    signed_name: str | None = None
    meaning: Meaning | None = None
    signed_utc: str | None = None
    reject_reason: RejectReason | None = None
    reject_text: str = ""
    active_s: float = 0.0
    autosaved: bool = False


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What a signature was given for."""

    version: int
    version_sha256: str
    image_sha256: str | None
    model_digest: str | None


@dataclass(kw_only=True)
class CaseHistory:
    """A case as the log tells it; ``standing`` has no lease. ``back_to`` is the state that it falls back to when it is
    given back; ``opened_by`` who opened it last; ``hands`` everybody who reviewed or changed it; ``asked`` the
    structures that somebody was asked about since it was opened; ``put_aside`` what ``put_aside_by`` had decided when
    he gave it back: it holds again when he is the next to open it."""

    standing: CaseStanding
    back_to: State = "DRAFT"
    opened_by: str | None = None
    opened_sha256: str | None = None
    hands: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    put_aside: dict[str, Decision] = field(default_factory=dict)
    put_aside_by: str | None = None
    versions: dict[int, str] = field(default_factory=dict)  # number -> sha256
    signed: Signed | None = None
    reviewed_image_sha256: str | None = None
    lines: list[int] = field(default_factory=list)  # numbers of its events


@dataclass(kw_only=True)
class Histories:
    """Of all cases, and how many structures each user accepted in a row, over all of them."""

    cases: dict[str, CaseHistory] = field(default_factory=dict)
    accepts_in_a_row: dict[str, int] = field(default_factory=dict)

    def of(self, case: str) -> CaseHistory:
        """What is known of a case; a draft where nothing is."""
        return self.cases.get(case) or CaseHistory(standing=CaseStanding(case=case))

    def take(self, event: dict[str, Any]) -> None:
        """Adds the next event, as the log holds it. Events of other kinds change nothing."""
        case = event["case"]
        if case is None:
            return
        history = self.cases.get(case)
        if history is None:
            history = self.cases.setdefault(case, CaseHistory(standing=CaseStanding(case=case)))
        history.lines.append(event["n"])
        if event["active_s"]:
            history.standing = replace(history.standing, active_s=history.standing.active_s + event["active_s"])
        take = TAKEN.get(event["event"])
        if take is not None:
            take(history, event)
        self._count_accepts(event)

    def _count_accepts(self, event: dict[str, Any]) -> None:
        user = event["user"]
        if event["event"] == "decide" and event["region"] is None and not event["reason"]:
            in_a_row = self.accepts_in_a_row.get(user, 0)
            self.accepts_in_a_row[user] = in_a_row + 1 if event["decision"] == NO_EDIT else 0
        elif event["event"] in ("reject", "save", "asked-row"):
            self.accepts_in_a_row[user] = 0


def _take_new_draft(history: CaseHistory, _: dict[str, Any]) -> None:
    """Without what people made of the old draft, unless they finished it; its versions stay where they are."""
    if history.standing.state in ("REVIEWED", "SIGNED"):
        return
    if history.standing.state == "IN_REVIEW" and history.back_to == "REVIEWED":
        return
    _forget_put_aside(history)
    history.standing = CaseStanding(case=history.standing.case, active_s=history.standing.active_s)
    history.back_to = "DRAFT"


def _take_open(history: CaseHistory, event: dict[str, Any]) -> None:
    history.back_to = event["from"]
    history.opened_by = event["user"]
    history.opened_sha256 = event["version_sha256"]
    history.asked = set()
    if event["from"] == "REVIEWED":
        kept = history.standing.decisions
    elif history.put_aside_by == event["user"]:
        kept = history.put_aside
    else:
        kept = {}
    _forget_put_aside(history)
    history.standing = replace(history.standing, state=event["to"], decisions=dict(kept))


def _forget_put_aside(history: CaseHistory) -> None:
    history.put_aside = {}
    history.put_aside_by = None


def _take_save(history: CaseHistory, event: dict[str, Any]) -> None:
    history.versions[event["version"]] = event["version_sha256"]
    history.hands.add(event["user"])
    history.back_to = "DRAFT"
    history.standing = replace(
        history.standing,
        version=event["version"],
        sha256=event["version_sha256"],
        autosaved=event["event"] == "autosave",
    )


def _take_decide(history: CaseHistory, event: dict[str, Any]) -> None:
    if event["region"] is None and event["structure"] is not None:
        history.standing.decisions[intern(event["structure"])] = event["decision"]


def _take_asked(history: CaseHistory, event: dict[str, Any]) -> None:
    history.asked.add(event["structure"])


def _take_release(history: CaseHistory, event: dict[str, Any]) -> None:
    if event["to"] == "DRAFT":
        history.put_aside = dict(history.standing.decisions)
        history.put_aside_by = event["user"]
    _take_end(history, event)


def _take_end(history: CaseHistory, event: dict[str, Any]) -> None:
    kept = history.standing.decisions if event["to"] == "REVIEWED" else {}
    history.standing = replace(history.standing, state=event["to"], decisions=kept)


def _take_finish(history: CaseHistory, event: dict[str, Any]) -> None:
    history.versions[event["version"]] = event["version_sha256"]
    history.hands.add(event["user"])
    history.reviewed_image_sha256 = event["image_sha256"]
    history.standing = replace(
        history.standing,
        state=event["to"],
        version=event["version"],
        sha256=event["version_sha256"],
        reviewed_by=event["user"],
        autosaved=False,
    )


def _take_sign(history: CaseHistory, event: dict[str, Any]) -> None:
    history.signed = Signed(
        version=event["version"],
        version_sha256=event["version_sha256"],
        image_sha256=event["image_sha256"],
        model_digest=event["model_digest"],
    )
    history.standing = replace(
        history.standing,
        state=event["to"],
        signed_by=event["user"],
        signed_name=event["name"],
        meaning=event["meaning"],
        signed_utc=event["utc"],
    )


def _take_amend(history: CaseHistory, event: dict[str, Any]) -> None:
    history.signed = None
    history.standing = replace(
        history.standing, state=event["to"], signed_by=None, signed_name=None, meaning=None, signed_utc=None
    )


def _take_reject(history: CaseHistory, event: dict[str, Any]) -> None:
    reason, _, text = event["reason"].partition(": ")
    history.standing = replace(history.standing, state=event["to"], reject_reason=reason, reject_text=text)


TAKEN = {
    "new-draft": _take_new_draft,
    "open": _take_open,
    "save": _take_save,
    "autosave": _take_save,
    "decide": _take_decide,
    "asked": _take_asked,
    "lease-over": _take_end,
    "release": _take_release,
    "finish": _take_finish,
    "sign": _take_sign,
    "amend": _take_amend,
    "reject": _take_reject,
}
