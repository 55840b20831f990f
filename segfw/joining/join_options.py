"""The options of joining data sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.options import Options, option


@dataclass(frozen=True, kw_only=True)
class JoinOptions(Options):
    """What the sources are called, and which of their labels are one."""

    called: tuple[str, ...] = option((), "a name for each RAW, before its cases' ids (default: its folder's)")
    labels: Path | None = option(None, "source,label,joined: labels that are one, and what it is called", metavar="CSV")
    workers: int | None = option(None, "threads that read (default: one per processor)", ge=1)
    dry_run: bool = option(False, "say what would be joined, and what is odd about it; write nothing")
