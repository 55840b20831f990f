"""What the labels of a mask are called that somebody wants to correct."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.dataset.dataset_json import DESCRIPTION_FILE, read_labels
from segfw.dataset.image_files import mask_stem
from segfw.dataset.label_names import read_label_table
from segfw.dataset.labels import LabelSet
from segfw.dataset.named_structures import labels_by_names
from segfw.evaluation.pairs import label_maps_of, labels_and_file
from segfw.images.formats import has_names


def labels_of_mask(mask: Path, of_model: LabelSet, label_names: Path | None = None) -> tuple[LabelSet, Path | None]:
    """The labels of a mask, and the file that names them, None where they are the model's.

    By the first that there is: the table ``label_names``; names in the mask itself; labels.json, dataset.json or a
    table beside the mask or its folder; the model.
    """
    labels, named_by = _named(mask, of_model, label_names)
    stem = mask_stem(mask)
    if label_maps_of({stem: (mask, mask)}, mask.parent, labels, label_names).get(stem):
        raise UserError(
            f"{mask}: its values are colours, or mean other labels by the label maps beside it; store it with the "
            "values of the labels, as segfw predict writes masks"
        )
    return labels, named_by


def _named(mask: Path, of_model: LabelSet, label_names: Path | None) -> tuple[LabelSet, Path | None]:
    if label_names is not None:
        return read_label_table(label_names).labels, label_names
    if has_names(mask):
        named = labels_by_names([mask])
        if named is not None:
            return named, mask
    folder = mask.parent
    beside = folder / DESCRIPTION_FILE
    if beside.is_file():
        return read_labels(beside), beside
    return labels_and_file(folder, folder) or (of_model, None)


def with_values(labels: LabelSet, values: Collection[int]) -> LabelSet:
    """The labels, and one called such as 'label_7' for each value in a mask that none of them has."""
    unknown = sorted(set(values) - set(labels.stored_values))
    if not unknown:
        return labels
    names = [f"label_{value}" for value in unknown]
    taken = set(names) & {*labels.names, *labels.structures}
    if taken:
        raise UserError(f"the labels call another value {listed(sorted(taken))}; rename it, or give --label-names")
    changed = {"names": (*labels.names, *names), "values": (*labels.values, *unknown)}
    return LabelSet.model_validate({**labels.model_dump(), **changed})
