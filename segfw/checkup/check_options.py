"""The options of the check of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.options import LABEL_NAMES_HELP, PSEUDONYMS_HELP, Options, option


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Options):
    """What ``check_dataset`` writes, and how it reads."""

    output: Path | None = option(None, "folder for check.json, check.html with pictures, structures.csv", metavar="DIR")
    fix: Path | None = option(None, "new folder for a copy, repaired where that is safe", metavar="DIR")
    groups: str | Path | None = option(None, "cases of one patient, as for plan-and-preprocess", metavar="CSV|REGEX")
    label_names: Path | None = option(None, LABEL_NAMES_HELP, metavar="FILE")
    pseudonyms: Path | None = option(None, PSEUDONYMS_HELP, metavar="FILE")
    workers: int | None = option(None, "threads that read (default: one per processor)", ge=1)
