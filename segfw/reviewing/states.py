"""The states of a case under review, who may bring it from one into another, and the words of decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from segfw.base.errors import UserError

State = Literal["DRAFT", "IN_REVIEW", "REVIEWED", "SIGNED", "REJECTED"]
Decision = Literal["accept", "edit", "absent"]  # of one structure
RejectReason = Literal["image-bad", "wrong-anatomy", "model-failed", "not-for-this-model", "other"]
Meaning = Literal["authorship", "review", "responsibility"]
Role = Literal["reviewer", "signer"]

STATES: tuple[State, ...] = get_args(State)
DECISIONS: tuple[Decision, ...] = get_args(Decision)
REJECT_REASONS: tuple[RejectReason, ...] = get_args(RejectReason)
MEANINGS: tuple[Meaning, ...] = get_args(Meaning)


@dataclass(frozen=True, kw_only=True)
class Transition:
    """A step that a case may take; ``event`` is what the log calls it."""

    event: str
    before: State
    after: State
    role: Role


# Everything else is refused. A REVIEWED case may be opened again: what a second look or an amendment finds must be
# mended by somebody.
TRANSITIONS = (
    Transition(event="open", before="DRAFT", after="IN_REVIEW", role="reviewer"),
    Transition(event="open", before="REVIEWED", after="IN_REVIEW", role="reviewer"),
    Transition(event="finish", before="IN_REVIEW", after="REVIEWED", role="reviewer"),
    Transition(event="release", before="IN_REVIEW", after="DRAFT", role="reviewer"),
    Transition(event="sign", before="REVIEWED", after="SIGNED", role="signer"),
    Transition(event="amend", before="SIGNED", after="REVIEWED", role="signer"),
    Transition(event="reject", before="DRAFT", after="REJECTED", role="reviewer"),
    Transition(event="reject", before="IN_REVIEW", after="REJECTED", role="reviewer"),
    Transition(event="reject", before="REVIEWED", after="REJECTED", role="reviewer"),
)
# What is to be done instead, by what was asked for and the state that the case is in.
REMEDIES = {
    ("open", "SIGNED"): "the signer amends it first, with a reason",
    ("open", "REJECTED"): "predict it anew, which makes a new draft",
    ("finish", "DRAFT"): "open it first",
    ("finish", "REVIEWED"): "it is finished; a signer may sign it",
    ("sign", "DRAFT"): "it must be reviewed first",
    ("sign", "IN_REVIEW"): "its reviewer must finish first",
    ("reject", "SIGNED"): "the signer amends it first, with a reason",
}


class WrongState(UserError):
    """What is asked for cannot be done with a case in its present state."""


def transition(case: str, event: str, before: State) -> Transition:
    """The step that is asked for; WrongState if a case in the state ``before`` cannot take it."""
    for each in TRANSITIONS:
        if (each.event, each.before) == (event, before):
            return each
    possible = sorted({each.before for each in TRANSITIONS if each.event == event})
    remedy = REMEDIES.get((event, before), f"that is for a case in state {' or '.join(possible)}")
    raise WrongState(f"{case}: is {before}, so it cannot take the step {event!r}; {remedy}")
