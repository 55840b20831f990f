"""What the structures of a mask become among given labels: by ``structures.csv`` above it, or by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from segfw.base.words import count, listed
from segfw.dataset.cases import Finding, FoundDataset
from segfw.dataset.labels import LabelSet
from segfw.dataset.look_up import LookUp, NotFound
from segfw.dataset.structure_map import (
    STRUCTURES_FILE,
    StructureMap,
    meanings_of,
    names_in_words,
    read_structure_map,
)
from segfw.dataset.structure_names import plain
from segfw.images.formats import UnreadableFile, has_names, structures_in
from segfw.images.named_mask import DrawnAs, numbered

MOST_FOLDERS_UP = 5  # between a mask and its data set
SHOWN = 6


def structure_map_above(path: Path) -> StructureMap | None:
    """The table of structures of the data set that a mask, or a folder of masks, lies in; None without one."""
    folder = path.resolve()
    for each in (folder, *list(folder.parents)[:MOST_FOLDERS_UP]):
        if (each / STRUCTURES_FILE).is_file():
            return read_structure_map(each / STRUCTURES_FILE)
    return None


def names_in(path: Path) -> tuple[str, ...]:
    """Names of the structures of a mask; none where they have none. Raises UnreadableFile."""
    return tuple(dict.fromkeys(structure.name for structure in structures_in(path)))


def drawn_as_of(path: Path, labels: LabelSet) -> tuple[DrawnAs, ...] | None:
    """What the structures of a mask become; None for a mask whose structures have no names.

    Those that are no label are left out. Raises UnreadableFile if none is one: values alone would be compared, and
    numbers of two files need not mean the same.
    """
    if not has_names(path):
        return None
    names = names_in(path)
    if not names:
        return None
    label_of = _labels_of(path, names, labels)
    found = tuple(
        DrawnAs(name=name, painted=each.painted, values=each.values)
        for each in meanings_of(labels)
        for name in names
        if label_of[name] == each.name
    )
    if not found:
        known = listed(list(labels.structures)[:SHOWN])
        what = f"none of its structures ({', '.join(names[:SHOWN])}) is one of the labels ({known})"
        raise UnreadableFile(f"{path}: {what}; give a table of both as {STRUCTURES_FILE} beside it")
    return found


def _labels_of(path: Path, names: Sequence[str], labels: LabelSet) -> Mapping[str, str]:
    """The label of each name, '' for none: by the table above the mask, else by the names of the labels.

    A name to which the table gives no label stays left out, as in training, whatever it sounds like.
    """
    table = structure_map_above(path.parent)
    look_up = LookUp(labels, path)
    found = {}
    for name in names:
        label = None if table is None else table.label_of.get(plain(name))
        is_told = label == "" or label in labels.structures
        found[name] = label if label is not None and is_told else _by_name(name, look_up)
    return found


def _by_name(name: str, look_up: LookUp) -> str:
    """The one label that a name means; '' if it means none, or several."""
    try:
        meant = look_up.find(name).names
    except NotFound:
        return ""
    return meant[0] if len(meant) == 1 else ""


def structures_left_out(files: Iterable[Path], labels: LabelSet) -> list[str]:
    """A note on structures of masks that are no label, if there are any; damaged masks are passed over."""
    times: dict[str, int] = {}
    for path in files:
        try:
            kept = drawn_as_of(path, labels)
            names = () if kept is None else names_in(path)
        except UnreadableFile:
            continue
        known = {each.name for each in kept or ()}
        for name in names:
            if name not in known:
                times[name] = times.get(name, 0) + 1
    if not times:
        return []
    shown = ", ".join(f"{name} (in {count(number, 'mask')})" for name, number in list(times.items())[:SHOWN])
    more = f" and {len(times) - SHOWN} more" if len(times) > SHOWN else ""
    return [f"structures that are no label were left out: {shown}{more}"]


def labels_by_names(files: Iterable[Path]) -> LabelSet | None:
    """A label for each name in masks, by its number where all files number alike; None if no mask has names.

    Names that differ in capitals, or in what stands between words, are one label.
    """
    name_of: dict[str, str] = {}
    number_of: dict[str, int] = {}
    is_alike = True
    for path in files:
        for each in numbered(structures_in(path)) if has_names(path) else ():
            name = name_of.setdefault(plain(each.name), each.name)
            is_alike = number_of.setdefault(name, each.painted) == each.painted and is_alike
    if not number_of:
        return None
    if not is_alike or len(set(number_of.values())) < len(number_of):
        number_of = {name: number for number, name in enumerate(number_of, 1)}
    return LabelSet(names=("background", *number_of), values=(0, *number_of.values()))


def with_named_masks(found: FoundDataset) -> FoundDataset:
    """The data set with what the structures of its masks become, where these have names (.seg.nrrd).

    By ``structures.csv`` in its folder; else by the names of the labels, if these are known; else every name is a
    label. Names that mean nothing are an error.
    """
    if not any(case.label is not None and not case.drawn_as and has_names(case.label) for case in found.cases):
        return found
    findings = list(found.findings)
    names_of: dict[str, tuple[str, ...]] = {}
    for case in found.cases:
        if case.label is not None and not case.drawn_as and has_names(case.label):
            with suppress(UnreadableFile):  # reading the case tells it
                names_of[case.id] = names_in(case.label)
    times = Counter(name for names in names_of.values() for name in names)
    table = read_structure_map(found.root / STRUCTURES_FILE) if (found.root / STRUCTURES_FILE).is_file() else None
    labels = found.labels
    notes = list(found.notes)
    if table is not None:
        labels = table.labels(labels)
        unknown = table.unknown(times)
        label_of = {name: table.label_of_name(name) for name in times}
    elif labels is not None:
        look_up = LookUp(labels, found.root)
        label_of = {name: _by_name(name, look_up) for name in times}
        unknown = [name for name in times if not label_of[name]]
    else:
        masks = [case.label for case in found.cases if case.label is not None and case.id in names_of]
        labels = labels_by_names(masks)
        first = {plain(name): name for name in reversed(labels.names)} if labels is not None else {}
        label_of = {name: first[plain(name)] for name in times}
        unknown = []
        if labels is not None:
            notes.append(f"labels are the names of the structures in masks: {', '.join(labels.names[1:])}")
    if unknown:
        what = f"{names_in_words(unknown, times)} {'is' if len(unknown) == 1 else 'are'} no label"
        remedy = f"write {STRUCTURES_FILE} with the header structure,label and a line for each name in the masks"
        findings.append(Finding(kind="unknown-structure", severity="error", what=what, remedy=remedy))
    if labels is None:
        return found
    cases = []
    for case in found.cases:
        drawn_as = tuple(
            DrawnAs(name=name, painted=each.painted, values=each.values)
            for each in meanings_of(labels)
            for name in names_of.get(case.id, ())
            if label_of[name] == each.name
        )
        cases.append(case.model_copy(update={"drawn_as": drawn_as}) if drawn_as else case)
    source = found.labels_source if found.labels is not None and table is None else STRUCTURES_FILE
    return replace(
        found,
        cases=tuple(cases),
        labels=labels,
        findings=tuple(findings),
        notes=tuple(notes),
        labels_source=source,
        structure_names=found.structure_names or dict(times),
    )
