"""What was joined: a table of sources and labels, and what is odd about them together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from segfw.base.answers import Answer
from segfw.base.records import Record, UserError
from segfw.base.words import count
from segfw.checkup.duplicates import near_duplicates
from segfw.dataset.cases import Finding
from segfw.joining.joined_sources import ReadSource

OTHER_DEFINITION = 1.5  # how many times larger a label's median volume may be in another source
HEAD = ("source", "label", "called there", "annotated in", "there in", "median ml")


class JoinedLabel(Record):
    """A label in one source. ``called`` is its name there; '' where it is none there. ``median_ml`` is of its cases."""

    source: str
    label: str
    called: str
    annotated: int
    cases: int
    median_ml: float | None


class JoinReport(Answer):
    """The joined data set: how many cases of which source, every label in every source, and findings."""

    kind: Literal["joined"] = "joined"
    path: Path
    sources: dict[str, int]
    labels: tuple[JoinedLabel, ...]
    findings: tuple[Finding, ...]

    def text(self) -> str:
        """A table, then what is odd."""
        rows: list[tuple[str, ...]] = [HEAD]
        for each in self.labels:
            median = "-" if each.median_ml is None else f"{each.median_ml:.3g}"
            rows.append((each.source, each.label, each.called or "-", str(each.annotated), str(each.cases), median))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        total = ", ".join(f"{number} of {name}" for name, number in self.sources.items())
        lines.append(f"{count(sum(self.sources.values()), 'case')}: {total}")
        return "\n".join([*lines, *(finding.full_sentence for finding in self.findings)])


def joined_labels(sources: Sequence[ReadSource], names: Mapping[tuple[str, str], str]) -> tuple[JoinedLabel, ...]:
    """Every joined label in every source, label after label."""
    rows = []
    for joined in dict.fromkeys(names.values()):
        for each in sources:
            source = each.source.name
            called = next((label for (where, label), name in names.items() if (where, name) == (source, joined)), "")
            cases = each.manifest.cases
            sizes = each.sizes_ml(called) if called else []
            rows.append(
                JoinedLabel(
                    source=source,
                    label=joined,
                    called=called,
                    annotated=sum(bool(called) and (c.annotated is None or called in c.annotated) for c in cases),
                    cases=_cases_with(each, called) if called else 0,
                    median_ml=float(np.median(sizes)) if sizes else None,
                )
            )
    return tuple(rows)


def _cases_with(source: ReadSource, label: str) -> int:
    labels = source.source.labels
    value = str(labels.values[labels.names.index(label)])
    return sum(bool(measure.label_voxels.get(value)) for measure in source.measures.values())


def join_findings(sources: Sequence[ReadSource], labels: Sequence[JoinedLabel]) -> tuple[Finding, ...]:
    """What is odd about the sources together; UserError if an image is in two of them."""
    _refuse_same_images(sources)
    return (*_other_definitions(labels), *_near_copies(sources), *_same_patients(sources))


def _other_definitions(labels: Sequence[JoinedLabel]) -> list[Finding]:
    """Labels that are much larger in one source than in another: they may be drawn by another rule."""
    found = []
    of_label: dict[str, list[JoinedLabel]] = defaultdict(list)
    for each in labels:
        if each.median_ml is not None:
            of_label[each.label].append(each)
    for label, rows in of_label.items():
        for one, other in combinations(rows, 2):
            small, large = sorted((one, other), key=lambda row: row.median_ml or 0.0)
            if (large.median_ml or 0.0) > OTHER_DEFINITION * (small.median_ml or 0.0):
                found.append(
                    Finding(
                        kind="other-definition",
                        severity="warning",
                        what=f"{label} has a median of {large.median_ml:.3g} ml in {large.source} "
                        f"({count(large.cases, 'case')}) and of {small.median_ml:.3g} ml in {small.source} "
                        f"({count(small.cases, 'case')})",
                        remedy="look whether both draw the same thing (a kidney with its pelvis or without); if not, "
                        "give one of them another name with --labels",
                    )
                )
    return found


def _refuse_same_images(sources: Sequence[ReadSource]) -> None:
    first_with: dict[bytes, tuple[str, str]] = {}
    same: list[tuple[str, str]] = []
    for each in sources:
        own = {digest: (each.source.name, f"{each.source.name}_{case}") for case, digest in each.digests.items()}
        for digest, (name, case) in own.items():
            other = first_with.setdefault(digest, (name, case))
            if digest and other[0] != name:
                same.append((other[1], case))
    if same:
        more = f" (and {count(len(same) - 1, 'other pair')})" if len(same) > 1 else ""
        raise UserError(f"{same[0][0]} and {same[0][1]} are the same image{more}; leave it out of one of the data sets")


def _near_copies(sources: Sequence[ReadSource]) -> list[Finding]:
    signatures: dict[str, np.ndarray] = {}
    patients: dict[str, str] = {}
    source_of: dict[str, str] = {}
    for each in sources:
        for case, found in each.signatures.items():
            joined = f"{each.source.name}_{case}"
            signatures[joined] = found
            patients[joined] = joined
            source_of[joined] = each.source.name
    findings = near_duplicates(signatures, patients)
    return [each for each in findings if any(source_of[other] != source_of[each.case] for other in each.others)]


def _same_patients(sources: Sequence[ReadSource]) -> list[Finding]:
    """A warning where two sources know patients of one name, who may be one person."""
    found = []
    for one, other in combinations(sources, 2):
        shared = sorted(set(one.patient_of.values()) & set(other.patient_of.values()))
        if shared:
            what = "is a patient" if len(shared) == 1 else f"and {count(len(shared) - 1, 'other name')} are patients"
            found.append(
                Finding(
                    kind="patient-in-two-sources",
                    severity="warning",
                    what=f"{shared[0]} {what} in both {one.source.name} and {other.source.name}",
                    remedy="patients.csv calls them one person, so folds keep them together; correct it if not",
                    others=tuple(shared),
                )
            )
    return found
