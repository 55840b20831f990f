"""Finding the images to predict: files, folders and DICOM series, grouped into cases."""

import os

import pytest

from segfw.base.records import UserError
from segfw.dataset.cases import Channel
from segfw.dataset.new_images import find_images
from segfw.images.formats import read_volume

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
    with pytest.raises(UserError, match="no such file or folder; give one image, or a folder of images"):
        find_images(tmp_path / "nowhere", ONE)
    with pytest.raises(UserError, match=r"holds no image segfw can read \(.nii.gz"):
        find_images(touch(tmp_path, "notes.txt"), ONE)


def test_links_in_a_circle_are_followed_once(tmp_path):
    """Two links to the folder itself were 2^40 folders; a series that two links lead to is a case under each name."""
    touch(tmp_path / "in" / "p1", "1.dcm")
    touch(tmp_path / "in", "p9.nii.gz")
    for name in ("a", "b"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "in")
        (tmp_path / "in" / "p1" / name).symlink_to(tmp_path / "in")
    (tmp_path / "in" / "p2").symlink_to(tmp_path / "in" / "p1")
    assert found(tmp_path / "in", ONE) == {"p1": ["p1"], "p2": ["p2"], "p9": ["p9.nii.gz"]}
    (tmp_path / "in" / "p1" / "deep").mkdir()
    (tmp_path / "in" / "p1" / "deep" / "up").symlink_to(tmp_path / "in" / "p1")
    assert set(found(tmp_path / "in", ONE)) == {"p1", "p2", "p9"}


def test_what_cannot_be_opened_is_a_case_that_fails_and_not_passed_over(tmp_path):
    folder = touch(tmp_path / "in", "p1.nii.gz", "notes.txt")
    (folder / "p2.nii.gz").symlink_to(tmp_path / "annex" / "objects")  # git-annex, DVC
    (folder / "p3").symlink_to("/mnt/unmounted/p3")  # the folder of a series
    (folder / "notes2.txt").symlink_to("nowhere")
    os.mkfifo(folder / "p4.nii.gz")
    touch(folder / "p5.nii.gz", "inside.txt")
    (folder / "p6.mha").symlink_to(folder / "p6.mha")
    touch(folder / "p7", "1.dcm")
    (folder / "p7" / "2.dcm").symlink_to("nowhere.dcm")
    touch(folder / "p8")
    (folder / "p8" / "1.2.840.1").symlink_to("nowhere")
    (folder / "p9").mkdir()
    os.mkfifo(folder / "p9" / "pipe")
    cases = find_images(folder, ONE)
    assert [case.id for case in cases] == [f"p{number}" for number in range(1, 9)]
    wanted = {
        "p2": "is a link to .*annex/objects, which is missing; fetch that file",
        "p3": "is a link to /mnt/unmounted/p3, which is missing; .* or mount its disk",
        "p4": "is no file but a pipe",
        "p5": "is a folder without DICOM files",
        "p6": "is a link to .*p6.mha, which is missing",
        "p7": "has 2.dcm in it, which is a link to nowhere.dcm, which is missing",
        "p8": "has 1.2.840.1 in it, which is a link to nowhere, which is missing",
    }
    for case in cases[1:]:
        with pytest.raises(UserError, match=wanted[case.id]):
            read_volume(case.images[0])
    with pytest.raises(UserError, match="p2.nii.gz: is a link to .*, which is missing; fetch that file"):
        find_images(folder / "p2.nii.gz", ONE)


def test_channels_that_a_model_does_not_have_are_no_patients(tmp_path):
    touch(tmp_path / "a", "P1_0000.nii.gz", "P1_0001.nii.gz", "P2_0000.nii.gz")
    with pytest.raises(UserError, match=r"P1_0000 to P1_0001 look like 2 channels, but the model has 1 channel; give"):
        find_images(tmp_path / "a", ONE)
    touch(tmp_path / "b", *(f"P1_{number:04}.nii.gz" for number in range(3)))
    with pytest.raises(UserError, match=r"P1_0000 to P1_0002 look like 3 channels, but the model has 2 channels; give"):
        find_images(tmp_path / "b", TWO)
    frames = [f"frame_{number:04}.png" for number in range(20)]
    assert len(found(touch(tmp_path / "c", *frames), ONE)) == 20


def test_names_that_would_be_one_channel_of_one_case_are_named(tmp_path):
    touch(tmp_path, "P9_t1.nii.gz", "P9_flair.nii.gz", "P9 t1.nii.gz", "P9 flair.nii.gz")
    with pytest.raises(
        UserError, match=r"P9 flair.nii.gz and P9_flair.nii.gz would both be channel flair of the case P9"
    ):
        find_images(tmp_path, TWO)
