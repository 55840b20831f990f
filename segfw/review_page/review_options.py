"""How ``segfw review`` serves its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segfw.base.options import DEVICES, Options, option

Language = Literal["auto", "en", "zh"]


@dataclass(frozen=True, kw_only=True)
class ReviewOptions(Options):
    """Who reviews, and how the page is opened. ``user`` None is the account of the system; ``port`` 0 is a free one."""

    user: str | None = option(None, "your name, as the log will have it (default: your account)", metavar="NAME")
    port: int = option(0, "of this computer (default: a free one)", ge=0, le=65535)
    browser: bool = option(True, "print the address alone, and open no browser")
    read_only: bool = option(False, "show everything, change nothing")
    blind: bool = option(False, "hide quality, doubt and other masks of a case until you have decided on a structure")
    deliver_to: Path | None = option(
        None, "where the page delivers signed masks to (default: beside the folder, NAME_delivered)", metavar="FOLDER"
    )
    refiner: Path | None = option(
        None, "work folder or model file whose 3d_refine answers clicks (default: no click tool)", metavar="MODEL"
    )
    device: str = option("auto", f"of --refiner: {DEVICES}")
    language: Literal["auto", "en", "zh"] = option("auto", "of the page (default: the browser's)")
    static: Path | None = option(
        None, "write one page that needs no server instead; decisions are downloaded from it", metavar="FILE"
    )
    cases: int = option(100, "of --static: how many, the most urgent first (default: {default})", ge=1)
