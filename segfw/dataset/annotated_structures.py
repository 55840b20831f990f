"""Which structures somebody drew in which cases: the field ``annotated`` of dataset.json.

``{"siteA_*": ["liver", "spleen"]}``: in the cases of these names liver and spleen were drawn and nothing else, so that
what their masks call background may be any of the other structures. Cases that fit no pattern are annotated as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from unicodedata import normalize

from segfw.base.case_files import Sources
from segfw.base.printing import printable
from segfw.base.records import UserError
from segfw.base.words import count, listed
from segfw.dataset.cases import Case, Finding, FoundDataset
from segfw.dataset.dataset_json import DESCRIPTION_FILE, read_description
from segfw.dataset.labels import LabelSet
from segfw.images.formats import size_and_change

ANNOTATED_FIELD = "annotated"

AnnotatedLists = Mapping[str, tuple[str, ...]]  # structures by pattern of case ids


def read_annotated(description: Mapping | None, labels: LabelSet | None, path: object) -> AnnotatedLists:
    """The lists of a dataset.json; empty without the field. Raises UserError naming what is wrong with one of them."""
    entries = (description or {}).get(ANNOTATED_FIELD)
    if entries is None:
        return {}
    if not isinstance(entries, dict) or not all(isinstance(names, list) for names in entries.values()):
        raise UserError(
            f"{path}: field {ANNOTATED_FIELD!r} must be lists of structures by case or pattern; write for example "
            "{'siteA_*': ['liver', 'spleen']}"
        )
    if labels is None:
        raise UserError(
            f"{path}: field {ANNOTATED_FIELD!r} names structures, but nothing names the labels; add 'labels'"
        )
    known = tuple(labels.structures)
    for pattern, names in entries.items():
        if not names:
            raise UserError(
                f"{path}: field {ANNOTATED_FIELD!r}: the list of {pattern!r} is empty; name what was drawn there, or "
                "leave these cases out of the data set"
            )
        for name in names:
            if name not in known:
                raise UserError(
                    f"{path}: field {ANNOTATED_FIELD!r}: {pattern!r} lists {name!r}, which is none of 'labels'; "
                    f"choose from {', '.join(known)}"
                )
    return {pattern: tuple(name for name in known if name in names) for pattern, names in entries.items()}


def annotated_in_case(case: str, lists: AnnotatedLists, labels: LabelSet | None) -> tuple[str, ...] | None:
    """What was drawn in a case; None if that is everything. Raises ValueError if two patterns disagree."""
    found: dict[str, tuple[str, ...]] = {}
    for pattern, names in lists.items():
        if fnmatchcase(case, normalize("NFC", pattern)):
            found[pattern] = names
    if len(set(found.values())) > 1:
        first, second = list(found)[:2]
        if found[first] == found[second]:
            second = next(pattern for pattern, names in found.items() if names != found[first])
        raise ValueError(
            f"{first!r} lists {listed(found[first], 'and')} for it, and {second!r} lists {listed(found[second], 'and')}"
        )
    if not found or labels is None:
        return None
    names = next(iter(found.values()))
    return None if set(names) == set(labels.structures) else names


def with_annotated(found: FoundDataset) -> FoundDataset:
    """The data set with what was drawn in each case; lists that fit no case or contradict each other become findings.

    So does a structure that was drawn nowhere.
    """
    path = found.root / DESCRIPTION_FILE
    lists = read_annotated(read_description(path), found.labels, path)
    if not lists or found.labels is None:
        return found
    findings = []
    for pattern in lists:
        if not any(fnmatchcase(case.id, normalize("NFC", pattern)) for case in found.cases):
            findings.append(_wrong_list(pattern, "fits no case"))
    cases: list[Case] = []
    for case in found.cases:
        try:
            names = annotated_in_case(case.id, lists, found.labels)
            cases.append(case.model_copy(update={"annotated": names}))
        except ValueError as error:
            findings.append(_wrong_list(case.id, str(error)))
            cases.append(case)
    findings += _drawn_nowhere(cases, found.labels)
    in_part = [case for case in cases if case.annotated is not None]
    notes = list(found.notes)
    if in_part:
        kinds = len({case.annotated for case in in_part})
        notes.append(
            f"annotated in part: {count(len(in_part), 'case')} of {len(cases)}, {count(kinds, 'list')} of structures"
        )
    return replace(found, cases=tuple(cases), findings=(*found.findings, *findings), notes=tuple(notes))


def _drawn_nowhere(cases: Sequence[Case], labels: LabelSet) -> list[Finding]:
    """An error for every structure that no case's list has, where every case has one."""
    if not cases or any(case.annotated is None for case in cases):
        return []
    drawn = {name for case in cases for name in case.annotated or ()}
    return [
        Finding(
            kind="annotated-nowhere",
            severity="error",
            file=DESCRIPTION_FILE,
            what=f"{name} is annotated in no case",
            remedy=f"add it to a list of {ANNOTATED_FIELD!r}, or take it out of 'labels'",
        )
        for name in labels.structures
        if name not in drawn
    ]


def _wrong_list(case: str, what: str) -> Finding:
    return Finding(
        kind="annotated-list",
        severity="error",
        case=case,
        file=DESCRIPTION_FILE,
        what=f"field {ANNOTATED_FIELD!r}: {what}",
        remedy="correct or remove the list",
    )


def is_annotated(case: Case, structure: str) -> bool:
    """Whether a structure was drawn in a case wherever it is to be seen."""
    return case.annotated is None or structure in case.annotated


def annotated_outputs_of(labels: LabelSet, cases: Sequence[Case]) -> dict[str, tuple[bool, ...]]:
    """Which outputs are annotated, of every case in which not all are."""
    found = {}
    for case in cases:
        outputs = annotated_outputs(labels, case.annotated)
        if outputs is not None:
            found[case.id] = outputs
    return found


def annotated_outputs(labels: LabelSet, annotated: Sequence[str] | None) -> tuple[bool, ...] | None:
    """For each output of the network whether its structure was drawn, the background included; None if all were."""
    if annotated is None:
        return None
    names = [region.name for region in labels.regions]
    if names:
        return tuple(name in annotated for name in names)
    return (True, *(name in annotated for name in labels.names[1:]))


def undrawn_values(case: Case, labels: LabelSet) -> frozenset[int]:
    """Values that no mask of the case can hold, because nobody drew what they stand for."""
    return frozenset(values_not_annotated(case, set(labels.values), labels))


def undrawn_names(labels: LabelSet, value: int) -> str:
    """The structures that a value of a mask belongs to, in words."""
    index = labels.values.index(value)
    return listed([name for name, classes in labels.structures.items() if index in classes] or [labels.names[index]])


def values_not_annotated(case: Case, values: set[int], labels: LabelSet) -> list[int]:
    """Values of a mask that are of no structure that was drawn in the case."""
    if case.annotated is None:
        return []
    allowed = {labels.values[0], labels.ignore}
    for name, classes in labels.structures.items():
        if name in case.annotated:
            allowed.update(labels.values[index] for index in classes)
    return sorted((values & set(labels.values)) - allowed)


def sources_with(annotated: Sequence[str] | None, files: Sequence[Path]) -> Sources:
    """What tells whether a file of a case, or what was drawn in it, has changed; not folders, which may be moved.

    ``annotated`` is None where all was drawn.
    """
    found = [(printable(path.name), *size_and_change(path)) for path in files]
    if annotated is not None:
        found.append((f"annotated: {', '.join(map(printable, annotated))}", 0, 0))
    return tuple(found)
