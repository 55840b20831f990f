"""The folder of a joined data set: dataset.json with paths of images and masks, patients.csv and join.json.

No image is copied: dataset.json lists the files of every case where they lie (nnU-Net's field 'dataset'), with label
maps from each source's values to the joined ones and the structures that each source drew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from segfw.base.files import is_empty, write_text
from segfw.base.printing import csv_text
from segfw.base.records import UserError
from segfw.dataset.annotated_structures import ANNOTATED_FIELD
from segfw.dataset.cases import Case
from segfw.dataset.dataset_json import BACKGROUND, DESCRIPTION_FILE, IGNORE, LABEL_MAPS_FIELD
from segfw.dataset.nnunet_raw import FILES_FIELD
from segfw.joining.join_report import JoinReport
from segfw.joining.joined_sources import ReadSource

JOIN_FILE = "join.json"
PATIENTS_FILE = "patients.csv"

T = TypeVar("T")
Names = Mapping[tuple[str, str], str]  # (source, label) -> joined label


def require_join_folder(output: Path) -> None:
    """UserError unless the folder is new, empty, or of an earlier join."""
    if output.exists() and not (output / JOIN_FILE).is_file() and not (output.is_dir() and is_empty(output)):
        raise UserError(f"{output}: is there already and not made by segfw join; give a new folder")


def write_join(output: Path, sources: Sequence[ReadSource], names: Names, report: JoinReport) -> None:
    """Writes all files; dataset.json last, which makes the folder a data set."""
    (output / DESCRIPTION_FILE).unlink(missing_ok=True)
    report.save(output / JOIN_FILE)
    write_text(output / PATIENTS_FILE, csv_text(("case", "patient"), sorted(_patients(sources).items())))
    content = json.dumps(description_of(output, sources, names), indent=1, ensure_ascii=False)
    write_text(output / DESCRIPTION_FILE, content + "\n")


def description_of(output: Path, sources: Sequence[ReadSource], names: Names) -> dict[str, object]:
    """The content of dataset.json."""
    joined = list(dict.fromkeys(names.values()))
    values = {name: value for value, name in enumerate(joined, 1)}
    labels = {BACKGROUND: 0} | values
    ignore = len(joined) + 1
    if any(each.source.labels.ignore is not None for each in sources):
        labels[IGNORE] = ignore
    maps: dict[str, dict[str, int]] = {}
    annotated: dict[str, list[str]] = {}
    files: dict[str, dict[str, object]] = {}
    for each in sources:
        cases = each.manifest.cases
        of_case = {case.id: _map_of(case, each, names, values, ignore) for case in cases}
        maps |= _by_pattern(each, {case: found for case, found in of_case.items() if found})
        lists = {case.id: _drawn(case, each, names) for case in cases}
        annotated |= _by_pattern(each, {case: found for case, found in lists.items() if set(found) != set(joined)})
        for case in cases:
            assert case.label is not None  # those without one are errors of the scan
            files[each.source.id_of(case)] = {
                "images": [os.path.abspath(image) for image in case.images],
                "label": os.path.abspath(case.label),
            }
    channels = [channel.name for channel in sources[0].manifest.channels]
    return {
        "name": output.resolve().name,
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": labels,
        "numTraining": len(files),
        "file_ending": ".nii.gz",
        LABEL_MAPS_FIELD: maps,
        ANNOTATED_FIELD: annotated,
        FILES_FIELD: files,
    }


def _map_of(case: Case, source: ReadSource, names: Names, values: Mapping[str, int], ignore: int) -> dict[str, int]:
    """What each value of a case's mask becomes, without those that stay as they are."""
    labels = source.source.labels
    meaning = {labels.values[0]: 0}
    for name, value in zip(labels.names[1:], labels.values[1:]):
        meaning[value] = values[names[source.source.name, name]]
    if labels.ignore is not None:
        meaning[labels.ignore] = ignore
    own = {value: meaning[target] for value, target in case.label_map}
    return {str(value): target for value, target in sorted((meaning | own).items()) if value != target}


def _drawn(case: Case, source: ReadSource, names: Names) -> list[str]:
    labels = source.source.labels.names[1:]
    return [names[source.source.name, name] for name in labels if case.annotated is None or name in case.annotated]


def _by_pattern(source: ReadSource, of_case: Mapping[str, T]) -> dict[str, T]:
    """One entry for all cases of a source where they are alike, else one for each."""
    found = list(of_case.values())
    if len(found) == len(source.manifest.cases) and all(each == found[0] for each in found):
        return {f"{source.source.name}_*": found[0]}
    return {f"{source.source.name}_{case}": each for case, each in of_case.items()}


def _patients(sources: Sequence[ReadSource]) -> dict[str, str]:
    """Patient of every case; one of a name that two sources know is one, all others are told apart by their source."""
    times: dict[str, int] = {}
    for each in sources:
        for patient in set(each.patient_of.values()):
            times[patient] = times.get(patient, 0) + 1
    found = {}
    for each in sources:
        patient_of = each.patient_of
        for case in each.manifest.cases:
            patient = patient_of[case.id]
            found[each.source.id_of(case)] = patient if times[patient] > 1 else f"{each.source.name}_{patient}"
    return found
