"""How far the training of one fold is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segfw.base.durations import HOUR_S, duration_text
from segfw.base.file_names import CHECKPOINT_FILE, RUN_SETTINGS_FILE
from segfw.base.locks import Holder, holder_now
from segfw.base.records import Record
from segfw.model.source import WEIGHTS_FILE, fold_folder, fold_lock
from segfw.model.training_record import VALIDATION_SCORES, EpochRow, read_metrics, validation_dice
from segfw.training.settings import TrainSettings

State = Literal["not begun", "running", "interrupted", "trained", "finished"]


class FoldStanding(Record):
    """State of a fold's training.

    A fold that is 'trained' has no scores of its validation cases yet. ``epochs`` is None where a time budget ends the
    run. ``hours_left`` is an estimate from the epochs so far, None before the first. ``dice`` is the newest that is
    known, of what ``dice_of`` says. What is 'interrupted' can be gone on with if it is ``resumable``.
    """

    fold: str
    state: State
    resumable: bool = False
    epochs_done: int = 0
    epochs: int | None = None
    time_budget_s: float | None = None
    dice: float | None = None
    dice_of: Literal["", "validation patches", "whole validation cases"] = ""
    hours_spent: float = 0.0
    hours_left: float | None = None
    holder: Holder | None = None

    def text(self) -> str:
        """'fold 0: running, epoch 12 of 100, Dice 0.71 of validation patches, 1.2 h spent, about 9.8 h left'."""
        parts: list[str] = [self.state]
        if self.holder is not None:
            parts[0] += f" ({self.holder})"
        if self.state in ("running", "interrupted"):
            of_all = f" of {self.epochs}" if self.epochs else ""
            parts.append(f"{self.epochs_done}{of_all} epochs done")
        if self.state == "interrupted":
            parts.append("can be resumed" if self.resumable else "before its first checkpoint, so it begins anew")
        if self.state == "trained":
            parts.append("its validation cases are not scored yet")
        if self.dice is not None:
            parts.append(f"Dice {self.dice:.3f} of {self.dice_of}")
        if self.hours_spent:
            parts.append(f"{duration_text(self.hours_spent * HOUR_S)} spent")
        if self.hours_left is not None and self.state in ("running", "interrupted"):
            parts.append(f"about {duration_text(self.hours_left * HOUR_S)} left")
        return f"fold {self.fold}: {', '.join(parts)}"


def fold_standing(work: Path, configuration: str, fold: str, *, is_scored: bool = True) -> FoldStanding:
    """How far a fold of a work folder is; a refiner ends with its training, as none of its masks are scored."""
    folder = fold_folder(work, configuration, fold)
    holder = holder_now(fold_lock(folder))
    is_trained = (folder / WEIGHTS_FILE).is_file()
    settings = _settings(folder)
    rows = read_metrics(folder)
    if is_trained:
        state: State = (
            "finished" if not is_scored or fold == "all" or (folder / VALIDATION_SCORES).is_file() else "trained"
        )
    elif settings is None and holder is None:
        return FoldStanding(fold=fold, state="not begun")
    else:
        state = "interrupted"
    if holder is not None:
        state = "running"
    dice, dice_of = _newest_dice(folder, rows, is_trained=is_trained)
    return FoldStanding(
        fold=fold,
        state=state,
        resumable=state == "interrupted" and (folder / CHECKPOINT_FILE).is_file(),
        epochs_done=len(rows),
        epochs=None if settings is None or settings.time_budget_s else settings.epochs,
        time_budget_s=None if settings is None else settings.time_budget_s,
        dice=dice,
        dice_of=dice_of,
        hours_spent=rows[-1]["elapsed_s"] / HOUR_S if rows else 0.0,
        hours_left=0.0 if is_trained else _hours_left(settings, rows),
        holder=holder,
    )


def _settings(folder: Path) -> TrainSettings | None:
    """How the run was begun; None if it was not, as in an imported model."""
    path = folder / RUN_SETTINGS_FILE
    return TrainSettings.load(path) if path.is_file() else None


def _hours_left(settings: TrainSettings | None, rows: list[EpochRow]) -> float | None:
    if settings is None or not rows:
        return None
    elapsed_s = rows[-1]["elapsed_s"]
    if settings.time_budget_s:
        return max(0.0, settings.time_budget_s - elapsed_s) / HOUR_S
    return max(0, settings.epochs - len(rows)) * elapsed_s / len(rows) / HOUR_S


def _newest_dice(
    folder: Path, rows: list[EpochRow], *, is_trained: bool
) -> tuple[float | None, Literal["", "validation patches", "whole validation cases"]]:
    final = validation_dice(folder) if is_trained else None
    if final is not None:
        return final, "whole validation cases"
    whole = [row["whole_case_dice"] for row in rows if row.get("whole_case_dice") is not None]
    if whole:
        return whole[-1], "whole validation cases"
    return (rows[-1]["val_dice"], "validation patches") if rows else (None, "")
