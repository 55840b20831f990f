"""The labels of whatever lies at a path: a model, a folder of masks, a data set."""

from __future__ import annotations

from pathlib import Path

from segfw.base.file_names import PLAN_FILE
from segfw.base.records import UserError
from segfw.dataset.dataset_json import DESCRIPTION_FILE
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.dataset.layouts import find_dataset
from segfw.model.source import ModelSource, is_model_file


def labels_at(path: Path) -> LabelSet:
    """Labels of a model's plan, of labels.json beside masks, or of a data set.

    Raises UserError if there is nothing of these, or if only the masks themselves could tell the labels.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give a model, a folder of masks, or a data set")
    if is_model_file(path) or (path / PLAN_FILE).is_file():
        with ModelSource.open(path) as source:
            return source.plan().labels
    if (path / LABELS_FILE).is_file() and not (path / DESCRIPTION_FILE).is_file():
        return LabelSet.load(path / LABELS_FILE)
    try:
        found = find_dataset(path)
    except UserError as error:
        raise UserError(
            f"{path}: is no model, no folder of masks with {LABELS_FILE}, and no data set ({error})"
        ) from None
    if found.labels is None:
        remedy = "name them in dataset.json or labels.csv, or give the work folder after segfw plan-and-preprocess"
        raise UserError(f"{path}: its labels have no names; {remedy}")
    return found.labels
