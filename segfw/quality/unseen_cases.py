"""Labelled cases that a model never saw: whether their masks mean the same, and whether they are no training cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.dataset.cases import MANIFEST_FILE, Case, DatasetManifest, FoundDataset
from segfw.dataset.labels import LabelSet


def with_labels_of(labels: LabelSet, found: FoundDataset) -> tuple[Case, ...]:
    """The cases, whose masks' values are read as the model's labels of the same names.

    Where nothing names the values in the masks they are taken for the model's. UserError if a label of the model has no
    like, or the masks hold labels that the model does not know. A table may name labels that no mask holds, and be
    without such: of its other names only those are refused whose values the model has for something else.
    """
    theirs = found.labels
    if theirs is None:
        return found.cases
    value_of = dict(zip(labels.names[1:], labels.values[1:]))
    their_value_of = dict(zip(theirs.names[1:], theirs.values[1:]))
    shared = value_of.keys() & their_value_of.keys()
    unknown = sorted(their_value_of.keys() - shared) or sorted(value_of.keys() - shared)
    if found.labels_may_be_absent and shared:
        unknown = [name for name in sorted(their_value_of.keys() - shared) if their_value_of[name] in labels.values]
    if unknown:
        raise UserError(
            f"{found.root}: its labels are not those of the model, by {found.labels_source}: {listed(unknown, 'and')}; "
            f"the model has {', '.join(value_of)}"
        )
    changed = {theirs.values[0]: labels.values[0]}
    changed |= {their_value_of[name]: value for name, value in value_of.items() if name in shared}
    if theirs.ignore is not None and labels.ignore is not None:
        changed[theirs.ignore] = labels.ignore
    if all(value == meaning for value, meaning in changed.items()):
        return found.cases
    cases = []
    for case in found.cases:
        own = {value: changed.get(meaning, meaning) for value, meaning in case.label_map}
        label_map = tuple((changed | own).items())
        cases.append(case.model_copy(update={"label_map": label_map}))
    return tuple(cases)


def require_unseen(work: Path, root: Path, cases: Sequence[Case]) -> None:
    """UserError if a case has the name of one that the model was trained on."""
    if not (work / MANIFEST_FILE).is_file():
        return
    trained = {case.id for case in DatasetManifest.load(work / MANIFEST_FILE).cases}
    seen = sorted(case.id for case in cases if case.id in trained)
    if seen:
        raise UserError(
            f"{root}: holds {seen[0]}, on which the model was trained; give cases that it never saw, under other "
            "names, or leave --cases out"
        )
