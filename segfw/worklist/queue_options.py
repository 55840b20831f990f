"""What ``segfw queue`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segfw.base.options import OFF_ON, Options, option

FAIL_BELOW = 0.7


@dataclass(frozen=True, kw_only=True)
class QueueOptions(Options):
    """What is put in order, for what and for how long, and what is hidden in it to see whether people look.

    ``goal`` 'pool' is for these masks, 'model' for a model that is to learn from them. ``audit`` items are drawn once;
    ``read_audit`` says that the queue is over and that they are read now. ``plant`` copies with a made error are put
    between the others, and ``reveal`` ends that. With two ``readers`` some cases are prepared for a second one.
    """

    minutes: float | None = option(None, "that may be spent: what fits is marked, and then it is time to stop", gt=0)
    goal: Literal["pool", "model"] = option(
        "pool",
        "what the work is for: pool, these masks are to be right, or model, it is to learn from them (default: pool)",
        name="--for",
        choices=("pool", "model"),
    )
    weights: Path | None = option(None, "table of structures and what their Dice is worth (CSV: structure,weight)")
    worth: float | None = option(None, "Dice per minute below which it is time to stop", gt=0)
    regions: bool = option(
        False,
        "also single suspected regions, where one is believed to pay more per minute than its structure (default: off)",
        name="--regions",
        words=OFF_ON,
    )
    audit: int | None = option(None, "so many items drawn at random, to be read when the queue is over", ge=1)
    audit_by: Literal["pool", "structure"] = option(
        "pool",
        "draw them of all items, or so many of each structure, each with a bound of its own (default: pool)",
        choices=("pool", "structure"),
    )
    audits: int = option(1, "how many audits there will be in all, which is said with the first", ge=1)
    read_audit: bool = option(False, "the queue is over: what it did not reach of the audit is read now")
    fail_below: float = option(
        FAIL_BELOW, "Dice with the corrected mask below which a draft has failed (default: {default})", gt=0, lt=1
    )
    plant: int | None = option(None, "so many copies of cases with a made error, at most 5 of 100 items", ge=1)
    reveal: bool = option(False, "tell which errors were made, and how many of them were seen")
    readers: Literal[1, 2] = option(1, "2: prepare a tenth of the cases for a second reader", choices=(1, 2))
    blind: bool = option(False, "the page hides predicted quality until the first decision on a structure")
    seed: int = option(0, "of everything that is drawn (default: {default})", ge=0)
