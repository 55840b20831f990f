"""The items of a folder in the order in which they are to be worked on, held in memory; ids are looked up here."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

from segfw.base.file_names import QUALITY_TABLE_FILE
from segfw.base.printing import printable
from segfw.reviewing.case_history import CaseStanding
from segfw.worklist.queue_file import ROLES, ReviewQueue, queue_file, read_queue
from segfw.worklist.stopping_rule import StopFact

HIDDEN_ITEM: Mapping[str, Any] = {
    "predicted_dice": None,
    "lower_bound": None,
    "verdict": None,
    "reason": "",
    "gain": None,
    "region": None,
}


@dataclass(frozen=True, slots=True)
class IndexedItem:
    """A structure of a case, or a suspected region of it."""

    case: str
    structure: str
    region: int | None = None
    predicted_dice: float | None = None
    lower_bound: float | None = None
    verdict: str | None = None
    reason: str = ""
    minutes: float | None = None
    gain: float | None = None
    is_audit: bool = False
    is_within: bool = True  # the minutes that may be spent


@dataclass(frozen=True, kw_only=True)
class ReviewIndex:
    """All items in their order. ``audit_cases`` are read blind; ``stop`` says in words whether it is time to stop,
    ``stop_facts`` in numbers."""

    items: list[IndexedItem]
    is_blind: bool = False
    audit_cases: frozenset[str] = frozenset()
    stop: str = ""
    stop_facts: tuple[StopFact, ...] = ()
    is_over: bool = False


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which items are asked for; '' is all."""

    case: str = ""
    structure: str = ""
    state: str = ""
    verdict: str = ""
    text: str = ""

    def takes(self, item: IndexedItem, standing: CaseStanding, *, is_hidden: bool) -> bool:
        """Whether an item is wanted. What is hidden cannot be asked for."""
        if self.case and item.case != self.case:
            return False
        if self.structure and item.structure != self.structure:
            return False
        if self.state and standing.state != self.state:
            return False
        if self.verdict and (is_hidden or item.verdict != self.verdict):
            return False
        text = self.text.casefold()
        return not text or text in item.case.casefold() or text in item.structure.casefold()


def index_of(folder: Path, cases: Sequence[str], structures: Sequence[str]) -> ReviewIndex:
    """The items of a folder: in the order of ``segfw queue``, and after them, or without one, those of quality.csv, the
    least trusted first, and all others by name. UserError if the file of the queue is damaged."""
    queue = read_queue(folder)
    known = frozenset(cases)
    items = [] if queue is None else _queued(queue, known, frozenset(structures))
    seen = {(item.case, item.structure) for item in items}
    items += [item for item in _by_quality(folder, cases, structures) if (item.case, item.structure) not in seen]
    if queue is None:
        return ReviewIndex(items=items)
    return ReviewIndex(
        items=items,
        is_blind=queue.is_blind,
        audit_cases=frozenset(item.case for item in items if item.is_audit),
        stop=queue.stop.text,
        stop_facts=queue.stop.facts,
        is_over=queue.stop.is_reached,
    )


def changes_of(folder: Path) -> tuple[int, ...]:
    """A number of each file that the order is read from, which is another one when the file is."""
    paths = (queue_file(folder), folder / QUALITY_TABLE_FILE)
    return tuple(path.stat().st_mtime_ns if path.is_file() else 0 for path in paths)


def _queued(queue: ReviewQueue, cases: Collection[str], structures: Collection[str]) -> list[IndexedItem]:
    columns = queue.columns
    names = [intern(name) for name in queue.structures]
    items = []
    for place in range(len(queue)):
        case = queue.cases[columns.case[place]]
        structure = names[columns.structure[place]]
        if case not in cases or structure not in structures:  # of a folder that was changed since
            continue
        is_audit = ROLES[columns.role[place]] == "audit"
        region = columns.region[place]
        items.append(
            IndexedItem(
                case=case,
                structure=structure,
                region=None if region < 0 else region,
                predicted_dice=columns.predicted_dice[place],
                lower_bound=columns.lower_bound[place],
                verdict=queue.verdicts[columns.verdict[place]] or None,
                reason="" if is_audit else queue.reasons[columns.reason[place]],
                minutes=columns.minutes[place],
                gain=columns.gain[place],
                is_audit=is_audit,
                is_within=place < queue.within_minutes,
            )
        )
    return items


def _by_quality(folder: Path, cases: Iterable[str], structures: Sequence[str]) -> list[IndexedItem]:
    """All structures of all cases: those of quality.csv in its order, then the rest."""
    judged = _judged(folder / QUALITY_TABLE_FILE)
    known = {printable(case): case for case in cases}
    wanted = frozenset(structures)
    items = []
    seen = set()
    for case_name, structure, predicted, lower, verdict, reasons in judged:
        case = known.get(case_name)
        if case is None or structure not in wanted:
            continue
        seen.add((case, structure))
        items.append(
            IndexedItem(
                case=case,
                structure=intern(structure),
                predicted_dice=_number(predicted),
                lower_bound=_number(lower),
                verdict=intern(verdict) or None,
                reason=intern(reasons),
            )
        )
    for case in known.values():
        items += [IndexedItem(case, name) for name in structures if (case, name) not in seen]
    return items


def _judged(path: Path) -> Iterator[tuple[str, ...]]:
    """Case, structure, predicted Dice, its bound, verdict and reasons of each row; none of a table of another kind."""
    if not path.is_file():
        return
    columns = ("case", "structure", "predicted_dice", "lower_bound", "verdict", "reasons")
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file)
        head = next(rows, [])
        if not set(columns) <= set(head):
            return
        places = [head.index(name) for name in columns]
        for row in rows:
            if len(row) == len(head):
                yield tuple(_plain(row[place]) for place in places)


def _plain(cell: str) -> str:
    """Without the quote that keeps spreadsheets from taking a text for a formula."""
    return cell[1:] if cell[:2] in ("'=", "'+", "'-", "'@") else cell


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def item_row(item: IndexedItem, standing: CaseStanding, *, is_hidden: bool) -> dict[str, Any]:
    """An item as the page gets it."""
    row: dict[str, Any] = {
        "key": f"{item.case}/{item.structure}/{'' if item.region is None else item.region}",
        "case": item.case,
        "structure": item.structure,
        "region": item.region,
        "predicted_dice": item.predicted_dice,
        "lower_bound": item.lower_bound,
        "verdict": item.verdict,
        "reason": item.reason,
        "minutes": item.minutes,
        "gain": item.gain,
        "state": standing.state,
        "holder": standing.holder,
        "decision": standing.decisions.get(item.structure),
        "within": item.is_within,
    }
    return {**row, **HIDDEN_ITEM} if is_hidden else row
