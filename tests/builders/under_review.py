"""A folder of drafts as ``segfw predict`` leaves it, without a model, and a person who reviews and signs them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segfw.base.file_names import MASK_SETTINGS_FILE
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.evaluation.mask_facts import FACTS_FILE, MaskFacts
from segfw.images.formats import read_volume, write_labels
from segfw.inference.prediction_settings import PredictionSettings
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore

LABELS = LabelSet(names=("background", "liver", "kidney_left", "never there"), values=(0, 1, 2, 7))
SETTINGS = PredictionSettings(
    configuration="3d_fullres", folds=("0",), weights_digest="ab" * 32, step=0.5, mirroring=True
)
ADA = Person(user="ada")
SIGNS_AS = {"name": "Ada King", "meaning": "review"}


def blocks(shape: tuple[int, int, int]) -> np.ndarray:
    """A mask with a liver that has a hole, and a kidney of one voxel in the corner."""
    values = np.zeros(shape, np.uint8)
    values[:, 1:-1, 2:-2] = 1
    values[:, 2:-2, 4:-3] = 0
    values[0, 0, 0] = 2
    return values


def write_drafts(
    folder: Path, images: Mapping[str, Path], values: Mapping[str, np.ndarray], labels: LabelSet = LABELS
) -> ReviewStore:
    """Drafts of ``images`` by case, as if a model had made them, and the store of their review."""
    for case, image in images.items():
        geometry = read_volume(image).geometry
        write_labels(folder / f"{case}.nii.gz", values[case], geometry, image)
    labels.save(folder / LABELS_FILE)
    SETTINGS.save(folder / MASK_SETTINGS_FILE)
    source = next(iter(images.values())).parent
    MaskFacts(images=Path(os.path.relpath(source, folder)).as_posix()).save(folder / FACTS_FILE)
    return ReviewStore.open(folder)


def review(store: ReviewStore, case: str, person: Person = ADA, edited: np.ndarray | None = None) -> str:
    """Opens a case, saves ``edited`` if it is given, accepts all structures, and finishes: the hash of the version."""
    standing = store.open_case(case, person)
    if edited is not None:
        store.save(case, person, edited, base=standing.version, origin="edited", tool="test")
    store.decide_all(case, person, dict.fromkeys(store.structures, "accept"))
    return store.finish(case, person).sha256


def sign(store: ReviewStore, case: str, person: Person = ADA, edited: np.ndarray | None = None) -> str:
    """The same, and signs it."""
    sha256 = review(store, case, person, edited)
    store.sign(case, person, version_sha256=sha256, **SIGNS_AS)
    return sha256
