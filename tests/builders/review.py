"""Folders of masks that are reviewed, as ``predict`` leaves them, and a clock that is set by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from segfw.dataset.labels import LabelSet
from segfw.images.formats import write_labels
from segfw.images.geometry import Geometry
from segfw.inference.prediction_settings import PredictionSettings
from segfw.reviewing.mask_version import MaskVersion
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore

ANNA = Person(user="Anna")
BEN = Person(user="Ben")
LABELS = LabelSet(names=("background", "liver", "spleen"), values=(0, 1, 2))
SHAPE = (4, 6, 5)
AFFINE = np.array([[0, 0, -0.8, 30], [0, 0.9, 0, -20], [2.5, 0, 0, 7], [0, 0, 0, 1]], dtype=float)


class Clock:
    """A time that is set by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **time: float) -> None:
        self.now += timedelta(**time)


def drawn(case_number: int = 0) -> np.ndarray:
    """A mask with 8 voxels of liver and 4 of spleen, at another place for each case."""
    values = np.zeros(SHAPE, dtype=np.uint8)
    values[1:3, 1:3, 1:3] = 1
    values[2:4, 4 + case_number % 2, 2:4] = 2
    return values


def masks_folder(
    folder: Path, cases: tuple[str, ...] = ("a", "b"), labels: LabelSet = LABELS, ending: str = ".nii.gz"
) -> Path:
    """A folder FOLDER/masks of drafts of the images in FOLDER/images."""
    masks = folder / "masks"
    images = folder / "images"
    masks.mkdir(parents=True)
    images.mkdir()
    geometry = Geometry.of(SHAPE, AFFINE)
    for number, case in enumerate(cases):
        write_labels(masks / f"{case}{ending}", drawn(number), geometry)
        write_labels(images / f"{case}.nii.gz", 10 * drawn(number) + number % 10, geometry)
    labels.save(masks / "labels.json")
    settings_of("0a").save(masks / "prediction.json")
    (masks / "made_with.json").write_text(json.dumps({"images": "../images"}))
    return masks


def settings_of(weights: str) -> PredictionSettings:
    """What masks of a model with such weights were made with."""
    return PredictionSettings(
        configuration="3d_fullres", folds=("0",), weights_digest=weights, step=0.5, mirroring=True
    )


def accepted(store: ReviewStore, case: str = "a", person: Person = ANNA) -> MaskVersion:
    """The version that a person makes who accepts every structure of a case."""
    store.open_case(case, person)
    store.decide_all(case, person, dict.fromkeys(store.structures, "accept"))
    return store.finish(case, person)
