"""The measures of a cohort: all cases, how far they are, and what each structure is like over them."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np

from segfw.base.records import Record
from segfw.base.robust import find_outliers
from segfw.base.words import count, listed
from segfw.dataset.labels import LabelSet
from segfw.dataset.look_up import NameInTable, known_as
from segfw.measurements.structure_measures import NOT_ANNOTATED, STATUSES, CaseMeasures, Status, StructureMeasures
from segfw.measurements.time_points import TimePoints

LEAST_FACTOR = 1.2  # by which an outlier's size differs, at least
QUARTILES = (25, 75)


class OutlyingSize(Record):
    """A structure that is far larger or smaller than in the other cases, and the range of those.

    Sizes are in the unit of the cohort: ml, or mm2 or pixels of planes.
    """

    case: str
    structure: str
    size: float
    usual: tuple[float, float]


class StructureSummary(Record):
    """A structure over all cases: how often it has which status, and the sizes where it is whole."""

    structure: str
    statuses: dict[Status, int]
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    smallest: float | None = None
    largest: float | None = None


class Measures(Record):
    """What ``measure`` found. Summaries are of structures that are whole; the others are counted.

    ``failed`` says why by case; ``missing`` are cases that other parts have yet to measure. ``unit`` is that of sizes.
    """

    kind: Literal["measures"] = "measures"
    version: str
    masks: str
    images: str = ""
    labels: LabelSet
    channels: tuple[str, ...]
    only: tuple[str, ...] | None = None
    per_component: bool = False
    label_names: str = ""  # as it was given
    by_patient: str = ""  # the same
    model: str = ""  # whose intervals of volumes these are
    radiomics: bool = False  # whether features were told too; False also in files of before it was kept
    stability: int | None = None  # of how many changed versions
    unit: str
    notes: tuple[str, ...] = ()
    names: dict[str, NameInTable] = {}  # of structures that the table of anatomy knows
    failed: dict[str, str] = {}
    missing: tuple[str, ...] = ()
    statuses: dict[Status, int]
    summary: tuple[StructureSummary, ...]
    outliers: tuple[OutlyingSize, ...] = ()
    time_points: tuple[TimePoints, ...] = ()
    cases: dict[str, CaseMeasures]

    @property
    def rows(self) -> list[StructureMeasures]:
        """Every structure of every case, those of a case that failed as well."""
        names = [name for name in self.labels.structures if self.only is None or name in self.only]
        found: list[StructureMeasures] = []
        for case, measures in self.cases.items():
            found += measures.structures
            if measures.problem:
                found += [
                    StructureMeasures(case=case, structure=name, value="", status="failed", reason=measures.problem)
                    for name in names
                ]
        return found

    def text(self) -> str:
        """A line for each structure, and how many are what."""
        lines = [f"{count(len(self.cases), 'case')}, sizes in {self.unit} of structures that are whole:"]
        width = max((len(each.structure) for each in self.summary), default=0)
        for each in self.summary:
            others = ", ".join(f"{number} {status}" for status, number in each.statuses.items() if number)
            lines.append(f"  {each.structure:{width}}  {_spread_text(each)}  ({others})")
        lines += [f"note: {note}" for note in self.notes]
        for outlier in self.outliers:
            low, high = (f"{bound:.4g}" for bound in outlier.usual)
            what = f"{outlier.size:.4g} {self.unit}, in the others {low} to {high}"
            lines.append(f"outlier: {outlier.case}: {outlier.structure} has {what}")
        if self.missing:
            lines.append(f"{count(len(self.missing), 'case')} not measured yet: other parts add theirs")
        return "\n".join(lines)


def names_in_table(labels: LabelSet) -> dict[str, NameInTable]:
    """What the table of anatomy, or the data set itself, knows of each structure."""
    fields = NameInTable.model_fields
    found = {
        name: NameInTable(**{field: getattr(known, field) for field in fields})
        for name, known in known_as(labels).items()
    }
    return {name: each for name, each in found.items() if each != NameInTable()}


def _spread_text(summary: StructureSummary) -> str:
    if summary.median is None:
        return "none whole"
    if summary.quartiles is None:
        return f"median {summary.median:.4g}"
    low, high = summary.quartiles
    return f"median {summary.median:.4g}, quartiles {low:.4g} to {high:.4g}"


def main_unit(cases: dict[str, CaseMeasures]) -> str:
    """What most cases count sizes in."""
    found = Counter(each.unit for each in cases.values() if each.unit).most_common(1)
    return found[0][0] if found else "ml"


def unit_notes(rows: list[StructureMeasures], unit: str) -> list[str]:
    """A note where cases have sizes in another unit than the others, such as single slices among volumes."""
    others = {row.case: row.unit for row in rows if row.unit not in (None, unit)}
    if not others:
        return []
    units = listed(sorted({str(each) for each in others.values()}))
    return [
        f"{count(len(others), 'case')} with sizes in {units} are in no median, outlier or plot, which are of {unit}"
    ]


def summaries(rows: list[StructureMeasures], unit: str) -> tuple[StructureSummary, ...]:
    """Every structure, in the order in which they come, with the sizes that are in this unit."""
    by_structure: dict[str, list[StructureMeasures]] = {}
    for row in rows:
        by_structure.setdefault(row.structure, []).append(row)
    return tuple(_summary(name, found, unit) for name, found in by_structure.items())


def _summary(name: str, rows: list[StructureMeasures], unit: str) -> StructureSummary:
    statuses = status_counts(rows)
    whole = [row.size_in(unit) for row in rows if row.status == "whole"]
    sizes = [size for size in whole if size is not None]
    if not sizes:
        return StructureSummary(structure=name, statuses=statuses)
    low, high = (float(each) for each in np.percentile(sizes, QUARTILES))
    return StructureSummary(
        structure=name,
        statuses=statuses,
        median=float(np.median(sizes)),
        quartiles=(low, high) if len(sizes) > 1 else None,
        smallest=min(sizes),
        largest=max(sizes),
    )


def status_counts(rows: list[StructureMeasures]) -> dict[Status, int]:
    """How many rows have each status."""
    counts = {status: sum(row.status == status for row in rows) for status in (*STATUSES, NOT_ANNOTATED)}
    return {status: number for status, number in counts.items() if number or status != NOT_ANNOTATED}


def outlying_sizes(rows: list[StructureMeasures], unit: str) -> tuple[OutlyingSize, ...]:
    """Sizes in this unit of whole structures that are exceptions among at least 8 cases, by their logarithms."""
    found = []
    for name in dict.fromkeys(row.structure for row in rows):
        whole = [row for row in rows if row.structure == name and row.status == "whole"]
        sized = [(row.case, row.size) for row in whole if row.unit == unit]
        sizes = np.array([size for _, size in sized], dtype=np.float64)
        for outlier in find_outliers(np.log(sizes), least=float(np.log(LEAST_FACTOR))):
            low, high = (float(np.exp(bound)) for bound in outlier.usual)
            case = sized[outlier.index][0]
            found.append(OutlyingSize(case=case, structure=name, size=float(sizes[outlier.index]), usual=(low, high)))
    return tuple(found)
