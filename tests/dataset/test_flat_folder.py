"""Images and masks side by side in one folder, by the words in their names."""

import pytest

from builders.data import touch_files
from builders.found import channels, names, problems
from segfw.base.records import UserError
from segfw.dataset.layouts import find_dataset


def find(raw, files, **folders):
    return find_dataset(touch_files(raw, {".": files.split(), **folders}))


@pytest.mark.parametrize(
    "image, mask",
    [
        ("{}_img", "{}_seg"),
        ("{}_image", "{}_mask"),
        ("{}", "{}_mask"),
        ("{}", "{}-label"),
        ("{}", "{}.gt"),
        ("img_{}", "seg_{}"),
        ("volume-{}", "segmentation-{}"),
        ("{}_CT", "{}_CT_seg-manual"),
        ("Label_{}_img", "Label_{}_seg"),
    ],
)
def test_usual_names(tmp_path, image, mask):
    pairs = {number: [image.format(number), mask.format(number)] for number in ("01", "02", "10")}
    found = find(tmp_path, " ".join(f"{first}.nii.gz {second}.nii.gz" for first, second in pairs.values()))
    assert found.layout == "flat folder"
    assert list(names(found).values()) == list(pairs.values())
    assert (found.channels, problems(found)) == (None, [])


def test_words_that_differ_from_case_to_case(tmp_path):
    found = find(tmp_path, "A_img A_seg B B_mask C_image C.gt.nii.gz")
    assert names(found) == {"A": ["A_img", "A_seg"], "B": ["B", "B_mask"], "C": ["C_image", "C.gt"]}


def test_several_channels(tmp_path):
    found = find(tmp_path, "P1_T1 P1_T2 P1_seg P10_T1 P10_T2 P10_seg")
    assert channels(found) == ["T1", "T2"]
    assert names(found)["P1"] == ["P1_T1", "P1_T2", "P1_seg"]
    assert found.paired == "P1: P1_T1.nii.gz + P1_T2.nii.gz -> P1_seg.nii.gz"


def test_pictures(tmp_path):
    found = find(tmp_path, "eye1.tif eye1_mask.png eye2.tif eye2_mask.png")
    assert names(found) == {"eye1": ["eye1.tif", "eye1_mask.png"], "eye2": ["eye2.tif", "eye2_mask.png"]}


def test_the_folder_of_one_case(tmp_path):
    assert names(find(tmp_path / "P7", "image mask")) == {"P7": ["image", "mask"]}
    found = find(tmp_path / "P8", "T1 T2 seg")
    assert names(found) == {"P8": ["T1", "T2", "seg"]}
    assert channels(found) == ["T1", "T2"]


def test_what_is_missing_or_left_over_is_named(tmp_path):
    found = find(tmp_path, "A_img A_seg B_img C_seg D_img D_seg ._D_img Thumbs.db", more=["X.nii.gz"])
    assert list(names(found)) == ["A", "D"]
    assert problems(found) == [
        f"B_img: {tmp_path.name}/B_img.nii.gz: has no mask; add the mask or move the image",
        f"C: {tmp_path.name}/C_seg.nii.gz: has no image; add the image or move the mask",
        "warning: more/: is a folder of images beside the images and is not used; "
        "move its files up if they belong to the data set, or the folder away",
    ]


def test_two_masks_of_one_case(tmp_path):
    with pytest.raises(UserError) as caught:
        find(tmp_path, "A_img A_seg A_mask B_img B_seg B_mask")
    assert str(caught.value) == (
        f"{tmp_path}: A_mask.nii.gz, A_seg.nii.gz could each be the mask of A (and so for 1 other case); "
        "keep one file a case, with a value for each structure, and move the others away"
    )
