"""Whether a DICOM file is built as the standard's tables say, by the copy of them that highdicom carries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

# Attributes of every file, or of macros that the tables of the copy leave out.
ANYWHERE = {"SpecificCharacterSet"}
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


@cache
def _table(name: str) -> dict:
    return json.loads(files("highdicom").joinpath("_standard", f"{name}.json").read_text())


def faults(dataset) -> list[str]:
    """What the file lacks, and what it has that its kind of file knows nothing of; conditional attributes may lack."""
    modules = _table("iod_module_map")[_table("sop_class_iod_map")[dataset.SOPClassUID]]
    known: dict[tuple[str, ...], dict[str, set[str]]] = {}
    for module in modules:
        for attribute in _table("module_attribute_map")[module["key"]]:
            kinds = known.setdefault(tuple(attribute["path"]), {}).setdefault(attribute["keyword"], set())
            # What a module demands that is there or must be; nested attributes count where their sequence is.
            is_demanded = module["usage"] == "M" or attribute["path"]
            kinds.add(attribute["type"] if is_demanded else "3")
    return sorted(set(_faults(dataset, (), known)))


def _faults(dataset, path: tuple[str, ...], known: dict) -> Iterator[str]:
    where = ".".join(path) or "file"
    attributes = known.get(path, {})
    for keyword, kinds in attributes.items():
        if path and path[-1] in GROUPS:  # what each frame has may stand with all of them, or with each
            continue
        if "1" in kinds and (keyword not in dataset or dataset.data_element(keyword).is_empty):
            yield f"{where} lacks {keyword}"
        if "2" in kinds and keyword not in dataset:
            yield f"{where} lacks {keyword}, which may be empty"
    for element in dataset:
        if element.keyword not in attributes and element.keyword not in ANYWHERE:
            yield f"{where} has {element.keyword or element.tag}, which is not of it"
        elif element.VR == "SQ":
            for item in element.value:
                yield from _faults(item, (*path, element.keyword), known)
