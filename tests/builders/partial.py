"""Data sets in which not every structure was drawn in every case."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np

from builders.data import LABEL_VALUES, write_raw

HALVES = {"case_0[024]": ["bright"], "case_0[135]": ["dark"]}


def describe(raw: Path, **fields: object) -> Path:
    """Adds fields to the dataset.json of a RAW folder."""
    path = raw / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return raw


def hide(mask_file: Path, values: Sequence[int]) -> None:
    """Draws nothing where a mask has one of these values, as somebody does who was not asked for them."""
    image = nibabel.load(mask_file)
    array = np.asarray(image.dataobj).copy()
    array[np.isin(array, values)] = 0
    nibabel.save(nibabel.Nifti1Image(array, image.affine), mask_file)


def write_partial(raw: Path, cases: int = 6, lists: Mapping[str, Sequence[str]] = HALVES) -> Path:
    """``data.write_raw``, with 'bright' drawn in the even cases alone and 'dark' in the odd ones."""
    write_raw(raw, cases)
    for number in range(cases):
        hide(raw / "labelsTr" / f"case_{number:02}.nii.gz", [LABEL_VALUES["bright" if number % 2 else "dark"]])
    return describe(raw, annotated=dict(lists))
