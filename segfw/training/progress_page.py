"""How a run goes, as a page that renews itself: progress.html in the run's folder, from before the first step on.

matplotlib and jinja2 are imported where they are used, because importing the training must stay light.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal

from segfw.base.figures import write_page
from segfw.base.records import UserError
from segfw.base.tables import Column, Table
from segfw.model.training_record import EpochRow, read_metrics, read_run_record
from segfw.planning.plan import Configuration
from segfw.planning.splits import Fold
from segfw.training.curves import MARK_DASHES, MARKS, Curves, curves_of
from segfw.training.metrics_log import clock, pace
from segfw.training.position import Position
from segfw.training.run_record import facts_of, note_last_page
from segfw.training.work_page import PROGRESS_HTML, RUNS, write_work_page

TEMPLATE = Path(__file__).with_name("progress.html.jinja")
WRITTEN_EVERY_S = 20.0
TIME_FORMAT = "%d %b %Y, %H:%M:%S"

State = Literal["running", "finished", "stopped", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a run, or this part of it, ended, and in words what there is to do."""

    state: State
    sentence: str


FINISHED = Ending(state="finished", sentence="Whole validation cases are scored after it, in report.html.")
REFINER_FINISHED = Ending(state="finished", sentence="segfw refine corrects masks with it.")


class ProgressPage:
    """Writes the page of the run in ``folder``: when told to, and meanwhile every WRITTEN_EVERY_S.

    ``facts`` are what it is trained with, by name, and ``since`` is when it was begun (now, where left out); the
    ``title`` is that of a fold's training where none is given. Only the first rank writes. Failing, for example because
    the disk is full, is said once and never raised: a page must not
    end a training.
    """

    def __init__(
        self,
        folder: Path,
        label_names: Sequence[str],
        facts: Mapping[str, str],
        *,
        is_first: bool = True,
        every_s: float = WRITTEN_EVERY_S,
        since: str | None = None,
        title: str = "",
    ) -> None:
        self._title = title
        self.path = folder / PROGRESS_HTML
        self._folder = folder
        self._label_names = tuple(label_names)
        self._facts = facts
        self._is_first = is_first
        self._every_s = every_s
        self._since = since or time.strftime(TIME_FORMAT)
        self._written_s: float | None = None
        self._position: Position | None = None
        self._drawn: list[tuple[Curves, str]] = []  # of so many rows:
        self._drawn_rows: int | None = None

    def is_due(self) -> bool:
        """True if what was written last is old."""
        if not self._is_first:
            return False
        return self._written_s is None or time.monotonic() - self._written_s >= self._every_s

    def show(self, position: Position) -> None:
        """Writes the page of a run that is under way there."""
        self._position = position
        self._write(None)

    def end(self, ending: Ending) -> None:
        """Writes the page of a run that is over, and in run.json that it is written."""
        if self._write(ending) and ending.state == "finished":
            note_last_page(self._folder)

    def _write(self, ending: Ending | None) -> bool:
        """Whether it is written."""
        if not self._is_first:
            return False
        self._written_s = time.monotonic()
        try:
            rows = read_metrics(self._folder)
            if len(rows) != self._drawn_rows:  # a rescued run loses rows
                self._drawn = self._drawings(rows)
            write_page(self.path, TEMPLATE, filters={"scaled": _scaled}, **self._content(rows, ending))
            if ending is not None or len(rows) != self._drawn_rows:  # it knows no steps, but reads all folds' epochs
                write_work_page(self._folder, is_running=ending is None, every_s=self._every_s)
            self._drawn_rows = len(rows)
            return True
        except Exception as error:  # disks and plotting libraries fail in too many ways to list
            _say_once(f"note: {self.path} cannot be written: {error or type(error).__name__}")
            return False

    def _drawings(self, rows: Sequence[EpochRow]) -> list[tuple[Curves, str]]:
        if not rows:
            return []
        return [(curves, curves.svg(_number(rows[-1]))) for curves in curves_of(rows, self._label_names)]

    def _content(self, rows: Sequence[EpochRow], ending: Ending | None) -> dict[str, object]:
        """What the template names."""
        configuration, fold = self._folder.resolve().parts[-2:]
        return {
            "title": self._title or f"Training of {configuration}, {fold.replace('_', ' ')}",
            "state": "running" if ending is None else ending.state,
            "ending": "" if ending is None else ending.sentence,
            "since": self._since,
            "every_s": round(self._every_s),
            "written_s": time.time(),
            "written": time.strftime(TIME_FORMAT),
            "position": self._position,
            "headline": _headline(rows, self._position),
            "minor": _minor(rows, self._position, is_running=ending is None),
            "events": _events(rows),
            "drawings": self._drawn,
            "labels": labels_table(rows, self._label_names),
            "mark_dashes": MARK_DASHES,
            "whole_number": sum(row.get("whole_case_dice") is not None for row in rows),
            "facts": self._facts,
            "folder": str(self._folder),
            "all_folds": f"../../../{PROGRESS_HTML}" if self._folder.resolve().parents[1].name == RUNS else "",
        }


def renew_work_page(folder: Path) -> None:
    """Writes the page of all folds anew, once the whole cases of the fold in ``folder`` are scored."""
    try:
        write_work_page(folder, is_running=False, every_s=WRITTEN_EVERY_S)
    except Exception as error:  # as above: a page is no reason to stop
        _say_once(f"note: {PROGRESS_HTML} of all folds cannot be written: {error or type(error).__name__}")


def finish_page(folder: Path, configuration: Configuration, fold: Fold, label_names: Sequence[str]) -> None:
    """Writes the pages of a finished run that was killed, or met a full disk, before it could write them itself.

    Without a run.json that can be read nothing is written, because a page is no reason to stop.
    """
    page = folder / PROGRESS_HTML
    try:
        record = read_run_record(folder)
        if record is None or (record.has_last_page and page.is_file()):
            return
        session = record.sessions[-1]
        patch_size = session.settings.get("patch_size")  # what a time budget had room for
        if isinstance(patch_size, list):
            configuration = configuration.model_copy(update={"patch_size": tuple(patch_size)})
        facts = facts_of(session, configuration, fold)
        since = datetime.fromisoformat(session.started).astimezone().strftime(TIME_FORMAT)
    except (OSError, UserError, ValueError, LookupError) as error:
        _say_once(f"note: {page} cannot be written: {error}")
        return
    page_of_run = ProgressPage(folder, label_names, facts, since=since)
    page_of_run.end(finished(configuration))


def finished(configuration: Configuration) -> Ending:
    """What the page says of a run that is over."""
    return REFINER_FINISHED if configuration.is_refiner else FINISHED


def _scaled(dashes: str) -> str:
    """Dashes of line widths for the key of a line, which is twice as wide as one."""
    return " ".join(f"{2 * float(part):g}" for part in dashes.split())


@cache
def _say_once(text: str) -> None:
    print(text)


def _headline(rows: Sequence[EpochRow], position: Position | None) -> tuple[str, str]:
    """The score that counts, and what it is; before there is one, how far the first epoch is."""
    whole = [row for row in rows if row.get("whole_case_dice") is not None]
    if whole:
        return f"{whole[-1]['whole_case_dice']:.3f}", f"mean Dice of whole validation cases, epoch {_number(whole[-1])}"
    if rows and "val_dice" not in rows[-1]:
        explained = rows[-1]["val_explained"]
        return f"{explained:.1%}", f"of the squares of hidden voxels is explained, epoch {_number(rows[-1])}"
    if rows:
        return f"{rows[-1]['val_dice']:.3f}", f"mean Dice of validation patches, epoch {_number(rows[-1])}"
    step = "step 0" if position is None else position.step()
    return step, "of the first epoch; there is a Dice when it is over"


def _number(row: EpochRow) -> int:
    return row["epoch"] + 1


def _minor(rows: Sequence[EpochRow], position: Position | None, *, is_running: bool) -> list[tuple[str, str]]:
    """Figures and what they are."""
    figures = []
    if position is not None:
        done = len(rows)
        figures.append((f"{done} of {position.epochs}" if position.epochs else f"{done}", "epochs done"))
        figures.append((clock(position.elapsed_s), f"spent, {_clock_units(position.elapsed_s)}"))
        if is_running and position.left_s is not None:
            figures.append((clock(position.left_s), f"left, {_clock_units(position.left_s)}"))
        if position.step_s is not None:
            speed, unit = pace(1, position.step_s).split()
            figures.append((speed, unit))
    if rows:
        figures.append((f"{statistics.median(row['epoch_s'] for row in rows):.1f} s", "median of an epoch"))
        waited = sum(row["stalled_share"] * row["epoch_s"] for row in rows) / sum(row["epoch_s"] for row in rows)
        figures.append((f"{waited:.1%}", "of it waiting for data"))
        if rows[-1].get("gpu_memory_gb") is not None:
            figures.append((f"{rows[-1]['gpu_memory_gb']:.1f} GB", "GPU memory"))
    return figures


def _clock_units(seconds: float) -> str:
    return "h:min:s" if round(seconds) >= 3600 else "min:s"


def _events(rows: Sequence[EpochRow]) -> list[tuple[int, str, str]]:
    """Epoch, kind and sentence of everything that MARKS names."""
    return [(_number(row), key, str(row.get(key))) for row in rows for key in MARKS if key in row]


def labels_table(rows: Sequence[EpochRow], label_names: Sequence[str]) -> Table | None:
    """The Dice of every label: of the last epoch, the best so far, and of whole cases; None without an epoch."""
    if not rows or not label_names:
        return None
    best = [max(rows, key=lambda row: row["val_dice_per_label"][index] or 0.0) for index in range(len(label_names))]
    columns = [
        Column(title="Label", values=list(label_names)),
        Column(
            title="Dice",
            unit=f"patches, epoch {_number(rows[-1])}",
            values=rows[-1]["val_dice_per_label"],
            digits=3,
        ),
        Column(
            title="Best Dice",
            unit="patches",
            values=[row["val_dice_per_label"][index] for index, row in enumerate(best)],
            digits=3,
        ),
        Column(title="Reached", unit="in epoch", values=[_number(row) for row in best], digits=0),
    ]
    whole = [row for row in rows if row.get("whole_case_dice_per_label") is not None]
    if whole:
        columns.append(
            Column(
                title="Dice",
                unit=f"whole cases, epoch {_number(whole[-1])}",
                values=whole[-1]["whole_case_dice_per_label"],
                digits=3,
            )
        )
    return Table(name="Dice by label", columns=columns, search="Find a label")
