"""The enlarged data set in nnU-Net's form, for ``segfw run``: dataset.json lists images where they lie, and the folds.

New masks are copied, with the values of the model's labels: they are what was signed, whatever becomes of the folder
that they come from. Old files and images are only named.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path

from segfw.base.files import new_folder, write_text
from segfw.base.records import UserError
from segfw.dataset.annotated_structures import ANNOTATED_FIELD
from segfw.dataset.cases import Case, DatasetManifest, read_label
from segfw.dataset.dataset_json import DESCRIPTION_FILE, LABEL_MAPS_FIELD, REGIONS_ORDER_FIELD
from segfw.dataset.labels import LabelSet, apply_map
from segfw.dataset.nnunet_raw import FILES_FIELD
from segfw.images.formats import write_labels
from segfw.images.values import as_integers
from segfw.planning.splits import Splits
from segfw.retraining.retraining_record import NewLabel

MASKS = "signed"  # folder of the new masks
SPLITS_NAME = "splits_final.json"
PATIENTS_FILE = "patients.csv"


def write_enlarged_raw(
    output: Path,
    manifest: DatasetManifest,
    new: Sequence[NewLabel],
    splits: Splits,
    patient_of: Mapping[str, str],
) -> None:
    """Writes the data set of old and new cases, whole or not at all.

    UserError if an old mask is a DICOM object, whose structures dataset.json cannot name.
    """
    named = [case.id for case in manifest.cases if case.drawn_as]
    if named:
        raise UserError(
            f"{named[0]}: its mask is a DICOM object, which a dataset.json cannot list; retrain without --raw-only"
        )
    with new_folder(output) as folder:
        entries = {case.id: _entry(case, case.label) for case in manifest.cases}
        for label in new:
            place = folder / MASKS / f"{label.case.id}.nii.gz"
            _write_mask(place, label.case)
            entries[label.case.id] = _entry(label.case, Path(MASKS) / place.name)
        description: dict[str, object] = {
            "name": manifest.name,
            "channel_names": {str(number): channel.name for number, channel in enumerate(manifest.channels)},
            **_labels(manifest.labels),
            "numTraining": len(entries),
            "file_ending": ".nii.gz",
            FILES_FIELD: entries,
        }
        maps = {case.id: {str(old): meaning for old, meaning in case.label_map} for case in manifest.cases}
        if any(maps.values()):
            description[LABEL_MAPS_FIELD] = {case: pairs for case, pairs in maps.items() if pairs}
        cases = (*manifest.cases, *(label.case for label in new))
        drawn = {escape(case.id): list(case.annotated) for case in cases if case.annotated is not None}
        if drawn:
            description[ANNOTATED_FIELD] = drawn
        write_text(folder / SPLITS_NAME, json.dumps(_folds(splits), indent=1) + "\n")
        write_text(folder / PATIENTS_FILE, _patients(patient_of))
        write_text(folder / DESCRIPTION_FILE, json.dumps(description, indent=1) + "\n")


def _entry(case: Case, label: Path | None) -> dict[str, object]:
    if label is None:
        raise ValueError(f"{case.id} has no mask")
    return {"images": [path.as_posix() for path in case.images], "label": label.as_posix()}


def _labels(labels: LabelSet) -> dict[str, object]:
    """What dataset.json says of labels, and of the order in which regions are painted."""
    by_name: dict[str, object] = {labels.names[0]: labels.values[0]}
    if labels.regions:
        by_name |= {region.name: list(region.values) for region in labels.regions}
    else:
        by_name |= dict(zip(labels.names[1:], labels.values[1:]))
    if labels.ignore is not None:
        by_name["ignore"] = labels.ignore
    content: dict[str, object] = {"labels": by_name}
    if labels.regions:
        content[REGIONS_ORDER_FIELD] = [region.painted for region in labels.regions]
    return content


def _write_mask(path: Path, case: Case) -> None:
    """The mask with the values of the model's labels, on its own grid."""
    mask = read_label(case, None)
    values_zyx = apply_map(as_integers(mask.array), case.label_map)[0]
    write_labels(path, values_zyx, mask.geometry, case.label)


def _folds(splits: Splits) -> list[dict[str, list[str]]]:
    return [{"train": list(fold.train), "val": list(fold.validation)} for fold in splits.folds]


def _patients(patient_of: Mapping[str, str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "patient"))
    writer.writerows(sorted(patient_of.items()))
    return text.getvalue()
