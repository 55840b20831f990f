"""What was delivered, for a reader."""

from __future__ import annotations

from segfw.base.words import count
from segfw.delivery.deliver_cases import Delivery
from segfw.delivery.delivery_list import TABLE_FILE, DeliveredFile

MOST_SHOWN = 20  # lines of each kind; the table in the folder has all


def delivery_text(delivery: Delivery) -> str:
    """A line for each case, what was kept back, and which earlier copies no longer hold."""
    of_case: dict[str, list[DeliveredFile]] = {}
    for each in delivery.files:
        of_case.setdefault(each.case, []).append(each)
    lines = [_line(files) for files in of_case.values()]
    lines = _first(lines)
    if delivery.gate.text():
        lines.append(delivery.gate.text())
    if delivery.superseded:
        lines.append("earlier copies that no longer hold; call them back or replace them:")
        lines += _first([f"  {copy.text()}" for copy in delivery.superseded])
    number = count(len(of_case), "case")
    lines.append(f"{number} delivered, {count(len(delivery.files), 'file')}; {delivery.output / TABLE_FILE} lists them")
    return "\n".join(lines)


def check_text(delivery: Delivery) -> str:
    """What a check found."""
    if delivery.problems:
        return "\n".join(delivery.problems)
    return f"{delivery.output}: all {count(len(delivery.files), 'file')} are as they were delivered, and hold"


def _line(files: list[DeliveredFile]) -> str:
    first = files[0]
    formats = ", ".join(dict.fromkeys(each.format for each in files))
    if first.signed_name is None:
        return f"{first.case}: version {first.version} ({first.state}) as {formats}, stamped as a draft for research"
    return f"{first.case}: version {first.version} signed by {first.signed_name} for {first.meaning} as {formats}"


def _first(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MOST_SHOWN else [*lines[:MOST_SHOWN], f"... and {len(lines) - MOST_SHOWN} more"]
