"""All folds of a work folder on one page: WORK/progress.html, written anew by whichever fold is trained."""

from __future__ import annotations

import time
from pathlib import Path

from segfw.base.figures import write_page
from segfw.base.tables import Column, Table
from segfw.base.words import count
from segfw.model.source import WEIGHTS_FILE
from segfw.model.training_record import read_metrics, validation_dice

PROGRESS_HTML = "progress.html"  # of a fold, and of the work folder
TEMPLATE = Path(__file__).with_name("work_progress.html.jinja")
RUNS = "runs"


def write_work_page(fold: Path, *, is_running: bool, every_s: float) -> None:
    """Writes the page of the work folder that ``fold`` lies in; nothing where it lies elsewhere.

    ``is_running`` is of that fold: whether others are trained at the same time is for their own pages to tell.
    """
    runs = fold.resolve().parents[1]
    if runs.name != RUNS:
        return
    folds = sorted(path for path in runs.glob("*/fold_*") if path.is_dir())
    table, finished = folds_table(folds, running=fold.resolve() if is_running else None)
    write_page(
        runs.parent / PROGRESS_HTML,
        TEMPLATE,
        title=f"Training in {runs.parent.name}",
        table=table,
        begun=count(len(folds), "fold"),
        finished=finished,
        is_running=is_running,
        every_s=round(every_s),
        written=time.strftime("%d %b %Y, %H:%M:%S"),
    )


def folds_table(folds: list[Path], *, running: Path | None) -> tuple[Table, int]:
    """A row a fold with a link to its page, and how many are finished."""
    names = [f"{fold.parent.name}, {fold.name.replace('_', ' ')}" for fold in folds]
    links = {
        name: f"{RUNS}/{fold.parent.name}/{fold.name}/{PROGRESS_HTML}"
        for name, fold in zip(names, folds)
        if (fold / PROGRESS_HTML).is_file() or fold == running
    }
    are_finished = [(fold / WEIGHTS_FILE).is_file() and fold != running for fold in folds]
    states = [
        "running" if fold == running else "finished" if is_finished else "begun"
        for fold, is_finished in zip(folds, are_finished)
    ]
    epochs = []
    patches = []
    whole = []
    for fold, is_finished in zip(folds, are_finished):
        rows = read_metrics(fold)
        seen = [row["whole_case_dice"] for row in rows if row.get("whole_case_dice") is not None]
        epochs.append(len(rows))
        patches.append(rows[-1]["val_dice"] if rows else None)
        final = validation_dice(fold) if is_finished else None
        whole.append(final if final is not None or not seen else seen[-1])
    columns = [
        Column(title="Fold", values=names, links=links),
        Column(title="State", values=states),
        Column(title="Epochs", unit="done", values=epochs, digits=0),
        Column(title="Dice", unit="patches, last", values=patches, digits=3),
        Column(title="Dice", unit="whole cases", values=whole, digits=3),
    ]
    return Table(name="Folds", columns=columns, search="Find a fold"), sum(are_finished)
