"""What dataset.json says of channels and labels, and label_maps.json of single cases; every mistake said in words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from unicodedata import normalize

from pydantic import ValidationError

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.base.written_by_people import read_json
from segfw.base.wrong_value import wrong_value
from segfw.dataset.cases import Case, Channel, Finding, FoundDataset
from segfw.dataset.labels import LabelMap, LabelSet, Region

DESCRIPTION_FILE = "dataset.json"
LABEL_MAPS_FILE = "label_maps.json"
LABEL_MAPS_FIELD = "label_maps"  # in dataset.json, instead of a file of its own
REGIONS_ORDER_FIELD = "regions_class_order"
BACKGROUND = "background"
IGNORE = "ignore"


def read_description(path: Path) -> dict | None:
    """A JSON object, or None if there is no such file."""
    if path.is_symlink() and not path.exists():
        what = f"is a link to {path.readlink()}, which is missing"
        raise UserError(f"{path}: {what}; fetch that file (git-annex, DVC), or mount its disk")
    if not path.is_file():
        return None
    description = read_json(path)
    if not isinstance(description, dict):
        expected = "by case" if path.name == LABEL_MAPS_FILE else "with 'labels' and 'channel_names' or 'modality'"
        raise UserError(f"{path}: must be a JSON object {expected}")
    return description


def read_labels(dataset_json: Path) -> LabelSet:
    """The labels of a dataset.json; raises UserError naming the field that is wrong."""
    return labels_of(read_description(dataset_json) or {}, dataset_json)


def channels_of(description: Mapping, path: Path) -> tuple[Channel, ...]:
    """Channels of a dataset.json in the order of their numbers."""
    entries = description.get("channel_names", description.get("modality"))
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{path}: field 'channel_names' is missing or no object; write for example {{'0': 'CT'}}")
    try:
        return tuple(Channel(name=str(entries[key])) for key in sorted(entries, key=int))
    except ValueError:
        raise UserError(
            f"{path}: keys of 'channel_names' must be numbers ('0', '1', ...), got {list(entries)}"
        ) from None


def labels_of(description: Mapping, path: Path) -> LabelSet:
    """Labels of a dataset.json: {'name': 1} (nnU-Net), {'1': 'name'} (Decathlon) or regions {'name': [1, 2]}."""
    entries = _label_entries(description, path)
    ignored = entries.pop(IGNORE, None)
    if ignored is not None and len(ignored) != 1:
        raise UserError(f"{path}: label 'ignore' has the values {list(ignored)}; it must be one integer")
    background = entries.get(BACKGROUND, (0,))
    if len(background) != 1:
        raise UserError(f"{path}: label 'background' has the values {list(background)}; it must be one integer")
    if BACKGROUND not in entries:  # whatever the name of value 0 is, it is the background
        entries = {name: values for name, values in entries.items() if values != background}
    structures = [(name, values) for name, values in entries.items() if name != BACKGROUND]
    regions: list[Region] = []
    if any(len(values) > 1 for _, values in structures):
        order = _painting_order(description, [name for name, _ in structures], path)
        for (name, values), painted in zip(structures, order):
            regions.append(Region(name=name, values=values, painted=painted))
        structures = _labels_in(structures, background[0])
    try:
        return LabelSet(
            names=(BACKGROUND, *(name for name, _ in structures)),
            values=(background[0], *(values[0] for _, values in structures)),
            ignore=ignored[0] if ignored else None,
            regions=tuple(regions),
        )
    except ValidationError as error:
        reason = wrong_value("", error.errors()[0]).strip()
        raise UserError(f"{path}: field 'labels': {reason}; correct it") from None


def _label_entries(description: Mapping, path: Path) -> dict[str, tuple[int, ...]]:
    """{name: values} in the order of the file; more than one value is a region."""
    entries = description.get("labels")
    if not isinstance(entries, dict) or not entries:
        example = {BACKGROUND: 0, "tumour": 1}
        raise UserError(f"{path}: field 'labels' is missing or no object; write for example {json.dumps(example)}")
    named: dict[str, tuple[int, ...]] = {}
    for key, value in entries.items():
        is_number_first = isinstance(value, str) and re.fullmatch(r"-?\d+", key)  # as Decathlon writes it
        name = value if is_number_first else key
        numbers = key if is_number_first else value
        values = []
        for number in numbers if isinstance(numbers, list) else [numbers]:
            integer = _integer(number)
            if integer is None:
                raise UserError(f"{path}: label {name!r} has value {number!r}; it must be an integer")
            values.append(integer)
        if name in named:
            raise UserError(f"{path}: field 'labels': names {tuple(entries.values())} are not distinct; correct it")
        if not values:
            raise UserError(f"{path}: field 'labels': region {name!r} holds no label; correct it")
        named[name] = tuple(values)
    return named


def _integer(number: object) -> int | None:
    """An integer, also where it is written as text or as a whole float; None for anything else."""
    if isinstance(number, float) and number.is_integer():
        return int(number)
    if isinstance(number, bool) or not re.fullmatch(r"-?\d+", str(number)):
        return None
    return int(str(number))


def _painting_order(description: Mapping, names: Sequence[str], path: Path) -> list[int]:
    """The value that each region is painted as, in the order of the regions."""
    order = description.get(REGIONS_ORDER_FIELD)
    wanted = f"give a value for each of {', '.join(names)}, in this order; later ones are painted over earlier ones"
    values = []
    if isinstance(order, list):
        # A number that is written as text is no slip to be read over here: it may be a name.
        values = [value for value in map(_integer, order) if value is not None]
    if not isinstance(order, list) or len(values) < len(order) or any(isinstance(value, str) for value in order):
        state = "is missing" if order is None else f"is {order!r}, which is no list of integers"
        raise UserError(f"{path}: 'labels' has regions, but field {REGIONS_ORDER_FIELD!r} {state}; {wanted}")
    if len(values) != len(names):
        raise UserError(
            f"{path}: field {REGIONS_ORDER_FIELD!r} has {count(len(values), 'value')} "
            f"for {count(len(names), 'region')}; {wanted}"
        )
    return values


def _labels_in(regions: Sequence[tuple[str, tuple[int, ...]]], background: int) -> list[tuple[str, tuple[int, ...]]]:
    """The labels that regions consist of, named after a region of that label alone where there is one."""
    name_of = {values[0]: name for name, values in reversed(regions) if len(values) == 1}
    found = set[int]().union(*(values for _, values in regions)) - {background}
    return [(name_of.get(value, f"label_{value}"), (value,)) for value in sorted(found)]


LabelMaps = Mapping[str, LabelMap]  # by case id or pattern of ids, such as 'siteB_*'


def read_label_maps(folder: Path, labels: LabelSet | None) -> LabelMaps:
    """Label maps of a RAW folder, from label_maps.json or the field of dataset.json; empty if there are none.

    Without ``labels``, which are then found in the masks, only values can be given and any value can.
    """
    path = folder / DESCRIPTION_FILE
    entries = (read_description(path) or {}).get(LABEL_MAPS_FIELD)
    file_alone = folder / LABEL_MAPS_FILE
    if file_alone.is_file():
        if entries is not None:
            raise UserError(f"{file_alone}: {path.name} has a field {LABEL_MAPS_FIELD!r} too; keep one of them")
        path = file_alone
        entries = read_description(file_alone)
    if entries is None:
        return {}
    if not isinstance(entries, dict) or not all(isinstance(pairs, dict) for pairs in entries.values()):
        raise UserError(
            f"{path}: label maps must be objects by case or pattern; write for example {{'siteB_*': {{'5': 1}}}}"
        )
    return {
        pattern: tuple(_map_entry(key, meaning, pattern, labels, path) for key, meaning in pairs.items())
        for pattern, pairs in entries.items()
    }


def _map_entry(key: str, meaning: object, pattern: str, labels: LabelSet | None, path: Path) -> tuple[int, int]:
    value = _integer(key)
    if value is None:
        raise UserError(f"{path}: {pattern!r} maps {key!r}; it must be an integer, the value in the masks")
    by_name = {} if labels is None else dict(zip(labels.names, labels.values))
    if labels is not None and labels.ignore is not None:
        by_name[IGNORE] = labels.ignore
    target = by_name[meaning] if isinstance(meaning, str) and meaning in by_name else _integer(meaning)
    if target is None or (labels is not None and target not in by_name.values()):
        known = ", ".join(f"{number} {name}" for name, number in by_name.items())
        known = known or f"without 'labels' in {DESCRIPTION_FILE} give values, not names"
        raise UserError(f"{path}: {pattern!r} maps {key} to {meaning!r}, which is no label ({known}); correct it")
    return value, target


def label_map_of(case: str, maps: LabelMaps) -> LabelMap:
    """What the values in one case's mask mean; raises ValueError if two patterns disagree."""
    merged: dict[int, int] = {}
    for pattern, pairs in maps.items():
        if not fnmatchcase(case, normalize("NFC", pattern)):
            continue
        for value, meaning in pairs:
            if merged.setdefault(value, meaning) != meaning:
                raise ValueError(f"{pattern!r} maps {value} to {meaning}, another pattern to {merged[value]}")
    return tuple(sorted(merged.items()))


def with_label_maps(found: FoundDataset) -> FoundDataset:
    """The data set with each case's label map; maps that fit no case or contradict each other become findings."""
    maps = read_label_maps(found.root, found.labels)
    findings = []
    for pattern in maps:
        if not any(fnmatchcase(case.id, normalize("NFC", pattern)) for case in found.cases):
            findings.append(_wrong_label_map(pattern, "fits no case"))
    cases: list[Case] = []
    for case in found.cases:
        try:
            cases.append(case.model_copy(update={"label_map": label_map_of(case.id, maps)}))
        except ValueError as error:
            findings.append(_wrong_label_map(case.id, str(error)))
            cases.append(case)
    mapped = sum(bool(case.label_map) for case in cases)
    notes = list(found.notes)
    if mapped:
        notes.append(f"label maps used for {count(mapped, 'case')}")
    return replace(found, cases=tuple(cases), findings=(*found.findings, *findings), notes=tuple(notes))


def _wrong_label_map(case: str, what: str) -> Finding:
    return Finding(
        kind="label-map",
        severity="error",
        case=case,
        file="label maps",
        what=what,
        remedy="correct or remove the map",
    )
