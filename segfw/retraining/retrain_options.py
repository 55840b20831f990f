"""What ``retrain`` takes: which labels, for how long, and what it is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segfw.base.durations import duration_s
from segfw.base.options import DEVICES, ONE_CONFIGURATION_HELP, Options, option

LENGTH_SHARE = 0.2
SEED = 1


@dataclass(frozen=True, kw_only=True)
class RetrainOptions(Options):
    """How ``retrain`` trains on, and what the new model is judged on.

    ``length_share`` is of the steps that the model was trained for; ``epochs`` or ``time_budget_s`` (of each fold and
    arm) take its place. ``test`` is a data set that nothing was trained on: with it that decides, and not the old
    validation cases.
    """

    states: Literal["signed", "reviewed"] = option(
        "signed", "which labels are taken: signed ones (default), or reviewed ones as well"
    )
    scratch: bool = option(False, "new weights trained for the model's own length, in place of its weights trained on")
    length_share: float = option(
        LENGTH_SHARE, "length, as a share of the steps the model was trained for (default: {default})", gt=0, le=2
    )
    epochs: int | None = option(None, "length in epochs instead", ge=1)
    time_budget_s: float | None = option(
        None, "length as a time instead, of each fold and arm: 90s, 12m, 1h30m", parse=duration_s, metavar="TIME", gt=0
    )
    test: Path | None = option(None, "judge on this data set, on which nothing was trained", metavar="RAW")
    groups: str | Path | None = option(
        None,
        "cases of one patient, old and new (and of --test): a table with columns case and patient, or an expression",
        metavar="CSV|REGEX",
    )
    configuration: str | None = option(None, ONE_CONFIGURATION_HELP)
    folds: tuple[str, ...] | None = option(None, "default: all that are trained", metavar="FOLD")
    raw_only: bool = option(False, "write NEW as a data set for segfw run, and train nothing")
    seed: int = option(SEED, "of the drawing of patients and of both arms (default: {default})", ge=0)
    workers: int | None = option(None, "threads that read and preprocess (default: one per processor)", ge=1)
    device: str = option("auto", DEVICES)
