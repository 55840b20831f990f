"""One folder a patient: images and masks by their names, visits, channels, and what is refused or left over."""

import pytest

from builders.data import touch_files
from builders.found import channels, names, problems
from segfw.base.records import UserError
from segfw.dataset.layouts import find_dataset
from segfw.dataset.patients import read_groups


def find(raw, folders):
    return find_dataset(touch_files(raw, {name: files.split() for name, files in folders.items()}))


MASKS = "mask seg Segmentation label labels gt contour RTMASK roi_1 ground_truth segmentation-manual P_mask CT_seg"


@pytest.mark.parametrize("mask", MASKS.split())
def test_any_usual_word_for_the_mask(tmp_path, mask):
    found = find(tmp_path, {"A": f"image {mask}", "B": f"image {mask}"})
    assert found.layout == "patient folders"
    assert names(found) == {"A": ["image", mask], "B": ["image", mask]}
    assert found.paired == f"A: A/image.nii.gz -> A/{mask}.nii.gz"
    assert (found.channels, found.labels, problems(found)) == (None, None, [])


def test_several_channels_are_called_by_their_files(tmp_path):
    found = find(tmp_path, {"A": "T1 T2 FLAIR mask", "B": "t1 t2 flair mask", "C": "T1 T2 FLAIR mask"})
    assert channels(found) == ["FLAIR", "T1", "T2"]
    assert names(found)["B"] == ["flair", "t1", "t2", "mask"]
    assert found.notes == ("channels by file name: FLAIR, T1, T2",)


def test_names_that_repeat_the_patient_as_in_brats(tmp_path):
    files = {
        f"BraTS_{number:03}": " ".join(f"BraTS_{number:03}_{part}" for part in ("t1", "t1ce", "flair", "seg"))
        for number in (1, 2)
    }
    found = find(tmp_path, files)
    assert channels(found) == ["flair", "t1", "t1ce"]
    assert names(found)["BraTS_002"] == [f"BraTS_002_{part}" for part in ("flair", "t1", "t1ce", "seg")]
    assert problems(found) == []


def test_a_single_image_may_have_any_name(tmp_path):
    found = find(tmp_path, {"A": "A_20190304 mask", "B": "B_20200506 seg", "C": "scan label"})
    assert names(found) == {"A": ["A_20190304", "mask"], "B": ["B_20200506", "seg"], "C": ["scan", "label"]}
    assert (found.channels, problems(found)) == (None, [])


def test_a_word_for_a_mask_in_the_patients_name_says_nothing(tmp_path):
    found = find(tmp_path, {"Label_01": "Label_01_img Label_01_seg", "Label_02": "Label_02_img Label_02_seg"})
    assert names(found)["Label_02"] == ["Label_02_img", "Label_02_seg"]


def test_visits_are_cases_of_one_patient(tmp_path):
    parts = {"A/2019-01-02": "ct mask", "A/2020-03-04": "ct mask", "B/pre": "ct mask", "B/post": "ct mask"}
    found = find(tmp_path, parts)
    assert names(found).keys() == {"A_2019-01-02", "A_2020-03-04", "B_pre", "B_post"}
    ids = [case.id for case in found.cases]
    assert read_groups(None, ids, found.patient_of) == {case: case[0] for case in ids}
    assert found.paired == "A_2019-01-02: A/2019-01-02/ct.nii.gz -> A/2019-01-02/mask.nii.gz"


def test_folders_whose_names_tell_that_they_are_of_one_patient(tmp_path):
    """Else one frame of a heart would be trained on and the other validate it."""
    found = find(tmp_path, {f"patient00{number}_frame{frame}": "ct mask" for number in "123" for frame in ("01", "12")})
    assert found.patient_of["patient001_frame01"] == found.patient_of["patient001_frame12"] == "patient001"
    assert len(set(found.patient_of.values())) == 3
    found = find(tmp_path / "b", {f"A/v{number}": "ct mask" for number in "123"} | {"B": "ct mask"})
    assert found.patient_of == {"A_v1": "A", "A_v2": "A", "A_v3": "A", "B": "B"}


def test_images_and_masks_in_folders_inside_the_patients(tmp_path):
    found = find(tmp_path, {"A/image": "a1", "A/mask": "a1", "B/image": "b1", "B/mask": "b1"})
    assert names(found) == {"A": ["a1", "a1"], "B": ["b1", "b1"]}
    assert found.cases[0].label == tmp_path / "A" / "mask" / "a1.nii.gz"


def test_a_series_of_dicom_beside_its_mask(tmp_path):
    in_folders = find(tmp_path / "a", {"A/CT series": "1.dcm 2.dcm", "A": "mask", "B/7": "1.dcm", "B": "mask"})
    assert names(in_folders) == {"A": ["CT series", "mask"], "B": ["7", "mask"]}
    at_top = find(tmp_path / "b", {"A": "1.dcm 2.dcm mask", "B": "1.dcm seg"})
    assert names(at_top) == {"A": ["A", "mask"], "B": ["B", "seg"]}
    in_study = find(tmp_path / "c", {"A/study/series": "1.dcm", "A": "mask", "B/study/series": "1.dcm", "B": "mask"})
    assert names(in_study) == {"A": ["series", "mask"], "B": ["series", "mask"]}


def test_junk_of_systems_is_passed_over(tmp_path):
    found = find(tmp_path, {"A": "image mask ._image Thumbs.db desktop.ini .DS_Store", "__MACOSX/A": "._image x"})
    assert names(found) == {"A": ["image", "mask"]}
    assert problems(found) == []


def test_what_is_missing_or_left_over_is_named_with_the_patient(tmp_path):
    files = {"A": "ct mask", "B": "ct", "C": "mask", "D": "notes.txt", "E": "ct mask", "E/old": "ct", ".": "atlas"}
    found = find(tmp_path, files)
    assert list(names(found)) == ["A", "E"]
    assert problems(found) == [
        "B: B/ct.nii.gz: has no mask; add the mask or move the image",
        "C: C/mask.nii.gz: has no image; add the image or move the mask",
        "warning: D: the folder holds no image and is not used; "
        "put the patient's image and mask there, or move it away",
        "warning: E: E/old/ct.nii.gz: belongs to no image with a mask beside it and is not used; "
        "move it to the image and mask that it belongs to, or away",
        f"warning: {tmp_path.name}/atlas.nii.gz: lies beside the patients' folders and is not used; move it away; "
        "images and masks (mask, seg, segmentation, label, gt, roi, contour, annotation or manual in the name) lie in "
        "a folder of each patient",
    ]


def test_a_channel_that_one_patient_lacks_or_has_alone_is_named(tmp_path):
    found = find(tmp_path, {"A": "t1 t2 mask", "B": "t1 t2 mask", "C": "t1 mask", "D": "t1 t2 pet mask"})
    remedy = "add, rename or move files; expected are t1, t2"
    assert problems(found) == [
        f"C: lacks the image of channel t2; {remedy}",
        f"D: D/pet.nii.gz: its name says channel pet, which is not expected; {remedy}",
    ]


def test_several_masks_of_one_patient_are_asked_about(tmp_path):
    found = find(tmp_path, {"A": "ct mask", "B": "ct mask mask_2nd_reader", "C": "ct mask"})
    assert list(names(found)) == ["A", "C"]
    assert problems(found) == [
        "B: mask.nii.gz, mask_2nd_reader.nii.gz could each be the mask; "
        "keep one file there, with a value for each structure, and move the others away"
    ]


def test_a_mask_for_each_structure_is_refused(tmp_path):
    organs = "aorta kidney liver lung spleen"
    with pytest.raises(UserError) as caught:
        find(tmp_path, {f"s{number}{part}": files for number in "12" for part, files in (("", "ct"), ("/seg", organs))})
    assert str(caught.value) == (
        f"{tmp_path}: in s1/ seg/aorta.nii.gz, seg/kidney.nii.gz, seg/liver.nii.gz, seg/lung.nii.gz and 1 more could "
        "each be the mask (and so in 1 other folder); keep one file a case, with a value for each structure "
        "(one file a structure is not read: join them), and move the others away"
    )


def test_folders_that_are_each_a_flat_data_set(tmp_path):
    with pytest.raises(UserError, match="or give the folder .*/benign itself, if each image there has one of these"):
        find(tmp_path, {"benign": "a1 a1_mask a2 a2_mask", "malignant": "b1 b1_mask b2 b2_mask"})


def test_files_and_patient_folders_that_are_both_a_data_set(tmp_path):
    with pytest.raises(UserError) as caught:
        find(tmp_path, {"A": "ct mask", ".": "P1_img P1_seg"})
    assert str(caught.value) == (
        f"{tmp_path}: holds folders with images and masks, such as A, and beside them P1_img.nii.gz and "
        "P1_seg.nii.gz; which of both is the data set is not guessed: move the others away"
    )


def test_two_folders_that_would_be_one_case(tmp_path):
    with pytest.raises(UserError, match="the folders A/B_C and A_B/C would both be the case A_B_C; rename one of them"):
        find(tmp_path, {"A/B_C": "ct mask", "A/D": "ct mask", "A_B/C": "ct mask", "A_B/D": "ct mask"})
