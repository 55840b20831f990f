"""How a run goes, as a picture and as a page that renews itself: progress.png and progress.html in the run's folder.

matplotlib and jinja2 are imported where they are used, because importing the training must stay light.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.figures import PALETTE, label_color, plain_axes, png_of, shortened, write_page
from segfw.base.files import whole_file
from segfw.training.metrics_log import clock

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROGRESS_PNG = "progress.png"
PROGRESS_HTML = "progress.html"
TEMPLATE = Path(__file__).with_name("progress.html.jinja")
DRAWN_EVERY_S = 20.0
LEGEND_ENTRIES = 10  # labels beyond these are drawn without a name
INK = "#1c2733"
SOFT_INK = "#5b6875"
# Keys of a row whose value is a sentence of what happened then -> colour of the line that marks the epoch.
MARKS = {"rescued": PALETTE[0], "extended": PALETTE[2], "cooling": PALETTE[1]}


def draw_progress(
    folder: Path,
    rows: Sequence[Mapping],
    label_names: Sequence[str],
    *,
    is_last: bool = False,
    left_s: float | None = None,
) -> None:
    """Draws the rows of metrics.jsonl; nothing is done within DRAWN_EVERY_S of the last time, unless ``is_last``.

    ``left_s`` is how long the run is expected to go on. Failing, for example because the disk is full, is said once
    and never raised: a picture must not end a training.
    """
    if not rows or not (is_last or _is_due(folder / PROGRESS_PNG)):
        return
    try:
        png = draw_rows(rows, label_names)
        write_page(
            folder / PROGRESS_HTML,
            TEMPLATE,
            title=f"Training of {'/'.join(folder.resolve().parts[-2:])}",
            is_running=not is_last,
            every_s=round(DRAWN_EVERY_S),
            written_s=time.time(),
            written=time.strftime("%Y-%m-%d %H:%M:%S"),
            headline=_headline(rows),
            minor=_minor(rows, left_s if not is_last else None),
            events=_events(rows),
            curves_png=png,
        )
        with whole_file(folder / PROGRESS_PNG) as partial:  # last, because its age says when to draw again
            partial.write_bytes(png)
    except Exception as error:  # disks and plotting libraries fail in too many ways to list
        _say_once(f"note: {folder / PROGRESS_PNG} cannot be drawn: {error or type(error).__name__}")


def _is_due(path: Path) -> bool:
    try:
        age_s = time.time() - path.stat().st_mtime
    except OSError:
        return True
    return not 0 <= age_s < DRAWN_EVERY_S  # a clock that was set back must not stop the drawing


@cache
def _say_once(text: str) -> None:
    print(text)


def draw_rows(rows: Sequence[Mapping], label_names: Sequence[str]) -> bytes:
    """PNG with a panel each for loss, patch Dice, whole-case Dice if there is one, learning rate, and time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels: list[Callable[[Axes, Sequence[Mapping], Sequence[str]], None]] = [_loss, _patch_dice]
    if any(row.get("whole_case_dice") is not None for row in rows):
        panels.append(_whole_case_dice)
    panels += [_rate, _time]
    columns = 2 if len(panels) == 4 else 3
    with rc_context({"text.parse_math": False}):  # a label may be called "$x_1$"
        figure = Figure(figsize=(4.6 * columns, 6.4), dpi=80)
        # Fixed margins: working them out takes longer than all the drawing.
        figure.subplots_adjust(left=0.05, right=0.985, bottom=0.13, top=0.95, wspace=0.2, hspace=0.42)
        axes = figure.subplots(2, columns).ravel()
        for ax, panel in zip(axes, panels):
            panel(ax, rows, label_names)
            for row in rows:
                for key in MARKS.keys() & row.keys():
                    ax.axvline(row["epoch"] + 1, color=MARKS[key], lw=1, ls=":")
            ax.set(xlabel="Epoch", xlim=(rows[0]["epoch"] + 0.5, rows[-1]["epoch"] + 1.5))
            plain_axes(ax)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        return _with_mark_names(figure, rows)


def _with_mark_names(figure: Figure, rows: Sequence[Mapping]) -> bytes:
    from matplotlib.lines import Line2D

    seen = [key for key in MARKS if any(key in row for row in rows)]
    if seen:
        handles = [Line2D([], [], color=MARKS[key], lw=1, ls=":") for key in seen]
        figure.legend(handles, seen, loc="lower center", ncols=len(seen), fontsize=8, frameon=False)
    return png_of(figure)


def _points(rows: Sequence[Mapping], key: str, index: int | None = None) -> tuple[list[int], list[float]]:
    """Epochs, counted from 1, and finite values of a key (of one entry, where it is a list)."""
    with_key = [(row["epoch"] + 1, row[key]) for row in rows if row.get(key) is not None]
    found = [(epoch, value if index is None else value[index]) for epoch, value in with_key]
    found = [(epoch, value) for epoch, value in found if value is not None and math.isfinite(value)]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _line(
    ax: Axes,
    rows: Sequence[Mapping],
    key: str,
    index: int | None = None,
    *,
    color: str | tuple[float, float, float],
    label: str | None = None,
    width: float = 1.4,
    alpha: float | None = None,
) -> None:
    epochs, values = _points(rows, key, index)
    if epochs:
        marker = "." if len(epochs) < 40 else ""
        ax.plot(epochs, values, marker=marker, lw=width, color=color, label=label, alpha=alpha)


def _loss(ax: Axes, rows: Sequence[Mapping], label_names: Sequence[str]) -> None:
    _line(ax, rows, "train_loss", label="training", color=PALETTE[1])
    _line(ax, rows, "val_loss", label="validation", color=PALETTE[0])
    ax.set_title("Loss")
    ax.legend(frameon=False, fontsize=8, loc="upper right")


def _patch_dice(ax: Axes, rows: Sequence[Mapping], label_names: Sequence[str]) -> None:
    _dice(ax, rows, "val_dice", label_names, "Dice of validation patches")


def _whole_case_dice(ax: Axes, rows: Sequence[Mapping], label_names: Sequence[str]) -> None:
    _dice(ax, rows, "whole_case_dice", label_names, "Dice of whole validation cases")


def _dice(ax: Axes, rows: Sequence[Mapping], key: str, label_names: Sequence[str], title: str) -> None:
    if len(label_names) > 1:
        for index, name in enumerate(label_names):
            # A leading space, because matplotlib before 3.10 leaves out entries that begin with an underscore.
            label = f" {shortened(name, 20)}" if index < LEGEND_ENTRIES else None
            _line(ax, rows, f"{key}_per_label", index, label=label, color=label_color(index + 1), width=0.9, alpha=0.8)
    name = " mean" if len(label_names) > 1 else f" {shortened(label_names[0])}"
    _line(ax, rows, key, label=name, color=INK, width=1.8)
    ax.set_ylim(-0.02, 1.02)
    more = len(label_names) - LEGEND_ENTRIES
    ax.legend(
        frameon=False, fontsize=7, loc="lower right", ncols=2, title=f"and {more} labels more" if more > 0 else None
    )
    ax.set_title(title)


def _rate(ax: Axes, rows: Sequence[Mapping], label_names: Sequence[str]) -> None:
    _line(ax, rows, "learning_rate", color=PALETTE[3])
    ax.set_title("Learning rate")
    ax.set_ylim(bottom=0)


def _time(ax: Axes, rows: Sequence[Mapping], label_names: Sequence[str]) -> None:
    """Seconds of each epoch, and of these the part in which the device waited for data or augmented them."""
    _line(ax, rows, "epoch_s", color=SOFT_INK, label="training")
    for key, name, color in (
        ("stalled_share", "waiting for data", PALETTE[0]),
        ("augment_share", "augmentation", PALETTE[2]),
    ):
        parts = [{"epoch": row["epoch"], "part": row[key] * row["epoch_s"]} for row in rows if row.get(key) is not None]
        _line(ax, parts, "part", color=color, label=name)
    ax.set_title("Seconds per epoch")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=8, loc="center right")


def _headline(rows: Sequence[Mapping]) -> tuple[str, str]:
    """The score that counts, and what it is."""
    whole = [row for row in rows if row.get("whole_case_dice") is not None]
    if whole:
        return f"{whole[-1]['whole_case_dice']:.3f}", f"mean Dice of whole cases, epoch {whole[-1]['epoch'] + 1}"
    return f"{rows[-1]['val_dice']:.3f}", "mean Dice of validation patches"


def _minor(rows: Sequence[Mapping], left_s: float | None) -> list[tuple[str, str]]:
    last = rows[-1]
    waited = sum(row["stalled_share"] * row["epoch_s"] for row in rows) / sum(row["epoch_s"] for row in rows)
    figures = [
        (str(last["epoch"] + 1), "epochs done"),
        (clock(last["elapsed_s"]), "elapsed"),
        (f"{statistics.median(row['epoch_s'] for row in rows):.1f} s", "median of an epoch"),
        (f"{waited:.1%}", "of it waiting for data"),
    ]
    if left_s is not None:
        figures.insert(1, (clock(left_s), "left"))
    if last.get("gpu_memory_gb") is not None:
        figures.append((f"{last['gpu_memory_gb']:.1f} GB", "GPU memory"))
    return figures


def _events(rows: Sequence[Mapping]) -> list[tuple[int, str, str]]:
    """Epoch, kind and sentence of everything that MARKS names."""
    events = []
    for row in rows:
        events += [(row["epoch"] + 1, key, str(row[key])) for key in MARKS if key in row]
    return events
