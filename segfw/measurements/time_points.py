"""Two time points of one patient: how much a structure has grown, or what a chamber of the heart throws out.

Which case comes first is told by the names: by words (pre before post, ed before es) and by numbers (t9 before t10).
What else a name says, such as the side or the slice, must be the same in both. Where names do not tell, nothing is
compared: of a wrong order every sign would be wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from segfw.base.records import Record
from segfw.base.words import count
from segfw.measurements.structure_measures import StructureMeasures

# What comes before everything else, and what comes after it
FIRST_WORDS = frozenset(
    {"baseline", "pre", "before", "ed", "diastole", "diastolic", "基线", "术前", "治疗前", "舒张期"}
)
LATER_WORDS = frozenset(
    {"followup", "fu", "post", "after", "es", "systole", "systolic", "随访", "术后", "治疗后", "收缩期"}
)
# Words behind which a number says when it was; two cases are ordered by it where they have the same word.
TIME_WORDS = frozenset(
    (
        *("t", "tp", "time", "timepoint", "v", "visit", "ses", "session", "scan", "mr", "ct", "exam", "study"),
        *("run", "rep", "repeat", "acq", "frame", "phase", "day", "week", "month", "year", "d", "w", "m", "y"),
    )
)
# Words behind which a number says no time, but which part of a scan it is.
PART_WORDS = frozenset(
    ("slice", "sl", "z", "echo", "channel", "ch", "lesion", "part", "region", "level", "segment", "seg")
)
UNITS_DIFFER = "units differ"
SHOWN = 3  # cases that a note lists


class TimePoints(Record):
    """A structure at two time points of a patient, ``first`` and ``second`` by the names of the cases.

    ``change`` is second less first, ``ratio`` second over first. ``fall`` is (larger - smaller) / larger: of a chamber
    of the heart between its two phases, whichever comes first, it is the ejection fraction. None where one of the two
    has no size. Sizes are in the unit of the cohort, and None of cases that have another one. ``status`` is 'whole' if
    both are, 'units differ' where nothing can be compared, else what the one is that is not whole.
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


class WhenItWas(NamedTuple):
    """What a case's name says of its time: 0 first, 1 nothing or a bare number, 2 later; and what of the rest."""

    rank: int
    words: tuple[str, ...]  # that say when: of one rank they must be the same
    numbers: tuple[int, ...]
    others: tuple[str, ...]  # what says no time


def time_points(
    rows: Sequence[StructureMeasures], patient_of: Mapping[str, str], unit: str
) -> tuple[tuple[TimePoints, ...], list[str]]:
    """Each later time point of a patient against the first one, structure by structure; and what was left out."""
    by_case: dict[str, dict[str, StructureMeasures]] = {}
    for row in rows:
        by_case.setdefault(row.case, {})[row.structure] = row
    by_patient: dict[str, list[str]] = {}
    for case in by_case:
        by_patient.setdefault(patient_of[case], []).append(case)
    found: list[TimePoints] = []
    undecided: dict[str, list[str]] = {}
    for patient, cases in sorted(by_patient.items()):
        series = series_in_time(cases)
        if len(cases) > 1 and not any(len(each) > 1 for each in series):
            undecided[patient] = sorted(cases)
        for first, *later in series:
            for second in later:
                found += [
                    _compared(patient, row, by_case[second][name], unit)
                    for name, row in by_case[first].items()
                    if name in by_case[second]
                ]
    return tuple(found), _notes(found, undecided)


def series_in_time(cases: Iterable[str]) -> list[list[str]]:
    """The cases of one patient that differ in time alone, in order of it; each by itself where names do not tell."""
    alike: dict[tuple[str, ...], list[tuple[WhenItWas, str]]] = {}
    for case in sorted(cases):
        when = when_it_was(case)
        alike.setdefault(when.others, []).append((when, case))
    series = []
    for group in alike.values():
        group.sort(key=lambda each: (each[0].rank, each[0].numbers))
        places = {(when.rank, when.numbers) for when, _ in group}
        words = {(when.rank, when.words) for when, _ in group}
        ranks = {when.rank for when, _ in group}
        is_told = len(places) == len(group) and len(words) == len(ranks)
        series += [[case for _, case in group]] if is_told else [[case] for _, case in group]
    return series


def when_it_was(case: str) -> WhenItWas:
    """Reads a name word by word: capitals, and what stands between words, make no difference."""
    text = re.sub(r"follow[-_. ]?up", "followup", case.lower())
    rank = 1
    words: list[str] = []
    numbers: list[int] = []
    others: list[str] = []
    before = ""
    end = 0
    for found in re.finditer(r"t[12]w|[^\W\d_]+|\d+", text):
        part = found[0]
        if part.isdecimal():
            # A number that stands by itself counts; one that belongs to a word does if the word says when.
            is_of_word = before.isalpha() and (found.start() == end or before in PART_WORDS)
            if is_of_word and before not in TIME_WORDS | FIRST_WORDS | LATER_WORDS:
                others.append(part)
            else:
                numbers.append(int(part))
        elif part in FIRST_WORDS:
            rank = 0
            words.append(part)
        elif part in LATER_WORDS or part in TIME_WORDS:
            rank = max(rank, 2) if rank else 0
            words.append(part)
        else:
            others.append(part)
        before = part
        end = found.end()
    return WhenItWas(rank, tuple(words), tuple(numbers), tuple(others))


def _notes(found: Sequence[TimePoints], undecided: Mapping[str, list[str]]) -> list[str]:
    if undecided:
        patient, cases = next(iter(undecided.items()))
        shown = ", ".join(cases[:SHOWN]) + (", ..." if len(cases) > SHOWN else "")
        return [
            f"of {count(len(undecided), 'patient')} the names do not tell which case was first, and they are not "
            f"compared (such as {patient}: {shown}); names tell by numbers (t1, t2) or words (pre, post)"
        ]
    if not found:
        remedy = "give --by-patient a table of cases and patients, or an expression that finds the patient"
        return [f"no patient has two time points; {remedy}"]
    differing = sum(each.status == UNITS_DIFFER for each in found)
    return [f"{count(differing, 'pair')} of time points cannot be compared: their units differ"] if differing else []


def _compared(patient: str, first: StructureMeasures, second: StructureMeasures, unit: str) -> TimePoints:
    odd = [row.status for row in (first, second) if row.status != "whole"]
    before = first.size_in(unit)
    after = second.size_in(unit)
    found = TimePoints(
        patient=patient,
        structure=first.structure,
        first=first.case,
        second=second.case,
        status=odd[0] if odd else "whole",
        first_size=before,
        second_size=after,
    )
    if first.size is None or second.size is None:
        return found
    if first.unit != second.unit:
        return found.model_copy(update={"status": UNITS_DIFFER})
    larger = max(first.size, second.size)
    shares = {"ratio": second.size / first.size, "fall": abs(second.size - first.size) / larger}
    change = None if before is None or after is None else after - before
    return found.model_copy(update={"change": change, **shares})
