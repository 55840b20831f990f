"""When it is time to stop: minutes are spent, nothing pays any more, or the audit says that the rest is good enough."""

from __future__ import annotations

from collections.abc import Sequence

from segfw.base.records import Record
from segfw.base.words import count
from segfw.worklist.audit_sample import AuditResult


class Stop(Record):
    """Whether to stop, and in words which condition holds; where none does, how far the nearest ones are."""

    is_reached: bool
    reasons: tuple[str, ...]

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
    hold: list[str] = []
    lacks: list[str] = []
    if not items_left:
        hold.append("every structure is decided")
    if minutes is not None:
        spent = f"{spent_minutes:.0f} of {minutes:g} minutes are spent"
        (hold if spent_minutes >= minutes else lacks).append(spent)
    if worth is not None and items_left:
        pays = f"the best item brings {best_per_minute:.4f} Dice a minute, and {worth:g} is worth it"
        (hold if best_per_minute < worth else lacks).append(pays)
    bounds = [result.bound for result in audit]
    if audit:
        texts = "audit: " + ", ".join(result.text for result in audit)
        is_good = all(bound is not None and bound <= audit_target for bound in bounds)
        if is_good and not do_not_use_left:
            hold.append(f"{texts}, and nothing is left that is not to be used")
        elif is_good:
            lacks.append(f"{texts}, but {count(do_not_use_left, 'item')} not to be used are left")
        else:
            lacks.append(f"{texts}; wanted is at most {100 * audit_target:g} %")
    if hold:
        return Stop(is_reached=True, reasons=tuple(hold))
    open_text = count(items_left, "structure")
    verb = "is" if items_left == 1 else "are"
    return Stop(is_reached=False, reasons=(f"{open_text} {verb} open", *lacks))
