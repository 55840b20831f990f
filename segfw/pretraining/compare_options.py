"""What ``compare-starts`` compares: how many labelled patients, seeds, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segfw.base.durations import duration_s
from segfw.base.options import DEVICES, Options, option

LABELLED = "10,25,all"
DECISIVE = (
    "labelled",
    "seeds",
    "time_budget_s",
    "pretrain_s",
    "configuration",
    "fold",
    "test_patients",
    "images",
    "keep_out",
)


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Options):
    """How ``compare-starts`` trains its arms."""

    labelled: str = option(
        LABELLED, "how many patients have labels, with commas between (default: {default}, as far as there are so many)"
    )
    seeds: int = option(3, "trainings of each arm, which differ in patients and weights (default: {default})", ge=1)
    time_budget_s: float = option(
        720.0, "length of each training: 90s, 12m, 1h (default: 12m)", parse=duration_s, metavar="TIME", gt=0
    )
    pretrain_s: float | None = option(
        None,
        "length of the pretraining (default: that of a training)",
        name="--pretrain-budget",
        parse=duration_s,
        metavar="TIME",
        gt=0,
    )
    configuration: str | None = option(None, "default: the one that the plan chose, else 3d_fullres, else the first")
    fold: str = option("0", "whose validation cases no arm sees, and all are scored on (default: {default})")
    test_patients: int | None = option(
        None, "score on so many of the fold's validation patients (default: all)", metavar="N", ge=1
    )
    images: tuple[str, ...] = option((), "folders of further images to pretrain on", metavar="FOLDER")
    keep_out: tuple[str, ...] = option((), "folders of images that must stay unseen", metavar="FOLDER")
    init_from: Path | None = option(None, "a third arm begins with this model's weights", metavar="MODEL")
    may_have_seen: bool = option(
        False, "take a MODEL that has seen images of the fold's validation: its scores will be too good"
    )
    output: Path | None = option(None, "folder of the comparison (default: WORK/compare_starts)", metavar="FOLDER")
    device: str = option("auto", DEVICES)

    def decisive(self) -> dict[str, Any]:
        """All that a comparison that goes on must have in common with what was begun."""
        values = self.as_json()
        return {name: values[name] for name in DECISIVE}

    def numbers(self, patients: int) -> tuple[str, ...]:
        """How many patients are labelled, each once; by default as far as there are so many ``patients``."""
        asked = tuple(dict.fromkeys(self.labelled.split(",")))
        if self.labelled != LABELLED:
            return asked
        return tuple(each for each in asked if each == "all" or int(each) < patients)
