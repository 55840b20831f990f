"""The curves of a run, a drawing each: loss, Dice, learning rate and time against the epoch, with what its lines mean.

Drawings are SVG without any text of the user's, in the colour of the page's text; what lines are called is for the page
to say beside them, where it hides no line. matplotlib is imported where it is used: training must stay light.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segfw.base.figures import PALETTE, label_color
from segfw.base.words import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping]

MOST_LABELS = 10  # that are drawn; more lines could not be told apart, and the page's table has all of them
INK = "currentColor"  # of the page's text, on white and on black
DRAWN_INK = "#010203"  # in its place while matplotlib draws, which knows no such colour
# Lines of neighbouring labels differ in their dashes too, for whoever cannot tell the colours; in line widths.
DASHES = ("", "4 1.5", "1 1.2", "5 1.5 1 1.5")
# Keys of a row whose value is a sentence of what happened then -> what the line that marks the epoch is called.
MARKS = ("rescued", "extended", "cooling", "patches")
MARK_DASHES = "1 2"
SMALL = 0.9
USUAL = 1.5
BOLD = 2.1


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a drawing: epochs counted from 1, values, and how it looks."""

    name: str  # in the key of the drawing; none where the title says it
    epochs: Sequence[int]
    values: Sequence[float]
    color: str = INK
    dashes: str = ""  # as SVG's stroke-dasharray, in line widths
    width: float = USUAL


@dataclass(frozen=True, kw_only=True)
class Curves:
    """A drawing: its title with the unit, its lines, and the range of its values as far as that is given."""

    title: str
    lines: Sequence[Line]
    bottom: float | None = None
    top: float | None = None
    note: str = ""  # of what is not drawn
    marks: Mapping[str, Sequence[int]] = field(default_factory=dict)  # what happened -> the epochs that it did in

    @property
    def named(self) -> list[Line]:
        """The lines that have to be explained."""
        return [line for line in self.lines if line.name]

    def svg(self, last_epoch: int) -> str:
        """The drawing, from the first to the last epoch of the run."""
        return _drawn(self, last_epoch)


def curves_of(rows: Rows, label_names: Sequence[str]) -> list[Curves]:
    """All that can be drawn of the rows of metrics.jsonl."""
    drawings = [
        _dice(rows, "val_dice", label_names, "Dice of validation patches"),
        _dice(rows, "whole_case_dice", label_names, "Dice of whole validation cases"),
        Curves(title="Share explained of hidden voxels", lines=_lines(rows, "val_explained", "", width=BOLD), top=1.02),
        _loss(rows),
        Curves(title="Learning rate", lines=_lines(rows, "learning_rate", "", color=PALETTE[3]), bottom=0),
        _time(rows),
    ]
    return [drawing for drawing in drawings if drawing.lines]


def marks_of(rows: Rows) -> dict[str, list[int]]:
    """What befell the run -> the epochs that it did in."""
    found = {key: [row["epoch"] + 1 for row in rows if key in row] for key in MARKS}
    return {key: epochs for key, epochs in found.items() if epochs}


def _lines(rows: Rows, key: str, name: str, index: int | None = None, **look: object) -> list[Line]:
    """The line of a key's finite values (of one entry, where it is a list); none without any."""
    epochs = []
    values = []
    for row in rows:
        value = row.get(key)
        if value is not None and index is not None:
            value = value[index]
        if value is not None and math.isfinite(value):
            epochs.append(row["epoch"] + 1)
            values.append(value)
    return [Line(name=name, epochs=epochs, values=values, **look)] if epochs else []  # type: ignore[arg-type]


def _loss(rows: Rows) -> Curves:
    training = _lines(rows, "train_loss", "training", color=PALETTE[1])
    validation = _lines(rows, "val_loss", "validation", color=PALETTE[0], dashes=DASHES[1])
    return Curves(title="Loss", lines=training + validation, marks=marks_of(rows))


def _dice(rows: Rows, key: str, label_names: Sequence[str], title: str) -> Curves:
    lines = []
    if len(label_names) > 1:
        for index, name in enumerate(label_names[:MOST_LABELS]):
            lines += _lines(rows, f"{key}_per_label", name, index, width=SMALL, **label_look(index))
    name = label_names[0] if len(label_names) == 1 else "mean"
    mean = _lines(rows, key, name, width=BOLD)
    more = len(label_names) - MOST_LABELS
    note = f"{count(more, 'label')} more in the table" if more > 0 else ""
    return Curves(title=title, lines=mean and lines + mean, bottom=-0.02, top=1.02, note=note, marks=marks_of(rows))


def label_look(index: int) -> dict[str, str]:
    """Colour and dashes of the line of a label, counted from 0."""
    from matplotlib.colors import to_hex

    return {"color": to_hex(label_color(index + 1)), "dashes": DASHES[index % len(DASHES)]}


def _time(rows: Rows) -> Curves:
    """Seconds of each epoch, and of these the part in which the device waited for data or augmented them."""
    lines = _lines(rows, "epoch_s", "training")
    for key, name, color, dashes in (
        ("stalled_share", "of it waiting for data", PALETTE[0], DASHES[1]),
        ("augment_share", "of it augmentation", PALETTE[2], DASHES[2]),
    ):
        parts = [{"epoch": row["epoch"], "part": row[key] * row["epoch_s"]} for row in rows if row.get(key) is not None]
        lines += _lines(parts, "part", name, color=color, dashes=dashes)
    return Curves(title="Seconds per epoch", lines=lines, bottom=0, marks=marks_of(rows))


def _drawn(curves: Curves, last_epoch: int) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # Text stays text, in the page's own letters, and the same curves are the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "segfw", "font.size": 9, "font.family": "sans-serif"}):
        figure = Figure(figsize=(4.6, 2.6))
        # Fixed margins: working them out takes longer than all the drawing.
        figure.subplots_adjust(left=0.12, right=0.98, bottom=0.17, top=0.97)
        ax = figure.subplots()
        for line in curves.lines:
            _draw_line(ax, line)
        for epochs in curves.marks.values():
            for epoch in epochs:
                ax.axvline(epoch, color=DRAWN_INK, lw=1, ls=(0, _numbers(MARK_DASHES)))
        ax.set_xlim(0.5, last_epoch + 0.5)
        ax.set_ylim(bottom=curves.bottom, top=curves.top)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        ax.set_xlabel("Epoch", color=DRAWN_INK)
        ax.grid(color=DRAWN_INK, alpha=0.14, lw=0.7)
        ax.set_axisbelow(True)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0, labelcolor=DRAWN_INK)
        return _svg_of(figure)


def _draw_line(ax: Axes, line: Line) -> None:
    ax.plot(
        line.epochs,
        line.values,
        marker="." if len(line.epochs) < 40 else "",
        linewidth=line.width,
        color=DRAWN_INK if line.color == INK else line.color,
        linestyle=(0, _numbers(line.dashes)) if line.dashes else "-",
    )


def _numbers(dashes: str) -> tuple[float, ...]:
    return tuple(float(part) for part in dashes.split())


def _svg_of(figure: Figure) -> str:
    """The figure as an element of a page, on no ground of its own."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :].replace(DRAWN_INK, INK)
