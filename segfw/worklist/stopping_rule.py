"""When it is time to stop: minutes are spent, nothing pays any more, or the audit says that the rest is good enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from segfw.base.records import Record
from segfw.base.words import count
from segfw.worklist.audit_sample import AuditResult


class StopFact(Record):
    """One condition in numbers, from which every language makes its own sentence; ``holds`` if it says stop.

    ``number`` and ``limit`` are of 'minutes' those spent and those that may be; of 'worth' what the best item brings,
    and what is worth it; of 'audit' the open items not to be used (None where its bound is not reached), and the share
    of failures wanted; of 'open' the structures.
    """

    kind: Literal["decided", "minutes", "worth", "audit", "open"]
    holds: bool
    number: float | None = None
    limit: float | None = None
    audit: tuple[AuditResult, ...] = ()

    @property
    def text(self) -> str:
        """In English."""
        number = self.number or 0
        if self.kind == "decided":
            return "every structure is decided"
        if self.kind == "minutes":
            return f"{number:.0f} of {self.limit:g} minutes are spent"
        if self.kind == "worth":
            return f"the best item brings {number:.4f} Dice a minute, and {self.limit:g} is worth it"
        if self.kind == "open":
            return f"{count(int(number), 'structure')} {'is' if number == 1 else 'are'} open"
        texts = "audit: " + ", ".join(result.text for result in self.audit)
        if self.number is None:
            return f"{texts}; wanted is at most {100 * (self.limit or 0):g} %"
        if number:
            return f"{texts}, but {count(int(number), 'item')} not to be used are left"
        return f"{texts}, and nothing is left that is not to be used"


class Stop(Record):
    """Whether to stop, and in words which condition holds; where none does, how far the nearest ones are.

    ``facts`` are the same in numbers; queues of before have none.
    """

    is_reached: bool
    reasons: tuple[str, ...]
    facts: tuple[StopFact, ...] = ()

    @property
    def text(self) -> str:
        """'stop: 61 of 60 minutes are spent'."""
        return f"{'stop' if self.is_reached else 'go on'}: {'; '.join(self.reasons)}"


def stopping(
    *,
    items_left: int,
    spent_minutes: float,
    minutes: float | None,
    best_per_minute: float,
    worth: float | None,
    audit: Sequence[AuditResult],
    audit_target: float,
    do_not_use_left: int,
) -> Stop:
    """Which of the conditions hold.

    Parameters
    ----------
    items_left
        Open items.
    spent_minutes, minutes
        Of work so far, by the ledger, and those that may be spent.
    best_per_minute, worth
        Dice per minute of the best open item, and below which it does not pay.
    audit, audit_target
        What the audit says, and the share of failures that it is to rule out.
    do_not_use_left
        Open items of verdict 'do-not-use'.
    """
    facts: list[StopFact] = []
    if not items_left:
        facts.append(StopFact(kind="decided", holds=True))
    if minutes is not None:
        facts.append(StopFact(kind="minutes", holds=spent_minutes >= minutes, number=spent_minutes, limit=minutes))
    if worth is not None and items_left:
        facts.append(StopFact(kind="worth", holds=best_per_minute < worth, number=best_per_minute, limit=worth))
    if audit:
        is_good = all(result.bound is not None and result.bound <= audit_target for result in audit)
        facts.append(
            StopFact(
                kind="audit",
                holds=is_good and not do_not_use_left,
                number=do_not_use_left if is_good else None,
                limit=audit_target,
                audit=tuple(audit),
            )
        )
    hold = [fact for fact in facts if fact.holds]
    shown = hold or [StopFact(kind="open", holds=False, number=items_left), *facts]
    return Stop(is_reached=bool(hold), reasons=tuple(fact.text for fact in shown), facts=tuple(shown))
