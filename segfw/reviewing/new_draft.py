"""What ``predict`` and ``ensemble`` ask and note before they write into a folder whose masks people review.

They write drafts alone, beside ``review/``, which they never touch. New drafts are noted in the log: whoever had not
finished a case begins it again with the new one.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from segfw.base.errors import UserError
from segfw.base.words import listed
from segfw.reviewing.draft_model import draft_model_digest, is_folder_of_drafts
from segfw.reviewing.leases import read_leases
from segfw.reviewing.people import Person
from segfw.reviewing.review_log import Clock, Entry, ReviewLog, now_utc


def is_under_review(folder: Path) -> bool:
    """Whether people have begun to review the masks of a folder."""
    return ReviewLog.open(folder).path.is_file()


def require_same_model(folder: Path, model_digest: str, *, overwrite: bool, clock: Clock = now_utc) -> None:
    """UserError where masks of a folder under review are of another model, and where new drafts are asked for while
    somebody has a case open."""
    if not is_under_review(folder):
        return
    if not overwrite:
        if is_folder_of_drafts(folder) and draft_model_digest(folder) != model_digest:
            raise UserError(
                f"{folder}: is under review, and its masks are of another model or other options; predict into another "
                "folder, or with --overwrite begin new drafts, which leaves what people made as it is"
            )
        return
    open_now = [lease for lease in read_leases(folder).values() if lease.is_live(clock())]
    if open_now:
        who = listed([f"{lease.case} by {lease.user}" for lease in open_now[:3]], "and")
        raise UserError(f"{folder}: is being reviewed now ({who}); new drafts are for when they have finished")


def note_new_drafts(
    folder: Path, model_digest: str, command: str, cases: Collection[str], *, clock: Clock = now_utc
) -> None:
    """Notes, before the first one is written, that new drafts take the place of the old ones of these cases."""
    if not cases:
        return
    person = Person.named(None)
    entry = Entry(
        event="new-draft",
        user=person.user,
        identity=person.identity,
        model_digest=model_digest,
        reason=command,
    )
    entries = [entry.model_copy(update={"case": case}) for case in sorted(cases)]
    ReviewLog.open(folder, clock).append_all(entries)
