"""The items of a folder in the order in which they are to be worked on, held in memory; ids are looked up here."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

from segfw.base.file_names import QUALITY_TABLE_FILE
from segfw.base.printing import printable
from segfw.reviewing.case_history import CaseStanding

HIDDEN_ITEM: Mapping[str, Any] = {
    "predicted_dice": None,
    "lower_bound": None,
    "verdict": None,
    "reason": "",
    "gain": None,
    "region": None,
}


@dataclass(frozen=True, slots=True)
class QueueItem:
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


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which items are asked for; '' is all."""

    case: str = ""
    structure: str = ""
    state: str = ""
    verdict: str = ""
    text: str = ""

    def takes(self, item: QueueItem, standing: CaseStanding, *, is_hidden: bool) -> bool:
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


def items_of_folder(folder: Path, cases: Iterable[str], structures: Sequence[str]) -> list[QueueItem]:
    """All structures of all cases: those of quality.csv in its order, the least trusted case first, then the rest."""
    judged = _judged(folder / QUALITY_TABLE_FILE)
    known = {printable(case): case for case in cases}
    items = []
    seen = set()
    for row in judged:
        case = known.get(row["case"])
        if case is None or row["structure"] not in structures:
            continue
        seen.add((case, row["structure"]))
        items.append(
            QueueItem(
                case=case,
                structure=intern(row["structure"]),
                predicted_dice=_number(row["predicted_dice"]),
                lower_bound=_number(row["lower_bound"]),
                verdict=intern(row["verdict"]) or None,
                reason=intern(row["reasons"]),
            )
        )
    for case in known.values():
        items += [QueueItem(case, name) for name in structures if (case, name) not in seen]
    return items


def _judged(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    columns = ("case", "structure", "predicted_dice", "lower_bound", "verdict", "reasons")
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        if not set(columns) <= set(reader.fieldnames or ()):
            return []
        return [{name: _plain(row[name] or "") for name in columns} for row in reader]


def _plain(cell: str) -> str:
    """Without the quote that keeps spreadsheets from taking a text for a formula."""
    return cell[1:] if cell[:2] in ("'=", "'+", "'-", "'@") else cell


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def item_row(item: QueueItem, standing: CaseStanding, *, is_hidden: bool) -> dict[str, Any]:
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
    }
    return {**row, **HIDDEN_ITEM} if is_hidden else row
