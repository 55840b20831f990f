"""A queue for people: ``queue.csv`` with all items, ``queue.html`` with the first ones, and lines for the console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from segfw.base.figures import write_page
from segfw.base.files import write_text
from segfw.base.printing import csv_text, printable
from segfw.base.tables import Column, Table
from segfw.base.words import count
from segfw.worklist.queue_file import QueueItem, ReviewQueue
from segfw.worklist.second_reading import SecondReading

TABLE_FILE = "queue.csv"
PAGE_FILE = "queue.html"
TEMPLATE = Path(__file__).with_name("queue.html.jinja")
MOST_ROWS = 2000  # of the page; the table has all
SHOWN = 8  # on the console
HEADER = (
    "place",
    "case",
    "structure",
    "region",
    "role",
    "predicted_dice",
    "lower_bound",
    "verdict",
    "gain",
    "minutes",
    "minutes_so_far",
    "fits",
    "reason",
)


def write_outputs(folder: Path, queue: ReviewQueue, second: SecondReading | None) -> None:
    """Writes the table, the page and, last, what the review page reads."""
    write_text(folder / TABLE_FILE, csv_text(HEADER, _rows(queue)))
    write_queue_page(folder / PAGE_FILE, folder, queue, second)
    queue.write(folder)


def _rows(queue: ReviewQueue) -> Iterator[tuple[object, ...]]:
    so_far = 0.0
    for place in range(len(queue)):
        item = queue.item(place)
        so_far += item.minutes or 0.0
        yield (
            place + 1,
            printable(item.case),
            item.structure,
            "" if item.region is None else item.region,
            item.role,
            item.predicted_dice,
            item.lower_bound,
            item.verdict,
            item.gain,
            item.minutes,
            round(so_far, 2),
            "yes" if place < queue.within_minutes else "no",
            item.reason,
        )


def write_queue_page(path: Path, folder: Path, queue: ReviewQueue, second: SecondReading | None) -> None:
    """Writes the page, atomically."""
    shown = queue.items(0, MOST_ROWS)
    write_page(
        path,
        TEMPLATE,
        title=f"Review queue of {folder.resolve().name}",
        queue=queue,
        items=(f"{len(queue):,}", "item" if len(queue) == 1 else "items"),
        cases=count(len(set(queue.columns.case)), "case").split(" ", 1),
        hours=duration(queue.total_minutes),
        table=item_table(queue, shown) if shown else None,
        shown=len(shown),
        second=second,
        model=minutes_text(queue),
    )


def item_table(queue: ReviewQueue, shown: list[QueueItem]) -> Table:
    """A row for each item."""
    so_far = []
    total = 0.0
    for item in shown:
        total += item.minutes or 0.0
        so_far.append(total)
    columns = [
        Column(title="Case", values=[printable(item.case) for item in shown]),
        Column(title="Structure", values=[item.structure for item in shown], choose="All structures"),
        Column(title="Place", values=["whole" if item.region is None else f"region {item.region}" for item in shown]),
    ]
    if queue.ranked_by == "quality":
        columns += [
            Column(title="Predicted Dice", values=[item.predicted_dice for item in shown], digits=2),
            Column(title="At least", values=[item.lower_bound for item in shown], digits=2, hint="lower bound"),
            Column(title="Verdict", values=[item.verdict or "" for item in shown], choose="All verdicts"),
        ]
    columns += [
        _gain_column(queue, shown),
        Column(title="Minutes", values=[item.minutes for item in shown], digits=1),
        Column(title="Minutes so far", values=so_far, digits=0),
        Column(title="Why", values=[item.reason for item in shown]),
    ]
    return Table(
        name="Items in their order",
        columns=columns,
        search="Find a case or a structure",
        elsewhere=f"{TABLE_FILE} has all rows.",
        sticky=2,
    )


def _gain_column(queue: ReviewQueue, shown: list[QueueItem]) -> Column:
    """Doubt is no Dice."""
    values = [item.gain for item in shown]
    if queue.ranked_by == "doubt":
        return Column(title="Doubt", values=values, digits=3, hint="mean entropy of the whole case")
    return Column(title="Gain", values=values, digits=3, hint="Dice that correcting it adds")


def minutes_text(queue: ReviewQueue) -> str:
    """By what minutes are told."""
    measured = queue.minutes_model.measured
    if not measured:
        return "Minutes are assumed: half of one to open a case, 3 s for each slice and 15 s for each that is wrong."
    return f"Minutes are learned from {count(measured, 'item')} that people worked on here."


def duration(minutes: float) -> str:
    """'35 min', '2.4 h', '1,204 h'."""
    hours = minutes / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"


def queue_lines(queue: ReviewQueue) -> list[str]:
    """What is said on the console."""
    cases = len(set(queue.columns.case))
    goal = "these masks" if queue.goal == "pool" else "the model"
    lines = [
        f"{count(len(queue), 'item')} of {count(cases, 'case')} for {goal}, {duration(queue.total_minutes)} in all; "
        f"{count(queue.closed_items, 'structure')} done, {duration(queue.spent_minutes)} spent"
    ]
    if queue.minutes is not None:
        lines.append(f"{count(queue.within_minutes, 'item')} fit into what is left of {queue.minutes:g} minutes")
    if queue.ranked_by == "doubt":
        lines.append("note: ordered by the doubt of whole cases alone; segfw calibrate tells structures apart")
    if queue.left_out:
        names = ", ".join(printable(case) for case in queue.left_out[:SHOWN])
        more = ", ..." if len(queue.left_out) > SHOWN else ""
        lines.append(f"warning: nothing is told of {count(len(queue.left_out), 'case')}: {names}{more}")
    for item in queue.items(0, SHOWN):
        where = "" if item.region is None else f", region {item.region}"
        told = ""
        if item.gain is not None:  # of what is read for an audit nothing is told
            told = f", may gain {item.gain:.2f} Dice" if queue.ranked_by == "quality" else f", doubt {item.gain:.3f}"
        first = item.reason.split("; ")[0]  # the table has all
        why = f"; {first}" if first else ""
        lines.append(f"{printable(item.case)}: {item.structure}{where}: {item.minutes:.1f} min{told}{why}")
    if len(queue) > SHOWN:
        lines.append(f"and {len(queue) - SHOWN} more in {TABLE_FILE}")
    lines.append(queue.stop.text)
    return lines
