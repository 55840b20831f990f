"""A fold's run that is there already: it is deleted, or made one that goes on for longer."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segfw.base.files import remove_partials
from segfw.base.ranks import Ranks
from segfw.base.records import UserError
from segfw.model.source import WEIGHTS_FILE
from segfw.training.checkpoint import CHECKPOINT_FILE, Counters
from segfw.training.prepare import SETTINGS_FILE
from segfw.training.schedule import extended
from segfw.training.settings import TrainOptions, TrainSettings

BEFORE_EXTENSION = "before_extension"  # folder of what an extended run had made


@dataclass(frozen=True, kw_only=True)
class BegunRun:
    """What is there of a fold's run."""

    is_started: bool
    is_trained: bool  # to its end


def find_begun_run(folder: Path, options: TrainOptions, ranks: Ranks, *, results: Sequence[str]) -> BegunRun:
    """What is there, once it is deleted or made longer as asked for; ``results`` are files of a finished run.

    What a killed process left half-written is removed, also beside a run that is finished.
    """
    if ranks.is_first:
        remove_partials(folder)
        if options.overwrite:
            delete_run(folder)
        if options.is_extended:
            reopen(folder, epochs=options.extend_epochs, time_s=options.extend_s, results=results)
    ranks.wait()
    found = BegunRun(
        is_started=(folder / CHECKPOINT_FILE).is_file(),
        is_trained=(folder / WEIGHTS_FILE).is_file(),
    )
    ranks.wait()  # all have looked before the first one writes
    return found


def delete_run(folder: Path) -> None:
    """Deletes the run of a fold, the weights first: a half-deleted run must not count as finished."""
    (folder / WEIGHTS_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def reopen(folder: Path, *, epochs: int | None, time_s: float | None, results: Sequence[str]) -> None:
    """Makes a finished run one that can go on; its weights and ``results`` so far are kept beside it.

    Raises UserError if there is none, or it cannot be extended by that.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        raise UserError(f"{folder}: holds no finished run to extend; finish it first, with --resume if it was started")
    extended(TrainSettings.load(folder / SETTINGS_FILE), Counters(), epochs=epochs, seconds=time_s)  # or a UserError
    before = folder / BEFORE_EXTENSION
    shutil.rmtree(before, ignore_errors=True)
    before.mkdir()
    for name in (*results, WEIGHTS_FILE):  # the weights last: until then the run counts as finished
        if (folder / name).exists():
            (folder / name).rename(before / name)
