"""Finding cases in described and in plain folders, and every mistake in the files or in dataset.json said in words."""

import json
from pathlib import Path
from unicodedata import normalize

import pytest

from builders.data import touch_files
from builders.found import channels, in_folders, names, problems
from segfw.base.records import UserError
from segfw.dataset.cases import FoundDataset
from segfw.dataset.dataset_json import read_labels
from segfw.dataset.image_files import group_channels
from segfw.dataset.layouts import find_dataset

NNUNET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "tumour": 1}}
TWO_CHANNELS = NNUNET | {"channel_names": {"0": "CT", "1": "PET"}}


def in_nnunet(raw: Path, images: str, labels: str, description: object = NNUNET) -> FoundDataset:
    return find_dataset(touch_files(raw, {"imagesTr": images.split(), "labelsTr": labels.split()}, description))


# nnU-Net raw


def test_nnunet_raw(tmp_path):
    found = in_nnunet(tmp_path, "b_0000 b_0001 a_1_0000 a_1_0001 .hidden_0000 notes.txt", "b a_1", TWO_CHANNELS)
    assert found.layout == "nnunet"
    assert names(found) == {"a_1": ["a_1_0000", "a_1_0001", "a_1"], "b": ["b_0000", "b_0001", "b"]}
    assert channels(found) == ["CT", "PET"]
    assert (found.labels.names, found.labels.values) == (("background", "tumour"), (0, 1))
    assert problems(found) == []


def test_folders_of_dicom_are_images(tmp_path):
    touch_files(tmp_path / "n", {"imagesTr/a_0000": ["1.dcm"], "imagesTr/none": ["x.txt"]})
    assert names(in_nnunet(tmp_path / "n", "b_0000", "a b")) == {"a": ["a_0000", "a"], "b": ["b_0000", "b"]}
    touch_files(tmp_path / "f", {"images/t2 p1": ["1.dcm", "2.dcm"], "images/t2 p2": ["1.dcm"]})
    assert names(in_folders(tmp_path / "f", "", "seg_p1 seg_p2")) == {
        "t2 p1": ["t2 p1", "seg_p1"],
        "t2 p2": ["t2 p2", "seg_p2"],
    }


def test_nnunet_channels_are_in_the_order_of_their_numbers(tmp_path):
    description = NNUNET | {"channel_names": {str(index): f"c{index}" for index in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)}}
    assert channels(in_nnunet(tmp_path, "a_0000", "a", description)) == [f"c{index}" for index in range(11)]


def test_nnunet_names_that_look_numbered_or_are_not(tmp_path):
    found = in_nnunet(tmp_path, "scan_2020 scan_2021_0000 plain", "scan_2020 scan_2021 plain")
    assert names(found) == {
        "plain": ["plain", "plain"],
        "scan_2020": ["scan_2020", "scan_2020"],
        "scan_2021": ["scan_2021_0000", "scan_2021"],
    }
    assert problems(found) == []


def test_one_stray_file_does_not_confuse_the_others(tmp_path):
    found = in_nnunet(tmp_path, "a_0000 b_0000 stray", "a b")
    assert list(names(found)) == ["a", "b"]
    assert problems(found) == ["stray: imagesTr/stray.nii.gz: has no mask; add the mask or move the image"]


def test_missing_files_are_named(tmp_path):
    found = in_nnunet(tmp_path, "a_0000 b_0000", "b c")
    assert problems(found) == [
        "a: imagesTr/a_0000.nii.gz: has no mask; add the mask or move the image",
        "c: labelsTr/c.nii.gz: has no image; add the image or move the mask",
    ]


def test_missing_extra_and_misnumbered_channels_are_named(tmp_path):
    images = "ok_0000 ok_0001 gap_0000 gap_0002 late_0001 more_0000 more_0001 more_0002"
    found = in_nnunet(tmp_path, images, "ok gap late more", TWO_CHANNELS)
    remedy = "add, rename or move files; expected are 0000, 0001"
    assert problems(found) == [
        f"gap: lacks the image of channel 0001; {remedy}",
        f"gap: imagesTr/gap_0002.nii.gz: its name says channel 0002, which is not expected; {remedy}",
        f"late: lacks the image of channel 0000; {remedy}",
        f"more: imagesTr/more_0002.nii.gz: its name says channel 0002, which is not expected; {remedy}",
    ]


def test_the_same_name_with_two_endings_is_named(tmp_path):
    found = in_nnunet(tmp_path, "a_0000 a_0000.nrrd b_0000", "a b b.mha")
    assert problems(found) == [
        "b: labelsTr/b.*: 2 masks have this name; keep one of them",
        "a: imagesTr/a_0000.*: 2 images have this name with different endings; keep one of them",
    ]


def test_channel_names_make_it_nnunet_even_if_training_is_listed(tmp_path):
    found = in_nnunet(tmp_path, "a_0000", "a", NNUNET | {"training": [{"image": "a", "label": "a"}]})
    assert found.layout == "nnunet"


# Medical Segmentation Decathlon

DECATHLON = {"name": "BRATS", "modality": {"0": "FLAIR", "1": "T1"}, "labels": {"0": "background", "1": "a", "2": "b"}}


def in_decathlon(raw: Path, images: str, labels: str, listed: list[str], **changes) -> FoundDataset:
    training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in listed]
    description = DECATHLON | {"training": training, "test": ["./imagesTs/x.nii.gz"]} | changes
    return find_dataset(touch_files(raw, {"imagesTr": images.split(), "labelsTr": labels.split()}, description))


def test_decathlon(tmp_path):
    found = in_decathlon(tmp_path, "B_2 B_1 ._B_1", "B_1 B_2 ._B_1", ["B_2", "B_1"])
    assert (found.layout, found.name) == ("decathlon", "BRATS")
    assert names(found) == {"B_1": ["B_1", "B_1"], "B_2": ["B_2", "B_2"]}
    assert channels(found) == ["FLAIR", "T1"]
    assert (found.labels.names, found.labels.values) == (("background", "a", "b"), (0, 1, 2))
    assert problems(found) == []


def test_decathlon_entries_that_are_doubled_missing_or_unlisted_are_named(tmp_path):
    found = in_decathlon(tmp_path, "a nomask new", "a noimage", ["a", "a", "noimage", "nomask"])
    assert [case.id for case in found.cases] == ["a"]
    missing = "is listed but missing; add the file or remove the entry from dataset.json"
    assert problems(found) == [
        f"noimage: {tmp_path}/imagesTr/noimage.nii.gz: {missing}",
        f"nomask: {tmp_path}/labelsTr/nomask.nii.gz: {missing}",
        "a: dataset.json: is listed 2 times; keep one entry",
        "warning: new: imagesTr/new.nii.gz: is not listed in dataset.json and is not used; list it, or move it away",
    ]


@pytest.mark.parametrize(
    "training", ["all", {"a": "b"}, ["imagesTr/a.nii.gz"], [{"image": "a"}], [{"image": 1, "label": 2}]]
)
def test_decathlon_entries_that_are_no_pairs_are_refused(tmp_path, training):
    with pytest.raises(UserError, match=r"dataset\.json: .*'training'.*'image'.*'label'"):
        in_decathlon(tmp_path, "a", "a", [], training=training)


# Two plain folders (their pairing is tested in test_pairing.py)


def test_a_dataset_json_beside_two_folders_is_used(tmp_path):
    found = in_folders(tmp_path, "a", "a", {"name": "N", "labels": {"x": 4}, "channel_names": {"0": "CT"}})
    assert (found.name, found.labels.values, channels(found)) == ("N", (0, 4), ["CT"])


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"labels: holds no image segfw can read \(\.nii\.gz, "):
        in_folders(tmp_path, "a", "notes.txt")


def test_a_folder_of_no_known_layout_says_what_is_there_and_what_is_expected(tmp_path):
    with pytest.raises(UserError, match=r"none: no such folder; give the folder that holds the images and masks"):
        find_dataset(tmp_path / "none")
    touch_files(tmp_path, {"imagesTr": ["a"], "labelsTr": ["a"]})
    with pytest.raises(UserError, match=r"holds imagesTr/ and labelsTr/ but no dataset\.json, .*; add it, or call the"):
        find_dataset(tmp_path)
    touch_files(tmp_path / "other", {"P1": ["ct.nii.gz", "tumour.nii.gz"], "P2": ["ct.nii.gz"]})
    with pytest.raises(UserError) as caught:
        find_dataset(tmp_path / "other")
    start = f"{tmp_path}/other: holds P1, P2 (in P1: ct.nii.gz, tumour.nii.gz), which is no layout that segfw reads; "
    assert str(caught.value).startswith(start + "expected images/ and labels/, or ")
    for looks in ("images/ and labels/", "dataset.json (nnU-Net)", "(BIDS)", "a folder for each patient", "P1_img"):
        assert looks in str(caught.value)


# dataset.json


def labels_of(tmp_path: Path, labels: object) -> tuple[tuple[str, ...], tuple[int, ...]]:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": labels}))
    read = read_labels(path)
    return read.names, read.values


@pytest.mark.parametrize(
    "labels, expected",
    [
        ({"background": 0, "b": 2, "a": 1}, (("background", "b", "a"), (0, 2, 1))),
        ({"tumour": 5}, (("background", "tumour"), (0, 5))),
        ({"0": "air", "7": "x", "-3": "y"}, (("background", "x", "y"), (0, 7, -3))),
        ({"background": 255, "vessel": 0}, (("background", "vessel"), (255, 0))),
        ({"background": 0, "a": "4"}, (("background", "a"), (0, 4))),
    ],
)
def test_labels_of_either_kind_and_any_value(tmp_path, labels, expected):
    assert labels_of(tmp_path, labels) == expected


@pytest.mark.parametrize(
    "labels, words",
    [
        (None, "field 'labels' is missing or no object; write for example"),
        (["a", "b"], "field 'labels' is missing or no object; write for example"),
        ({"background": 0}, "at least the background and one label"),
        ({"background": 0, "a": 1.5}, "label 'a' has value 1.5; it must be an integer"),
        ({"background": 0, "a": None}, "label 'a' has value None; it must be an integer"),
        ({"background": 0, "a": True}, "label 'a' has value True; it must be an integer"),
        ({"background": 0, "a": 1, "b": 1}, r"values \(0, 1, 1\) are not distinct"),
        ({"background": 0, "a": 0, "b": 1}, r"values \(0, 0, 1\) are not distinct"),
        ({"0": "background", "1": "a", "2": "a"}, r"names \('background', 'a', 'a'\) are not distinct"),
        ({"background": 0, "a": 1, "ignore": "x"}, "label 'ignore' has value 'x'; it must be an integer"),
        (
            {"background": 0, "a": 1, "ignore": [2, 3]},
            r"label 'ignore' has the values \[2, 3\]; it must be one integer",
        ),
        ({"background": 0, "a": 1, "ignore": 1}, "the ignore label has value 1, which is a label too"),
        ({"background": 0, "ignore": 1}, "at least the background and one label"),
        ({"background": [0, 3], "a": 1}, r"label 'background' has the values \[0, 3\]; it must be one integer"),
        ({"background": 0, "whole": [1, "x"]}, "label 'whole' has value 'x'; it must be an integer"),
        ({"background": 0, "whole": [], "a": 1}, "region 'whole' holds no label"),
    ],
)
def test_wrong_labels_are_refused_with_the_value(tmp_path, labels, words):
    with pytest.raises(UserError, match=rf"dataset\.json: .*{words}"):
        labels_of(tmp_path, labels)


@pytest.mark.parametrize(
    "text, words",
    [
        ('{"labels": ', "is not readable JSON"),
        ("[1]", "must be a JSON object with 'labels' and 'channel_names' or 'modality'"),
        ('{"labels": {"a": 1}}', "field 'channel_names' is missing or no object"),
        ('{"labels": {"a": 1}, "channel_names": ["CT"]}', "field 'channel_names' is missing or no object"),
        ('{"labels": {"a": 1}, "channel_names": {"CT": "0"}}', "keys of 'channel_names' must be numbers"),
        ('{"channel_names": {"0": "CT"}}', "field 'labels' is missing or no object"),
    ],
)
def test_a_broken_dataset_json_is_named(tmp_path, text, words):
    touch_files(tmp_path, {"imagesTr": ["a_0000"], "labelsTr": ["a"]})
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(UserError, match=rf"dataset\.json: {words}"):
        find_dataset(tmp_path)


@pytest.mark.parametrize(
    "files, channel_count, expected",
    [
        ("a_0000 a_0001 b_0000 b_0001", 2, {"a": 2, "b": 2}),
        ("a_0000 b_0000", 1, {"a": 1, "b": 1}),
        ("a b", 1, {"a": 1, "b": 1}),
        ("scan_0000 scan_0001", 1, {"scan_0000": 1, "scan_0001": 1}),  # two cases: there is one channel only
        ("scan_2021", 1, {"scan_2021": 1}),
        ("a_0000 b scan_2021 t_0000 t_0001", 1, {"a": 1, "b": 1, "scan_2021": 1, "t_0000": 1, "t_0001": 1}),
    ],
)
def test_files_to_predict_are_grouped_by_case(files, channel_count, expected):
    groups = group_channels([Path(f"{name}.nii.gz") for name in files.split()], channel_count)
    assert {case: len(paths) for case, paths in groups.items()} == expected


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name, layout, cases, channels_found",
    [
        ("hippocampus", "nnunet", 208, 1),
        ("cardiac_cine", "folders", 40, 1),
        ("head_neck_ct", "folders", 24, 1),
        ("brain_tumour_2channel", "folders", 2, 2),
        ("brain_slices_2d_many_labels", "folders", 20, 1),
        ("spleen_ct_one_case", "folders", 1, 1),
    ],
)
def test_real_data_sets_are_found_whole(real_data, name, layout, cases, channels_found):
    found = find_dataset(real_data / name)
    assert (found.layout, len(found.cases), problems(found)) == (layout, cases, [])
    assert {len(case.images) for case in found.cases} == {channels_found}
    if channels_found > 1:
        assert channels(found) == ["Flair", "T1c"]


@pytest.mark.real_data
def test_real_files_that_do_not_pair_are_listed(real_data):
    found = find_dataset(real_data / "torso_ct_100_labels")
    files = sorted(f"{part}/{path.name}" for part in ("images", "labels") for path in (found.root / part).iterdir())
    assert sorted(problem.file for problem in found.findings) == files


# nnU-Net's field 'dataset'


def listed(raw: Path, entries: dict, *, files: dict[str, list[str]], **more: object) -> FoundDataset:
    return find_dataset(touch_files(raw, files, NNUNET | {"dataset": entries} | more))


def entry(image: str, label: str) -> dict:
    return {"images": [f"{image}.nii.gz"], "label": f"{label}.nii.gz"}


def test_the_field_dataset_says_which_images_and_masks(tmp_path):
    """nnU-Net reads nothing else: 2 cases of labelsTr_v2 here, though labelsTr has masks of 3."""
    files = {"imagesTr": ["a_0000", "b_0000", "c_0000"], "labelsTr": ["a", "b", "c"], "labelsTr_v2": ["a", "b"]}
    entries = {name: entry(f"imagesTr/{name}_0000", f"labelsTr_v2/{name}") for name in "ba"}
    found = listed(tmp_path, entries, files=files)
    assert found.layout == "nnunet"
    assert names(found) == {"a": ["a_0000", "a"], "b": ["b_0000", "b"]}
    assert {case.label.parent.name for case in found.cases} == {"labelsTr_v2"}
    assert [finding.kind for finding in found.findings] == ["not-listed"]
    assert found.notes == ("cases by the field 'dataset' of dataset.json",)


def test_the_field_dataset_needs_no_folder_of_a_fixed_name(tmp_path):
    far = tmp_path / "far"
    touch_files(far, {".": ["m"]})
    entries = {
        "x": {"images": ["elsewhere/i0.nii.gz", "elsewhere/i1.nii.gz"], "label": str(far / "m.nii.gz")},
        "y": {"images": [".\\elsewhere\\i2.nii.gz"], "label": "elsewhere\\s2.nii.gz"},
        "z": {"images": ["elsewhere/i0.nii.gz"], "label": "elsewhere/none.nii.gz"},
        "w": {"images": ["elsewhere/i0.nii.gz"] * 3, "label": "elsewhere/s2.nii.gz"},
    }
    files = {"elsewhere": ["i0", "i1", "i2", "s2"], "images": ["i"], "labels": ["i"]}
    found = listed(tmp_path / "raw", entries, files=files, channel_names={"0": "CT", "1": "PET"})
    assert names(found) == {"x": ["i0", "i1", "m"], "y": ["i2", "s2"]}
    errors = [(finding.case, finding.kind, Path(finding.file).name) for finding in found.findings[:2]]
    assert errors == [("w", "unexpected-channel", "dataset.json"), ("z", "missing-file", "none.nii.gz")]


def test_a_field_training_that_says_otherwise_gets_a_note(tmp_path):
    entries = {name: entry(f"imagesTr/{name}_0000", f"labelsTr/{name}") for name in "ab"}
    files = {"imagesTr": ["a_0000", "b_0000"], "labelsTr": ["a", "b"]}
    same = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "ab"]
    assert len(listed(tmp_path / "a", entries, files=files, training=same).notes) == 1
    other = [*same[:1], {"image": "./imagesTr/c.nii.gz", "label": "./labelsTr/c.nii.gz"}]
    note = listed(tmp_path / "b", entries, files=files, training=other).notes[1]
    assert note.startswith("its field 'training' lists 2 masks, of which 1 are used: 'dataset' in dataset.json counts")


@pytest.mark.parametrize(
    "wrong", [{"images": "a.nii.gz", "label": "b"}, {"images": []}, "a", {"images": [1], "label": ""}]
)
def test_an_entry_of_the_field_dataset_that_is_none(tmp_path, wrong):
    with pytest.raises(
        UserError, match=r"dataset.json: the entry 'a' of 'dataset' must have 'images', a list of files"
    ):
        listed(tmp_path, {"a": wrong}, files={"imagesTr": ["a_0000"]})


# Lists of other programs

V1 = {"modality": {"0": "MRI", "1": "T2"}, "labels": {"0": "background", "1": "a"}}


def test_folders_of_nnunet_v1_whose_list_leaves_out_the_channels(tmp_path):
    training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "abc"]
    files = {"imagesTr": ["a_0000", "a_0001", "b_0000", "b_0001", "c_0000"], "labelsTr": ["a", "b", "c"]}
    found = find_dataset(touch_files(tmp_path, files, V1 | {"training": training}))
    assert names(found) == {"a": ["a_0000", "a_0001", "a"], "b": ["b_0000", "b_0001", "b"]}
    assert [Path(finding.file).name for finding in found.findings] == ["c_0001.nii.gz"]


def test_a_list_that_was_written_on_windows(tmp_path):
    training = [{"image": f".\\imagesTr\\{name}.nii.gz", "label": f"labelsTr\\{name}.nii.gz"} for name in "ab"]
    files = {"imagesTr": ["a", "b"], "labelsTr": ["a", "b"]}
    found = find_dataset(touch_files(tmp_path, files, V1 | {"training": training}))
    assert names(found) == {"a": ["a", "a"], "b": ["b", "b"]}
    assert problems(found) == []


def test_a_description_that_is_a_link_to_nothing_is_no_missing_one(tmp_path):
    touch_files(tmp_path, {"images": ["a"], "labels": ["a"]})
    (tmp_path / "dataset.json").symlink_to("annex")
    with pytest.raises(UserError, match=r"dataset.json: is a link to annex, which is missing; fetch that file"):
        find_dataset(tmp_path)


@pytest.mark.parametrize("on_disk, in_list", [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_list_with_accents_in_another_form_than_the_files(tmp_path, on_disk, in_list):
    """macOS writes é as two characters, Windows and Linux as one; in folders both pair, and so they do in lists."""
    stems = ("Région", "Hüfte")
    files = [normalize(on_disk, stem) for stem in stems]
    listed_names = [normalize(in_list, stem) for stem in stems]
    assert files != listed_names
    training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in listed_names]
    found = find_dataset(
        touch_files(tmp_path / "a", {"imagesTr": files, "labelsTr": files}, V1 | {"training": training})
    )
    assert ([case.id for case in found.cases], problems(found)) == (["Hüfte", "Région"], [])
    entries = {name: entry(f"Bilder/{name}", f"Masken/{name}") for name in listed_names}
    found = listed(tmp_path / "b", entries, files={"Bilder": files, "Masken": files})
    assert (len(found.cases), problems(found)) == (2, [])
