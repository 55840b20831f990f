"""Small masks, and folders of them, for the tests of evaluation."""

import csv
import io
from pathlib import Path

import numpy as np

from segfw.dataset.labels import LabelSet
from segfw.evaluation.confusion import confusion
from segfw.evaluation.metrics import label_score
from segfw.images.formats import write_labels
from segfw.images.geometry import Geometry

SHAPE = (4, 6, 9)  # unequal, as is the spacing: a swapped axis must fail
SPACING_MM = (5.0, 1.0, 0.5)
LABELS = LabelSet(names=("background", "liver", "tumour"), values=(0, 1, 2))


def geometry(shape=SHAPE, spacing_mm=SPACING_MM, shift_mm=(0.0, 0.0, 0.0)) -> Geometry:
    """Canonical axes; ``shift_mm`` along z, y, x."""
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing_mm
    affine[[2, 1, 0], 3] = shift_mm
    affine[3, 3] = 1
    return Geometry.of(shape, affine)


def box(*ranges, value=1, shape=SHAPE) -> np.ndarray:
    """Mask with ``value`` in the half-open ranges along z, y, x; empty without any."""
    mask = np.zeros(shape, np.uint8)
    if ranges:
        mask[tuple(slice(*limits) for limits in ranges)] = value
    return mask


def folders(tmp_path: Path, references: dict, predictions: dict, ending=".nii.gz", **grid) -> tuple[Path, Path]:
    """Writes masks as (predictions folder, reference folder)."""
    for name, masks, file_ending in (("reference", references, ".nii.gz"), ("predicted", predictions, ending)):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        for case, mask in masks.items():
            write_labels(tmp_path / name / f"{case}{file_ending}", mask, geometry(mask.shape, **grid))
    return tmp_path / "predicted", tmp_path / "reference"


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def score(reference, prediction, index=1):
    """Of one label of two masks with up to three classes."""
    return label_score(confusion(np.asarray(reference), np.asarray(prediction), 3), index)
