"""Which labels a retraining takes from a folder under review, and what it knows of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builders.data import write_nifti
from builders.under_review import LABELS, blocks, review, sign, write_drafts
from segfw.base.records import UserError
from segfw.dataset.cases import Case, Channel, DatasetManifest
from segfw.dataset.labels import LabelSet
from segfw.dataset.layouts import find_dataset
from segfw.evaluation.mask_facts import FACTS_FILE, MaskFacts
from segfw.images.formats import read_volume, write_labels
from segfw.planning.splits import Fold, Splits
from segfw.retraining.enlarged_raw import write_enlarged_raw
from segfw.retraining.reviewed_labels import reviewed_labels
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.version_files import version_file

SHAPE = (4, 7, 11)


def drafts(folder: Path, case: str = "case_a", only: tuple[str, ...] = ()) -> ReviewStore:
    """A folder under review with one case, of ``only`` some structures if they are given."""
    image = folder / "scans" / f"{case}.nii.gz"
    write_nifti(image, np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE[::-1]))
    values = blocks(SHAPE)
    if only:
        values[values == 2] = 0
    write_drafts(folder / "masks", {case: image}, {case: values})
    facts = MaskFacts.load(folder / "masks" / FACTS_FILE)
    facts.model_copy(update={"only": only}).save(folder / "masks" / FACTS_FILE)
    return ReviewStore.open(folder / "masks")


def test_masks_of_some_structures_say_nothing_of_the_others(tmp_path):
    sign(drafts(tmp_path / "all", "case_a"), "case_a")
    sign(drafts(tmp_path / "part", "case_[b]", only=("liver",)), "case_[b]")
    new = reviewed_labels([tmp_path / "all" / "masks", tmp_path / "part" / "masks"], LABELS, "signed")
    assert {label.case.id: label.case.annotated for label in new} == {"case_a": None, "case_[b]": ("liver",)}

    # In the enlarged data set too, beside what was known of old cases
    old = tmp_path / "old"
    write_nifti(old / "images" / "case_c.nii.gz", np.zeros(SHAPE[::-1], np.int16))
    write_nifti(old / "labels" / "case_c.nii.gz", np.full(SHAPE[::-1], 2, np.uint8))
    case = Case(
        id="case_c",
        images=(old / "images" / "case_c.nii.gz",),
        label=old / "labels" / "case_c.nii.gz",
        annotated=("kidney_left",),
    )
    manifest = DatasetManifest(
        name="old", layout="raw", root=old, channels=(Channel(name="CT"),), labels=LABELS, cases=(case,), notes=()
    )
    splits = Splits(source="test", folds=(Fold(train=("case_a", "case_[b]"), validation=("case_c",)),))
    write_enlarged_raw(tmp_path / "raw", manifest, new, splits, {})
    found = find_dataset(tmp_path / "raw")
    assert {each.id: each.annotated for each in found.cases} == {
        "case_a": None,
        "case_[b]": ("liver",),
        "case_c": ("kidney_left",),
    }
    assert not found.findings


def test_masks_of_structures_that_the_model_has_not_are_refused(tmp_path):
    sign(drafts(tmp_path, only=("liver",)), "case_a")
    region = {"name": "organs", "values": (1, 2, 7), "painted": 1}
    nested = LabelSet.model_validate({"names": LABELS.names, "values": LABELS.values, "regions": (region,)})
    with pytest.raises(UserError, match="are of liver alone, and the model has no structure 'liver'"):
        reviewed_labels([tmp_path / "masks"], nested, "signed")


def test_a_reviewed_mask_that_was_changed_is_refused(tmp_path):
    review(drafts(tmp_path), "case_a")
    assert reviewed_labels([tmp_path / "masks"], LABELS, "reviewed")[0].state == "REVIEWED"
    path = version_file(tmp_path / "masks", "case_a", 1)
    path.unlink()
    geometry = read_volume(tmp_path / "scans" / "case_a.nii.gz").geometry
    write_labels(path, np.zeros(SHAPE, np.uint8), geometry)
    with pytest.raises(UserError, match=r"case_a \(mask\): changed after it was reviewed"):
        reviewed_labels([tmp_path / "masks"], LABELS, "reviewed")
