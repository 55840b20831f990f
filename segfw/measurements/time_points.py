"""Two time points of one patient: how much a structure has grown, or what a chamber of the heart throws out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from segfw.base.records import Record
from segfw.measurements.structure_measures import StructureMeasures


class TimePoints(Record):
    """A structure at two time points of a patient, ``first`` and ``second`` by the names of the cases.

    ``change`` is second less first, ``ratio`` second over first. ``fall`` is (larger - smaller) / larger: of a chamber
    of the heart between its two phases, whichever comes first, it is the ejection fraction. None where one of the two
    has no size. ``status`` is 'whole' if both are, else what the one is that is not.
    """

    patient: str
    structure: str
    first: str
    second: str
    status: str
    first_size: float | None
    second_size: float | None
    change: float | None = None
    ratio: float | None = None
    fall: float | None = None


def time_points(rows: Sequence[StructureMeasures], patient_of: Mapping[str, str]) -> tuple[TimePoints, ...]:
    """Each later time point of a patient against the first one, structure by structure."""
    by_patient: dict[str, dict[str, dict[str, StructureMeasures]]] = {}
    for row in rows:
        by_patient.setdefault(patient_of[row.case], {}).setdefault(row.case, {})[row.structure] = row
    found = []
    for patient, by_case in sorted(by_patient.items()):
        first, *later = sorted(by_case, key=_in_order)
        for second in later:
            found += [
                _compared(patient, row, by_case[second][name])
                for name, row in by_case[first].items()
                if name in by_case[second]
            ]
    return tuple(found)


def _in_order(case: str) -> list[tuple[int, str]]:
    """Numbers in a name by their size, so that frame 9 comes before frame 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", case)]


def _compared(patient: str, first: StructureMeasures, second: StructureMeasures) -> TimePoints:
    odd = [row.status for row in (first, second) if row.status != "whole"]
    before = first.size
    after = second.size
    found = TimePoints(
        patient=patient,
        structure=first.structure,
        first=first.case,
        second=second.case,
        status=odd[0] if odd else "whole",
        first_size=before,
        second_size=after,
    )
    if before is None or after is None:
        return found
    fall = abs(after - before) / max(after, before)
    return found.model_copy(update={"change": after - before, "ratio": after / before, "fall": fall})
