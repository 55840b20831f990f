"""Finding the images to predict: files, folders and DICOM series, grouped into cases."""

import pytest

from segfw.base.records import UserError
from segfw.dataset.cases import Channel
from segfw.dataset.new_images import find_images

ONE, TWO = (Channel(name="MR"),), (Channel(name="t1"), Channel(name="flair"))


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def found(folder, channels):
    return {case.id: [path.name for path in case.images] for case in find_images(folder, channels)}


def test_plain_and_numbered_names_of_one_channel(tmp_path):
    assert found(touch(tmp_path / "a", "p1.nii.gz", "p2.nii"), ONE) == {"p1": ["p1.nii.gz"], "p2": ["p2.nii"]}
    assert found(touch(tmp_path / "b", "p1_0000.nrrd", "notes.txt"), ONE) == {"p1": ["p1_0000.nrrd"]}


def test_a_name_that_ends_in_a_year_is_a_case_of_its_own(tmp_path):
    names = ("scan_2021.nii.gz", "scan_2022.nii.gz")
    assert found(touch(tmp_path, *names), ONE) == {"scan_2021": [names[0]], "scan_2022": [names[1]]}


def test_channels_by_number_and_by_name(tmp_path):
    numbered = ("p1_0000.nii.gz", "p1_0001.nii.gz", "p2_0000.nii.gz")
    assert found(touch(tmp_path / "a", *numbered), TWO) == {"p1": list(numbered[:2]), "p2": [numbered[2]]}
    named = ("x_flair_1.nii.gz", "x_t1_1.nii.gz")
    cases = list(found(touch(tmp_path / "b", *named), TWO).values())
    assert cases == [["x_t1_1.nii.gz", "x_flair_1.nii.gz"]]  # in the order of the model's channels


def test_a_channel_name_is_a_word_of_its_own(tmp_path):
    channels = (Channel(name="t1"), Channel(name="t1ce"))
    names = ("p1_t1ce.nii.gz", "p1_t1.nii.gz", "p2-t1.nii.gz", "p2-t1ce.nii.gz")
    assert found(touch(tmp_path, *names), channels) == {
        "p1": ["p1_t1.nii.gz", "p1_t1ce.nii.gz"],
        "p2": ["p2-t1.nii.gz", "p2-t1ce.nii.gz"],
    }


def test_a_single_file(tmp_path):
    folder = touch(tmp_path, "p1_0000.nii.gz")
    assert found(folder / "p1_0000.nii.gz", ONE) == {"p1": ["p1_0000.nii.gz"]}


def test_a_series_folder_of_them_and_nested_ones(tmp_path):
    for name in ("p1/t2", "p2/t2", "p2/deeper/t2"):
        touch(tmp_path / "nested" / name, "1.dcm", "2.dcm", "notes.txt")
    touch(tmp_path / "flat" / "p1_0000", "1.dcm")
    touch(tmp_path / "flat" / "p1_0001", "1.dcm")
    touch(tmp_path / "flat" / "empty")
    assert found(tmp_path / "nested" / "p1" / "t2", ONE) == {"t2": ["t2"]}
    assert found(tmp_path / "nested" / "p1", ONE) == {"t2": ["t2"]}
    assert found(tmp_path / "nested", ONE) == {"p1_t2": ["t2"], "p2_t2": ["t2"], "p2_deeper_t2": ["t2"]}
    assert found(tmp_path / "flat", TWO) == {"p1": ["p1_0000", "p1_0001"]}
    assert found(tmp_path / "flat" / "p1_0000", ONE) == {"p1": ["p1_0000"]}
    touch(tmp_path / "by_name" / "p1", "x")
    for name in ("p1/t1", "p1/flair"):
        touch(tmp_path / "by_name" / name, "1.dcm")
        touch(tmp_path / "by_name" / name.replace("p1", "p2"), "1.dcm")
    assert found(tmp_path / "by_name", TWO) == {"p1": ["t1", "flair"], "p2": ["t1", "flair"]}


def test_series_that_cannot_be_told_apart_or_lie_among_files(tmp_path):
    touch(tmp_path / "a", "p1.nii", "p1.nii.gz")
    with pytest.raises(UserError, match=r"p1.nii and p1.nii.gz would both be the case p1; rename or move one"):
        find_images(tmp_path / "a", ONE)
    touch(tmp_path / "b", "1.dcm", "p1.nii")
    with pytest.raises(UserError, match="holds DICOM files and p1.nii beside them; give each series a folder"):
        find_images(tmp_path / "b", ONE)
    with pytest.raises(UserError, match="1.dcm: is one file of a DICOM series; give the folder"):
        find_images(tmp_path / "b" / "1.dcm", ONE)


def test_nothing_to_predict(tmp_path):
    with pytest.raises(UserError, match="no such file or folder; give the images to predict"):
        find_images(tmp_path / "nowhere", ONE)
    with pytest.raises(UserError, match=r"holds no image segfw can read \(.nii.gz"):
        find_images(touch(tmp_path, "notes.txt"), ONE)
