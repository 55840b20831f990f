"""Two folders whose names are other words for images and masks."""

import pytest

from builders.data import touch_files
from builders.found import names, problems
from segfw.base.records import UserError
from segfw.dataset.layouts import find_dataset


@pytest.mark.parametrize(
    "images, masks",
    [
        ("imgs", "masks"),
        ("Images", "Labels"),
        ("image", "label"),
        ("img", "gt"),
        ("CT", "RTMASK"),
        ("scans", "ground_truth"),
        ("train_images", "train_masks"),
        ("MRI", "manual segmentations"),
    ],
)
def test_words_for_images_and_masks(tmp_path, images, masks):
    found = find_dataset(touch_files(tmp_path, {images: ["a", "b"], masks: ["a", "b"], "notes": ["x.txt"]}))
    assert (found.layout, problems(found)) == ("folders", [])
    assert names(found) == {"a": ["a", "a"], "b": ["b", "b"]}
    assert found.paired == f"a: {images}/a.nii.gz -> {masks}/a.nii.gz"


def test_images_and_labels_count_whatever_lies_beside_them(tmp_path):
    folders = ("images", "labels", "scribble masks", "CT")
    found = find_dataset(touch_files(tmp_path, {folder: ["a"] for folder in folders}))
    assert found.cases[0].label == tmp_path / "labels" / "a.nii.gz"


@pytest.mark.parametrize(
    "folders, could, name, other",
    [
        ("CT PET masks", "CT/, PET/ could each be the folder of the images", "images", "labels"),
        ("imgs contours masks", "contours/, masks/ could each be the folder of the masks", "labels", "images"),
    ],
)
def test_more_folders_than_two_are_asked_about(tmp_path, folders, could, name, other):
    with pytest.raises(UserError) as caught:
        find_dataset(touch_files(tmp_path, {folder: ["a"] for folder in folders.split()}))
    remedy = f"call the one to take {name}/ and the other side {other}/, or move the rest away"
    assert str(caught.value) == f"{tmp_path}: {could}; {remedy}"
