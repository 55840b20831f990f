"""The record of a visit as Markdown: a table for each section, with the card's name above."""

from __future__ import annotations

LONGEST = 300  # characters of a cell
HIDDEN = ("trace", "log")


def markdown(record: dict, *, level: int = 2) -> str:
    """All sections as tables of two columns, in the order of their value, under a heading of ``level``."""
    mark = "#" * level
    parts = [
        f"{mark} {record['device']}, torch {record['torch']}",
        f"`python -m bench gpu`, {record.get('seconds', 0):.0f} s",
    ]
    for name, section in record["sections"].items():
        lines = ["| " + " | ".join(row) + " |" for row in rows(section)]
        parts.append("\n".join([f"{mark}# {name}", "", "| | |", "| --- | --- |", *lines]))
    return "\n\n".join(parts) + "\n"


def rows(section: dict) -> list[tuple[str, str]]:
    """One row for each figure of a section; lists of lists get a row for each of their lists."""
    found = []
    for name, value in section.items():
        if name in HIDDEN:
            continue
        if isinstance(value, list) and value and isinstance(value[0], list):
            found += [(f"{name} {number}", cell(part)) for number, part in enumerate(value, 1)]
        else:
            found.append((name, cell(value)))
    return found


def cell(value: object) -> str:
    """A value in a table's cell: a dict as its names and values, a list as its values."""
    if isinstance(value, dict):
        text = ", ".join(f"{name} {cell(part)}" for name, part in value.items() if name not in HIDDEN)
    elif isinstance(value, list | tuple):
        text = ", ".join(cell(part) for part in value)
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = str(value)
    return text.replace("|", "/").replace("\n", " ")[:LONGEST]
