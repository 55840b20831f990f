"""Whether somebody can have looked at what he accepts: by the slices that were displayed, and by the time it took."""

from __future__ import annotations

from dataclasses import dataclass

from segfw.base.words import count
from segfw.reviewing.review_policy import ReviewPolicy


@dataclass(frozen=True, kw_only=True)
class Viewing:
    """Of one structure: in how many slices it is, how many of those were displayed, and the seconds of work."""

    slices: int
    displayed: int
    active_s: float


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Whether a predicted quality, and a mask, have been on the screen since the case was opened."""

    quality: bool
    overlay: bool


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What somebody is asked before he accepts; nothing was decided yet."""

    text: str
    event: str  # what the log calls it


def too_little_viewed(structure: str, viewing: Viewing | None, policy: ReviewPolicy) -> str:
    """In words what is below the floors of the policy; '' if nothing is, or nothing is known."""
    if viewing is None or viewing.slices == 0:
        return ""
    if viewing.displayed < policy.floor_share_of_slices * viewing.slices:
        were = "was" if viewing.displayed == 1 else "were"
        return f"{viewing.displayed} of the {count(viewing.slices, 'slice')} with {structure} {were} displayed"
    if viewing.active_s < policy.floor_s_per_slice * viewing.slices:
        return f"{viewing.active_s:.1f} s were spent on the {count(viewing.slices, 'slice')} with {structure}"
    return ""


def too_many_in_a_row(accepted: int, policy: ReviewPolicy) -> str:
    """In words that somebody accepted many structures without an edit; '' while he has not."""
    if accepted < policy.warn_after_accepts:
        return ""
    return (
        f"{count(accepted, 'structure')} were accepted in a row without an edit; people who see many good masks "
        "overlook the bad one, so look at this one on your own"
    )
