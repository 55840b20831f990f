"""Pairing images with masks by their names alone: every way that people name files, and what is left over."""

from pathlib import Path

import pytest

from builders.found import channels, in_folders, names, problems
from segfw.dataset import pairing


def test_folders_with_equal_names(tmp_path):
    found = in_folders(tmp_path, "scan_2021 scan_2020.nrrd", "scan_2020 scan_2021")
    assert found.layout == "folders"
    assert names(found) == {"scan_2020": ["scan_2020.nrrd", "scan_2020"], "scan_2021": ["scan_2021", "scan_2021"]}
    assert (found.channels, found.labels) == (None, None)  # only the files can tell
    assert found.paired == "scan_2020: images/scan_2020.nrrd -> labels/scan_2020.nii.gz"


def test_folders_with_numbered_channels(tmp_path):
    found = in_folders(tmp_path, "a_0001 a_0000 b_0000 b_0001", "a b")
    assert names(found) == {"a": ["a_0000", "a_0001", "a"], "b": ["b_0000", "b_0001", "b"]}
    assert channels(found) == ["channel_0", "channel_1"]
    assert in_folders(tmp_path / "one", "a_0000 b_0000", "a b").channels is None


def test_folders_with_channels_after_a_shared_name(tmp_path):
    found = in_folders(tmp_path, "BRAIN_1_t1 BRAIN_1_flair BRAIN_10_t1 BRAIN_10_flair", "BRAIN_1_seg BRAIN_10_seg")
    assert names(found) == {
        "BRAIN_1": ["BRAIN_1_flair", "BRAIN_1_t1", "BRAIN_1_seg"],
        "BRAIN_10": ["BRAIN_10_flair", "BRAIN_10_t1", "BRAIN_10_seg"],
    }
    assert channels(found) == ["flair", "t1"]
    assert found.notes[0] == "channels by file name: flair, t1"


@pytest.mark.parametrize(
    "images, expected",
    [
        ("p_1_t1 p_1_t2 p_2_t1 p_2_t2", ["t1", "t2"]),  # not '1' and '2'
        ("p_1_x_Flair_norm p_1_x_T1c_norm p_2_x_Flair_norm p_2_x_T1c_norm", ["Flair", "T1c"]),
        ("p_1_t1 p_1_t1-gd p_2_t1 p_2_t1-gd", ["image", "gd"]),
        ("p_1 p_1_t2 p_2 p_2_t2", ["image", "t2"]),
    ],
)
def test_channels_are_called_by_what_sets_them_apart_in_the_order_of_their_files(tmp_path, images, expected):
    found = in_folders(tmp_path, images, "p_1_seg p_2_seg")
    assert channels(found) == expected
    assert [name for case in found.cases for name in names(found)[case.id][:-1]] == images.split()


def test_a_channel_that_one_case_lacks_or_has_alone_is_named(tmp_path):
    images = "p_1_flair p_1_t1 p_2_flair p_2_t1 p_3_flair p_4_flair p_4_t2"
    found = in_folders(tmp_path, images, "p_1_seg p_2_seg p_3_seg p_4_seg")
    assert channels(found) == ["flair", "t1"]
    remedy = "add, rename or move files; expected are flair, t1"
    assert problems(found) == [
        f"p_3: lacks the image of channel t1; {remedy}",
        f"p_4: lacks the image of channel t1; {remedy}",
        f"p_4: images/p_4_t2.nii.gz: its name says channel t2, which is not expected; {remedy}",
    ]


def test_images_without_mask_do_not_change_the_channels_of_the_others(tmp_path):
    found = in_folders(tmp_path, "p_1_a p_1_b p_2_a p_2_b p_3_a p_3_b", "p_1_seg p_2_seg")
    assert channels(found) == ["a", "b"]
    assert [problem.case for problem in found.findings] == ["p_3_a", "p_3_b"]
    assert {problem.what for problem in found.findings} == {"has no mask"}


def test_endings_that_differ_in_every_case_are_no_channels(tmp_path):
    found = in_folders(tmp_path, "p1_20190304 p2_20200506", "p1 p2")
    assert names(found) == {"p1": ["p1_20190304", "p1"], "p2": ["p2_20200506", "p2"]}
    assert found.channels is None
    assert problems(found) == []


def test_a_number_is_not_the_start_of_a_longer_one(tmp_path):
    found = in_folders(tmp_path, "p_1_ct p_10_ct p_2_ct", "p_1_seg p_2_seg")
    assert names(found) == {"p_1": ["p_1_ct", "p_1_seg"], "p_2": ["p_2_ct", "p_2_seg"]}
    assert [problem.case for problem in found.findings] == ["p_10_ct"]


def test_folders_with_a_single_case(tmp_path):
    found = in_folders(tmp_path, "sub-spleen2_ct", "sub-spleen2_ct_seg-manual")
    assert names(found) == {"sub-spleen2_ct": ["sub-spleen2_ct", "sub-spleen2_ct_seg-manual"]}
    found = in_folders(tmp_path / "two", "B_01_flair B_01_t1", "B_01_seg")
    assert names(found) == {"B_01": ["B_01_flair", "B_01_t1", "B_01_seg"]}


def test_folders_whose_names_share_only_their_last_part(tmp_path):
    found = in_folders(tmp_path, "volume-1 volume-10 volume-2", "segmentation-10 segmentation-1 segmentation-3")
    assert names(found) == {"volume-1": ["volume-1", "segmentation-1"], "volume-10": ["volume-10", "segmentation-10"]}
    assert [(problem.case, problem.what) for problem in found.findings] == [
        ("segmentation-3", "has no image"),
        ("volume-2", "has no mask"),
    ]


def test_doubled_masks_in_folders_are_named(tmp_path):
    found = in_folders(tmp_path, "a b", "a a.nrrd b")
    assert problems(found) == ["a: labels/a.*: 2 masks have this name; keep one of them"]


def test_names_that_do_not_pair_are_all_listed(tmp_path):
    found = in_folders(tmp_path, "example_ct example_mr_sm", "example_seg other")
    assert found.cases == ()
    assert [(problem.case, problem.what) for problem in found.findings] == [
        ("example_ct", "has no mask"),
        ("example_mr_sm", "has no mask"),
        ("example_seg", "has no image"),
        ("other", "has no image"),
    ]


def test_capitals_and_separators_are_not_what_sets_cases_apart():
    images = [Path("ProstateX-0000_4-t2.nii.gz"), Path("ProstateX-0000_7-adc.nii.gz"), Path("Prostatex_0000.nii.gz")]
    found = pairing.pair(images, [Path("Prostatex_0000_lab.nii.gz")])
    assert found.cases == ["Prostatex_0000"]
    assert {image.case for image in found.images} == {"Prostatex_0000"}
    assert sorted(image.channel for image in found.images) == ["", "_4-t2", "_7-adc"]
