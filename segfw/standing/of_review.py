"""How far the review of a folder of masks is, and whether its log and masks are as they were written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segfw.base.durations import duration_text
from segfw.base.records import Record
from segfw.base.words import count
from segfw.delivery.delivered_copies import DeliveredCopy, superseded_copies
from segfw.reviewing.review_check import ReviewCheck, check_log, check_review
from segfw.reviewing.review_folder import ReviewFolder
from segfw.reviewing.review_log import LogDamaged
from segfw.reviewing.states import STATES
from segfw.worklist.audit_reading import results_so_far
from segfw.worklist.audit_sample import AuditResult, read_audits
from segfw.worklist.planted_cases import PlantedCases, Vigilance, vigilance_of

SHOWN = 5  # names and problems that a line lists
HASH_SHOWN = 12


class OpenCase(Record):
    """Who has a case open, until when if he does not renew it."""

    case: str
    user: str
    until_utc: str


class ReviewFacts(Record):
    """How far a review is. ``states`` are how many cases are in which one; ``left`` those that are neither signed nor
    rejected.

    ``head_n`` and ``head_sha256`` are the number and the hash of the log's last line. ``log_problem`` is what is wrong
    with the log ('' if nothing is), the line named; the rest is of the lines before it. ``check`` is there if it was
    asked for: the masks, too, and a log that was cut off or written anew, if an anchor was given. ``audit`` is what the
    last audit says, if it has begun; ``vigilance`` how many planted errors were seen, of those that were revealed.
    ``superseded`` are the copies that were delivered and no longer hold, and why.
    """

    states: dict[str, int]
    left: tuple[str, ...]
    open_now: tuple[OpenCase, ...]
    active_s: float
    head_n: int
    head_sha256: str
    log_problem: str
    check: ReviewCheck | None = None
    anchored_in: Path | None = None
    audit: tuple[AuditResult, ...] = ()
    vigilance: Vigilance | None = None
    superseded: tuple[DeliveredCopy, ...] = ()

    @property
    def is_unchanged(self) -> bool:
        """As far as it was looked at."""
        return not self.log_problem and (self.check is None or self.check.ok)

    def lines(self) -> list[str]:
        """A few lines."""
        states = ", ".join(f"{number} {state}" for state, number in self.states.items() if number)
        lines = [f"review: {states}; {duration_text(self.active_s)} of work; {len(self.left)} left to sign or reject"]
        if self.log_problem:
            lines = ["review: it is not known how far, because the log was changed; put it back from a copy"]
        for each in self.open_now[:SHOWN]:
            lines.append(f"open now: {each.case} by {each.user} until {each.until_utc}")
        lines += [f"audit: {result.text}" for result in self.audit]
        if self.vigilance is not None:
            lines.append(f"vigilance: {self.vigilance.text}")
        lines += _superseded_lines(self.superseded)
        head = f"head {self.head_n} {self.head_sha256[:HASH_SHOWN]}"
        lines.append(f"log: {self.log_problem}" if self.log_problem else f"log: verified, {head}")
        if self.check is not None:
            lines += _check_lines(self.check)
        if self.anchored_in is not None:
            lines.append(f"anchor: {head} was added to {self.anchored_in}; keep it where the masks are not")
        return lines


def review_facts(folder: Path, *, verify: bool = False, anchor: Path | None = None) -> ReviewFacts | None:
    """How far the review of a folder of masks is; None where nobody has begun one.

    With ``verify`` every version of a mask is read. The log is held against the ``anchor``, if that file is there; the
    present head is added to it, if nothing is wrong.
    """
    review = ReviewFolder(folder)
    if not review.is_begun:
        return None
    try:
        standings = review.standings()
        log_problem = ""
    except LogDamaged as error:
        standings = {}
        log_problem = f"line {error.line} {error.what}"
    check = None
    if verify or anchor is not None:
        against = anchor if anchor is not None and anchor.is_file() else None
        check = check_review(review, against) if verify else check_log(review, against)
    states = Counter(standing.state for standing in standings.values())
    anchored_in = None
    if anchor is not None and not log_problem and (check is None or check.ok):
        review.log.write_anchor(anchor)
        anchored_in = anchor
    head = review.head
    revealed = PlantedCases(review.folder).read().revealed
    return ReviewFacts(
        states={state: states[state] for state in STATES},
        left=tuple(case for case, each in standings.items() if each.state not in ("SIGNED", "REJECTED")),
        open_now=tuple(
            OpenCase(case=case, user=each.holder, until_utc=each.lease_until_utc or "")
            for case, each in standings.items()
            if each.holder is not None
        ),
        active_s=sum(each.active_s for each in standings.values()),
        head_n=head[0],
        head_sha256=head[1],
        log_problem=log_problem,
        check=check,
        anchored_in=anchored_in,
        audit=() if log_problem else tuple(results_so_far(review, read_audits(review.folder))),
        vigilance=vigilance_of(revealed) if revealed else None,
        superseded=() if log_problem else tuple(superseded_copies(review.log.path)),
    )


def _superseded_lines(copies: Sequence[DeliveredCopy]) -> list[str]:
    if not copies:
        return []
    lines = [f"delivered copies that no longer hold ({len(copies)}); call them back or replace them:"]
    lines += [f"  {copy.text()}" for copy in copies[:SHOWN]]
    return [*lines, f"  and {len(copies) - SHOWN} more, see --json"] if len(copies) > SHOWN else lines


def _check_lines(check: ReviewCheck) -> list[str]:
    gone = _names(check.image_gone)
    not_found = [f"not verified: the images of {gone} are not found, on which they were signed"] if gone else []
    if check.ok:
        verified = f"verified: {count(check.versions, 'version')} of masks and all signatures are as they were written"
        return [verified, *not_found]
    lines = [] if check.log.ok else [f"CHANGED: review/log.jsonl line {check.log.line} {check.log.what}"]
    lines += [f"CHANGED: {each.file} {each.what}" for each in check.files[:SHOWN]]
    for case, what in list(check.changed.items())[:SHOWN]:
        lines.append(f"CHANGED: {case} is signed, but its {' and '.join(what)} changed since")
    more = len(check.files) + len(check.changed) - len(lines)
    return [*lines, *([f"and {more} more, see --json"] if more > 1 else []), *not_found]


def _names(cases: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = len(cases) - SHOWN
    return ", ".join(cases[:SHOWN]) + (f" and {more} more" if more > 0 else "")
