"""What ``accept``, ``reject`` and ``import-corrected`` are told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.options import Options, option
from segfw.reviewing.states import MEANINGS, REJECT_REASONS, Meaning, RejectReason

USER_HELP = "who does it, which is noted as declared, not proven (default: the account of the system)"
MINUTES_HELP = "that it took, of all cases together"


@dataclass(frozen=True, kw_only=True)
class AcceptOptions(Options):
    """Who accepts, what was noted elsewhere (``from_file``), and who signs."""

    user: str | None = option(None, USER_HELP, metavar="NAME")
    minutes: float = option(0.0, MINUTES_HELP, ge=0)
    from_file: Path | None = option(
        None, "decisions.json that a static review page gave: its decisions are taken", name="--from", metavar="FILE"
    )
    sign: str | None = option(None, "sign, too, with this printed name", metavar="NAME")
    meaning: Meaning = option("review", "of the signature (default: {default})", choices=MEANINGS)


@dataclass(frozen=True, kw_only=True)
class RejectOptions(Options):
    """Who rejects, and why."""

    user: str | None = option(None, USER_HELP, metavar="NAME")
    minutes: float = option(0.0, MINUTES_HELP, ge=0)
    reason: RejectReason = option("other", "why (default: {default}, which needs --text)", choices=REJECT_REASONS)
    text: str = option("", "the same in words")
    signature: bool = option(False, "take signatures back instead, for --text: the cases are REVIEWED again")


@dataclass(frozen=True, kw_only=True)
class CorrectedOptions(Options):
    """Who corrected masks, with what, and of which version. ``case`` is of a single file."""

    user: str | None = option(None, USER_HELP, metavar="NAME")
    minutes: float = option(0.0, MINUTES_HELP, ge=0)
    tool: str = option("another program", "what they were corrected with (default: {default})", metavar="NAME")
    base: int = option(0, "version that was corrected (default: 0, the draft)", metavar="NUMBER", ge=0)
    case: str | None = option(None, "whose mask it is, of a single file of another name")
    label_names: Path | None = option(
        None, "table of what the numbers in plain masks mean (default: as in labels.json)", metavar="FILE"
    )
    finish: bool = option(True, "leave the cases unfinished: the masks are versions, and nothing is decided")
