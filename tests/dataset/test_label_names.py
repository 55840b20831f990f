"""Label names from small tables of every kind, each wrong line with its message, and what they do in a data set."""

import re

import numpy as np
import pytest

from builders.data import blocks_case, touch_files, write_nifti
from segfw.base.records import UserError
from segfw.dataset.label_names import read_label_table
from segfw.dataset.layouts import find_dataset
from segfw.images.mask_colours import values_of_colour
from segfw.planning.fingerprint import DataProblems, scan_dataset
from segfw.verbs.check import check_dataset
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

ITK_SNAP = """################################################
# ITK-SnAP Label Description File
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
    0     0    0    0        0  0  0    "Clear Label"
    3   255    0    0        1  1  1    "left kidney"
    7     0  255    0        1  1  1    "liver"
"""
SLICER = """# Color table file /tmp/Organs.ctbl
# 3 values
0 Background 0 0 0 0
3 left_kidney 185 102 83 255
7 liver 221 130 101 255
"""
BIDS = (
    "index\tname\tabbreviation\tcolor\n0\tBackground\tBG\t#000000\n3\tleft kidney\tK\t#ff0000\n7\tliver\tL\t#00ff00\n"
)
EXPECTED = ((0, 3, 7), ("background", "left kidney", "liver"))


def table(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_label_table(path)


@pytest.mark.parametrize(
    "name, text",
    [
        ("l.csv", "value,name\n3,left kidney\n7,liver\n"),
        ("l.csv", "Name;Value\nleft kidney;3\nliver;7\n"),
        ("l.tsv", "index\tname\n0\tbackground\n3\tleft kidney\n7\tliver\n"),
        ("l.csv", "value,name,r,g,b\n3,left kidney,255,0,0\n7,liver,0,255,0\n"),
        ("l.csv", 'LabelValue,Name,Color_R,Color_G,Color_B,Color_A\n3,"left kidney",1,2,3,255\n7,liver,3,4,5,255\n'),
        ("l.txt", "3 left kidney\n7 liver\n"),
        ("l.txt", "3,left kidney\r\n\r\n# organs\r\n7,liver\r\n"),
        ("l.txt", "3: left kidney\n7: liver"),
        ("l.json", '{"left kidney": 3, "liver": 7}'),
        ("l.json", '{"3": "left kidney", "7": "liver"}'),
        ("dataset.json", '{"labels": {"background": 0, "left kidney": 3, "liver": 7}, "channel_names": {"0": "CT"}}'),
        ("l.json", '{"names": ["background", "left kidney", "liver"], "values": [0, 3, 7]}'),
        ("itk.txt", ITK_SNAP),
        ("a_dseg.tsv", BIDS),
        ("l.csv", "value,name\n3,left kidney\n7,liver\n".encode("utf-16")),
    ],
)
def test_every_kind_of_table(tmp_path, name, text):
    found = table(tmp_path, name, text).labels
    assert (found.values, found.names) == EXPECTED


def test_a_colour_table_of_slicer(tmp_path):
    found = table(tmp_path, "organs.ctbl", SLICER)
    assert (found.labels.values, found.labels.names) == ((0, 3, 7), ("background", "left_kidney", "liver"))
    red_brown = values_of_colour((185, 102, 83))[0]
    assert dict(found.by_colour)[red_brown] == 3


def test_colours_alone_number_the_labels_by_their_order(tmp_path):
    found = table(tmp_path, "l.csv", "name,r,g,b\nbackground,255,255,255\nvessel,255,0,0\ncell,128,128,128\n")
    assert (found.labels.values, found.labels.names) == ((0, 1, 2), ("background", "vessel", "cell"))
    red = (1 << 24) + 255 * 256 * 256
    grey = (1 << 24) + 128 * (256 * 256 + 256 + 1)
    white = (1 << 25) - 1
    black = 1 << 24
    # A picture in which all is grey is read by its brightness.
    assert dict(found.by_colour) == {white: 0, 255: 0, black: 0, 0: 0, red: 1, grey: 2, 128: 2}


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("l.csv", "", "is empty; write a header value,name and a line such as 1,liver for each label"),
        ("l.csv", "value,name\n", "has a header but no line below it; write a header value,name and a line such as"),
        (
            "l.csv",
            "wert,ding\n1,a",
            "its first line is 'wert,ding'; write a header value,name and a line such as 1,liver",
        ),
        ("l.csv", "value,name\n1,a\nx,b", "line 3 has the value 'x'; it must be an integer, as in the masks"),
        ("l.csv", "value,name\n1.5,a", "line 2 has the value '1.5'; it must be an integer, as in the masks"),
        ("l.csv", "value,name\n1,", "line 2 has no name; fill it in"),
        ("l.csv", "value,name\n1,a\n\n1,b", "lines 2 and 4 have the same value, 1; keep one of them"),
        ("l.csv", "value,name\n1,a\n2,a", "lines 2 and 3 have the same name, a; keep one of them"),
        ("l.csv", "value,name\n0,bg", "names the background alone; add a line for each structure"),
        ("l.csv", "name,r,g,b\na,1,2", "line 2 has the colour '1,2,'; write three whole numbers from 0 to 255 for red"),
        ("l.csv", "name,r,g,b\na,1,2,256", "line 2 has the colour '1,2,256'; write three whole numbers from 0 to 255"),
        ("l.csv", "name,r,g,b\na,,,", "line 2 (a) has no colour; write three numbers from 0 to 255"),
        ("l.csv", "name,r,g,b\na,1,2,3\nb,1,2,3", "lines 2 and 3 have the same colour, 1,2,3; keep one of them"),
        ("l.txt", "1 a\nb", "line 2 is 'b'; write a value and a name, such as 1,liver"),
        ("l.txt", ITK_SNAP + "8 1 2 3", "line 8 is '8 1 2 3'; write it as 1 255 0 0 1 1 1 \"liver\", as ITK-SNAP does"),
        ("l.ctbl", SLICER + "8", "line 6 is '8'; write it as 1 liver 221 130 101 255, as 3D Slicer does"),
        ("l.json", "[1]", 'must be a JSON object of names and values; write for example {"liver": 1}'),
        ("l.json", '{"a": "b"}', "label 'a' has value 'b'; it must be an integer"),
        ("l.csv", "value,name\n1,é".encode("latin-1"), "is not text in UTF-8 or UTF-16"),
    ],
)
def test_wrong_tables_are_told_with_file_line_and_value(tmp_path, name, text, words):
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / name}: {words}")) as caught:
        table(tmp_path, name, text)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(
        UserError, match=r"none\.csv: no such file; give a table of label names, with a header value,name"
    ):
        read_label_table(tmp_path / "none.csv")


# In a data set


def write_pairs(raw, number=3):
    """Masks of the values 3 and 7, in a folder each patient."""
    for index in range(number):
        image, mask = blocks_case(index)
        write_nifti(raw / f"P{index}" / "image.nii.gz", image)
        write_nifti(raw / f"P{index}" / "mask.nii.gz", mask)
    return raw


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "labels.txt"])
def test_a_table_beside_the_folders_is_found(tmp_path, name):
    raw = write_pairs(tmp_path)
    (raw / name).write_text("value\tname\n3\tbright\n7\tdark\n")
    found = find_dataset(raw)
    assert found.labels.names == ("background", "bright", "dark")
    assert found.notes == (f"label names by {name}",)
    assert check_dataset(raw, workers=1).labels[1].name == "dark"


def test_an_option_gives_the_table_to_check_and_plan(tmp_path):
    raw = write_pairs(tmp_path / "raw")
    names = tmp_path / "names.json"
    names.write_text('{"bright": 3, "dark": 7, "never drawn": 9}')
    report = check_dataset(raw, label_names=names, workers=1)
    assert [(label.value, label.name) for label in report.labels] == [(3, "bright"), (7, "dark")]
    assert report.notes == (
        "label names by names.json",
        "names.json names 9 never drawn, which no mask holds: left out",
    )
    labels = scan_dataset(find_dataset(raw, names))[0].labels
    assert (labels.names, labels.values) == (("background", "bright", "dark"), (0, 3, 7))


def test_labels_that_nnunet_declares_stay_though_no_mask_holds_them(tmp_path):
    raw = write_pairs(tmp_path)
    (raw / "labels.json").write_text('{"labels": {"background": 0, "bright": 3, "dark": 7, "never": 9}}')
    assert [label.name for label in check_dataset(raw, workers=1).labels] == ["bright", "dark", "never"]


def test_a_value_without_a_name_is_an_error_as_in_nnunet(tmp_path):
    raw = write_pairs(tmp_path / "raw", 2)
    names = tmp_path / "names.csv"
    names.write_text("value,name\n3,bright\n")
    with pytest.raises(DataProblems) as caught:
        plan_and_preprocess(raw, tmp_path / "work", label_names=names, device="cpu")
    wanted = (
        "P0: P0/mask.nii.gz: holds the label value 7, which names.csv does not list; add it to the table or correct"
    )
    assert wanted in str(caught.value)


def test_several_tables_are_asked_about(tmp_path):
    touch_files(tmp_path, {"images": ["a"], "labels": ["a"]})
    for name in ("labels.csv", "labels.txt"):
        (tmp_path / name).write_text("1 a")
    with pytest.raises(UserError) as caught:
        find_dataset(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: has several tables of label names (labels.csv, labels.txt); keep one, or give it as --label-names"
    )
    assert find_dataset(tmp_path, tmp_path / "labels.txt").labels.names == ("background", "a")


def test_a_table_and_a_dataset_json_that_disagree(tmp_path):
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}}
    touch_files(tmp_path, {"imagesTr": ["a_0000"], "labelsTr": ["a"]}, description)
    (tmp_path / "labels.csv").write_text("value,name\n1,spleen\n")
    with pytest.raises(UserError) as caught:
        find_dataset(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/labels.csv: calls 1 'spleen', but {tmp_path}/dataset.json calls 1 'liver'; "
        "correct one of them, or keep one alone"
    )
    (tmp_path / "labels.csv").write_text("value,name\n1,liver\n")
    assert find_dataset(tmp_path).labels_source == "dataset.json"


def test_the_lookup_table_of_bids(tmp_path):
    for number in "12":
        image, mask = blocks_case(int(number))
        write_nifti(tmp_path / f"sub-{number}/anat/sub-{number}_T1w.nii.gz", image)
        write_nifti(tmp_path / f"derivatives/m/sub-{number}/anat/sub-{number}_dseg.nii.gz", mask.astype(np.uint8))
    (tmp_path / "derivatives" / "m" / "desc-manual_dseg.tsv").write_text(BIDS)
    found = find_dataset(tmp_path)
    assert (found.labels.names, found.labels_source) == (EXPECTED[1], "desc-manual_dseg.tsv")


def test_tables_beside_the_masks_of_bids_count_where_they_say_the_same(tmp_path):
    for number in "12":
        image, mask = blocks_case(int(number))
        anat = tmp_path / f"derivatives/m/sub-{number}/anat"
        write_nifti(tmp_path / f"sub-{number}/anat/sub-{number}_T1w.nii.gz", image)
        write_nifti(anat / f"sub-{number}_desc-draft_dseg.nii.gz", mask.astype(np.uint8))
        (anat / f"sub-{number}_desc-draft_dseg.tsv").write_text(BIDS)
    found = find_dataset(tmp_path)
    assert (found.labels.names, found.labels_source) == (EXPECTED[1], "sub-1_desc-draft_dseg.tsv")
    (anat / "sub-2_desc-draft_dseg.tsv").write_text(BIDS.replace("3", "4"))
    assert find_dataset(tmp_path).labels is None
