"""What a step of a review is refused for: in the same words for every case, so that none tells a planted one.

Each function raises UserError that names the case, says what is wrong and what is to be done.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from segfw.base.errors import UserError
from segfw.reviewing.states import DECISIONS, MEANINGS, REJECT_REASONS, State


class Locked(UserError):
    """Another person has the case open, or nobody has it any more."""


class Conflict(UserError):
    """Another version came between; ``newest`` is its number and ``author`` who made it."""

    def __init__(self, case: str, base: int, newest: int, author: str) -> None:
        super().__init__(
            f"{case}: was changed from version {base}, but version {newest} by {author} is the newest; open that one, "
            "and make the change there"
        )
        self.newest = newest
        self.author = author


def not_open(case: str, user: str, state: State) -> Locked:
    """Of a case that the person has not open."""
    return Locked(f"{case}: is not open by {user}, it is {state}; open it, which holds for ten minutes")


def require_grid(case: str, shape_zyx: Sequence[int], wanted_zyx: Sequence[int]) -> None:
    """A mask that is saved has the voxels of the draft."""
    if tuple(shape_zyx) != tuple(wanted_zyx):
        shape = " x ".join(map(str, shape_zyx))
        wanted = " x ".join(map(str, wanted_zyx))
        raise UserError(f"{case}: a mask of {shape} voxels was given, but the draft has {wanted}; take its grid")


def require_decision(case: str, structures: Collection[str], structure: str, decision: str) -> None:
    """A decision is one of DECISIONS, on one of the structures."""
    if structure not in structures:
        raise UserError(f"{case}: has no structure {structure!r}; give one of {', '.join(structures)}")
    if decision not in DECISIONS:
        raise UserError(f"{case}: {decision!r} is no decision; give one of {', '.join(DECISIONS)}")


def require_all_decided(case: str, structures: Collection[str], decided: Collection[str]) -> None:
    """A case is finished once every structure is decided."""
    lacking = [name for name in structures if name not in decided]
    if lacking:
        raise UserError(f"{case}: nothing is decided on {', '.join(lacking)}; decide accept, edit or absent of each")


def require_shown_version(case: str, number: int, sha256: str | None, shown_sha256: str) -> None:
    """Who signs was shown the version that was reviewed, the newest."""
    if shown_sha256 != sha256:
        raise UserError(
            f"{case}: the hash {shown_sha256[:12]} that was shown is not that of version {number}, which was "
            "reviewed; look at that version and sign again"
        )


def require_other_hands(case: str, user: str, hands: Collection[str]) -> None:
    """With four eyes nobody signs what he reviewed or changed."""
    if user in hands:
        raise UserError(
            f"{case}: {user} reviewed or changed it, and the policy asks for four eyes; another signer signs"
        )


def require_meaning(case: str, meaning: str) -> None:
    """Of a signature."""
    if meaning not in MEANINGS:
        raise UserError(f"{case}: {meaning!r} is no meaning of a signature; give one of {', '.join(MEANINGS)}")


def require_reject_reason(case: str, reason: str, text: str) -> None:
    """A rejection has one of REJECT_REASONS; 'other' needs a text."""
    if reason not in REJECT_REASONS:
        raise UserError(f"{case}: {reason!r} is no reason; give one of {', '.join(REJECT_REASONS)}")
    if reason == "other" and not text.strip():
        raise UserError(f"{case}: the reason is 'other'; say which, in words")


def require_amend_reason(case: str, reason: str) -> None:
    """A signature is taken back for a reason."""
    if not reason.strip():
        raise UserError(f"{case}: a signature is taken back for a reason; say it in words")
