"""``decisions.json``: what somebody noted in a static page, without a server, and took home."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from segfw.base.errors import UserError
from segfw.base.records import Record
from segfw.base.written_by_people import read_json
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.scripted_steps import Signature, review_case, sign_case
from segfw.reviewing.states import Decision, RejectReason


class NotedDecision(Record):
    """What somebody decided on a structure, or that he rejects a case, which has no structure then.

    ``sha256`` is of the draft that he saw. ``reason`` is the code of a rejection, ``text`` the same in words.
    """

    case: str
    structure: str | None = None
    decision: Decision | Literal["reject"]
    reason: RejectReason | None = None
    text: str = ""
    user: str = ""
    utc: str = ""
    sha256: str

    @field_validator("utc")
    @classmethod
    def _is_time(cls, utc: str) -> str:
        if utc and datetime.fromisoformat(utc).tzinfo is None:
            raise ValueError(f"{utc!r} does not say of which zone it is")
        return utc


def read_decisions(path: Path) -> list[NotedDecision]:
    """All that was noted; UserError naming the file and the entry that is wrong."""
    found = read_json(path)
    if not isinstance(found, list) or not found:
        raise UserError(f"{path}: holds no list of decisions; give the file that the review page gave")
    noted = []
    for number, entry in enumerate(found, 1):
        if not isinstance(entry, dict):
            raise UserError(f"{path}: entry {number} is no object; give the file that the review page gave")
        noted.append(NotedDecision.parse(_as_json(entry), f"{path}: entry {number}"))
    return noted


def take_noted(
    store: ReviewStore,
    case: str,
    noted: list[NotedDecision],
    user: str | None,
    active_s: float,
    signature: Signature | None,
) -> str:
    """Takes what was decided last on one case, and on each of its structures; '' where nothing is left to do.

    UserError where they were made of another draft, by several people, or where one of the structures has none.
    """
    person = Person.named(user or _one_user(case, noted))
    rejection, decisions = _last_word(noted, store.structures)
    standing = store.standing(case)
    if rejection is not None and standing.state == "REJECTED":
        return ""
    if rejection is None and standing.state in ("REVIEWED", "SIGNED"):
        if signature is None or standing.state == "SIGNED":
            return ""
        sign_case(store, case, person, signature)
        return "SIGNED"
    if standing.version != 0:
        raise UserError(f"{case}: the page showed the draft, but version {standing.version} counts; decide on that one")
    seen = {each.sha256 for each in noted}
    if seen != {store.sha256(case, 0)}:
        raise UserError(f"{case}: the page showed another draft than lies here now; make the page anew and look again")
    if rejection is not None:
        store.reject(case, person, rejection.reason or "other", rejection.text)
        return "REJECTED"
    edited = [name for name, decision in decisions.items() if decision == "edit"]
    if edited:
        raise UserError(
            f"{case}: {', '.join(edited)} is to be edited, which a static page cannot; open it in segfw review"
        )
    review_case(store, case, person, active_s, decisions)
    if signature is None:
        return "REVIEWED"
    sign_case(store, case, person, signature)
    return "SIGNED"


def _last_word(
    noted: Sequence[NotedDecision], structures: Sequence[str]
) -> tuple[NotedDecision | None, dict[str, Decision]]:
    """The rejection, if nothing was decided after it, and what was decided last on each structure.

    The latest is told by the times; entries of one time, and all where one has none, count in the order of the file.
    """
    if all(each.utc for each in noted):
        noted = sorted(noted, key=lambda each: datetime.fromisoformat(each.utc))
    rejection = None
    decisions: dict[str, Decision] = {}
    for each in noted:
        if each.decision == "reject":
            rejection = each
            continue
        rejection = None  # as in the page, where whoever accepts a structure takes the rejection back
        for name in structures if each.structure is None else (each.structure,):
            decisions[name] = each.decision
    return rejection, decisions


def _one_user(case: str, noted: list[NotedDecision]) -> str | None:
    users = {each.user for each in noted if each.user}
    if len(users) > 1:
        raise UserError(f"{case}: {', '.join(sorted(users))} decided on it; let one of them decide, or give --user")
    return next(iter(users), None)


def _as_json(entry: dict[str, object]) -> str:
    import json

    return json.dumps(entry)
