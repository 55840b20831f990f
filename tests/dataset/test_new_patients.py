"""Images to predict that lie in a folder for each patient: cases, channels, what is passed over and what is refused."""

import pytest

from builders.data import touch_files
from segfw.base.records import UserError
from segfw.dataset.cases import Channel
from segfw.dataset.new_images import find_images

ONE, TWO = (Channel(name="CT"),), (Channel(name="T1"), Channel(name="FLAIR"))


def found(raw, folders, channels=ONE):
    touch_files(raw, {name: files.split() for name, files in folders.items()})
    cases = find_images(raw, channels)
    return {
        case.id: [path.relative_to(raw).as_posix().removesuffix(".nii.gz") for path in case.images] for case in cases
    }


def test_masks_are_called_by_the_patient_and_those_that_lie_there_passed_over(tmp_path):
    files = {"P1": "image", "P2": "image mask", "P3": "P3_ct P3_seg Thumbs.db", "__MACOSX/P1": "._image x"}
    assert found(tmp_path, files) == {"P1": ["P1/image"], "P2": ["P2/image"], "P3": ["P3/P3_ct"]}


def test_visits_are_cases(tmp_path):
    files = {"P1/2021": "ct", "P1/2022": "ct", "P2/2021": "ct mask"}
    assert found(tmp_path, files) == {"P1_2021": ["P1/2021/ct"], "P1_2022": ["P1/2022/ct"], "P2_2021": ["P2/2021/ct"]}


def test_channels_by_name_in_the_order_of_the_model_or_by_number(tmp_path):
    files = {"A": "t1 flair", "B": "B_FLAIR_reg B_T1_reg", "C": "C_0001 C_0000"}
    assert found(tmp_path, files, TWO) == {
        "A": ["A/t1", "A/flair"],
        "B": ["B/B_T1_reg", "B/B_FLAIR_reg"],
        "C": ["C/C_0000", "C/C_0001"],
    }


def test_the_image_of_several_that_is_called_like_the_channel(tmp_path):
    assert found(tmp_path, {"A": "CT PET", "B": "ct_thin pet"}) == {"A": ["A/CT"], "B": ["B/ct_thin"]}


def test_series_of_dicom_and_files_in_one_cohort(tmp_path):
    files = {"A/CT": "1.dcm 2.dcm", "B": "image", "C": "1.dcm mask"}
    assert found(tmp_path, files) == {"A": ["A/CT"], "B": ["B/image"], "C": ["C"]}


def test_bids(tmp_path):
    files = {
        "sub-1/anat": "sub-1_T1 sub-1_FLAIR",
        "sub-2/ses-1/anat": "sub-2_ses-1_T1 sub-2_ses-1_FLAIR sub-2_ses-1_dseg",
        "sub-2/ses-1/func": "sub-2_ses-1_task-rest_bold",
    }
    assert found(tmp_path, files, TWO) == {
        "sub-1": ["sub-1/anat/sub-1_T1", "sub-1/anat/sub-1_FLAIR"],
        "sub-2_ses-1": ["sub-2/ses-1/anat/sub-2_ses-1_T1", "sub-2/ses-1/anat/sub-2_ses-1_FLAIR"],
    }


def test_a_folder_without_an_image_is_a_case_that_fails_and_not_passed_over(tmp_path):
    assert found(tmp_path, {"P1": "ct", "P2": "mask", "P3": "notes.txt"}) == {
        "P1": ["P1/ct"],
        "P2": ["P2"],
        "P3": ["P3"],
    }


def test_several_images_that_no_channel_tells_apart(tmp_path):
    with pytest.raises(UserError) as caught:
        found(tmp_path / "a", {"P1": "arterial venous"})
    assert str(caught.value) == (
        f"{tmp_path}/a: P1 has 2 images (P1/arterial.nii.gz, P1/venous.nii.gz), but the model has 1 channel (CT); "
        "leave one image for each, called by its channel"
    )
    with pytest.raises(
        UserError, match=r"P1 has 3 images \(.*\), but the model has 2 channels \(T1, FLAIR\); leave one"
    ):
        found(tmp_path / "b", {"P1": "T1 T1_gd FLAIR"}, TWO)


def test_folders_that_would_be_one_case(tmp_path):
    with pytest.raises(UserError, match="the folders A/B_C and A_B/C would both be the case A_B_C; rename one of them"):
        found(tmp_path, {"A/B_C": "ct", "A/D": "ct", "A_B/C": "ct", "A_B/D": "ct"})
