"""Which cases may leave the review, and which may not, with what is to be done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from segfw.base.records import UserError
from segfw.base.words import count, did_you_mean
from segfw.delivery.deliver_options import DeliverOptions
from segfw.reviewing.case_history import CaseStanding
from segfw.reviewing.review_store import ReviewStore

# What is to be done before a case of such a state can be delivered.
REMEDIES = {
    "DRAFT": "nobody has reviewed it; review and sign it first",
    "IN_REVIEW": "its review is not finished; finish and sign it first",
    "REVIEWED": "it is reviewed and not signed; sign it first",
    "REJECTED": "it was rejected, so no mask of it is delivered; predict it anew and review that",
}
OR_RESEARCH = ", or deliver it as a draft with --research"
CHANGED_REMEDY = "amend it with a reason and sign it again, or restore what was changed"
GONE_REMEDY = (
    "put it back, or say where it lies with 'images' in review/policy.json, or deliver it without comparing by "
    "--without-image"
)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The cases that pass, with where they stand, and how many of each state were left out."""

    passed: Mapping[str, CaseStanding] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """Which cases were left out, in a sentence; '' if none was."""
        if not self.left_out:
            return ""
        parts = [f"{number} {state}" for state, number in sorted(self.left_out.items()) if state != "REJECTED"]
        rejected = self.left_out.get("REJECTED", 0)
        sentences = []
        if parts:
            sentences.append(
                f"not delivered, because they are not signed: {', '.join(parts)}; sign them, or see --research"
            )
        if rejected:
            sentences.append(f"{count(rejected, 'case')} rejected, which no option delivers")
        return "\n".join(sentences)


def passed_gate(store: ReviewStore, options: DeliverOptions) -> Gate:
    """The cases that may be delivered: those that are asked for, or all that are signed.

    Raises UserError if one that is asked for by name may not be, and if there is none at all.
    """
    standings = store.standings()
    if options.cases is not None:
        return Gate(passed={case: _asked_for(case, standings, options) for case in options.cases}, left_out={})
    passed = {case: standing for case, standing in standings.items() if _may_leave(standing, options)}
    left_out: Counter[str] = Counter(standing.state for case, standing in standings.items() if case not in passed)
    if not passed:
        states = ", ".join(f"{number} {state}" for state, number in sorted(left_out.items()))
        raise UserError(
            f"{store.folder}: holds no signed mask ({states}), and others are not delivered; review and sign them, or "
            "deliver drafts with --research"
        )
    return Gate(passed=passed, left_out=dict(left_out))


def require_unchanged(store: ReviewStore, case: str, *, without_image: bool) -> None:
    """UserError if a signed case is no longer what was signed or, unless ``without_image``, if nobody can tell."""
    changed = store.changed(case)
    if changed:
        raise UserError(f"{case}: was changed after it was signed ({', '.join(changed)}); {CHANGED_REMEDY}")
    if store.is_image_gone(case) and not without_image:
        raise UserError(f"{case}: the image on which it was signed is not found any more; {GONE_REMEDY}")


def require_as_found(store: ReviewStore, found: CaseStanding) -> None:
    """UserError if somebody took a step with a case since the gate let it pass, such as taking its signature back."""
    now = store.standing(found.case)
    names = ("state", "version", "sha256", "signed_by", "signed_name", "meaning", "signed_utc")
    if any(getattr(now, name) != getattr(found, name) for name in names):
        raise UserError(
            f"{found.case}: is {now.state} with version {now.version} now, and was {found.state} with version "
            f"{found.version} when the delivery began; deliver it again"
        )


def _may_leave(standing: CaseStanding, options: DeliverOptions) -> bool:
    return standing.state == "SIGNED" or (options.research and standing.state != "REJECTED")


def _asked_for(case: str, standings: Mapping[str, CaseStanding], options: DeliverOptions) -> CaseStanding:
    if case not in standings:
        raise UserError(f"--cases {case!r}: there is no such case{did_you_mean(case, standings)}; see segfw status")
    standing = standings[case]
    if not _may_leave(standing, options):
        remedy = REMEDIES[standing.state] + ("" if standing.state == "REJECTED" else OR_RESEARCH)
        raise UserError(f"{case}: is {standing.state}: {remedy}")
    return standing
