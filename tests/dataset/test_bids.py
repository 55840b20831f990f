"""BIDS: masks of derivatives, sessions and runs, participants, and what is ambiguous."""

import pytest

from builders.data import touch_files
from builders.found import channels, names, problems
from segfw.base.records import UserError
from segfw.dataset.bids import called_alike, masks_by_session
from segfw.dataset.layouts import find_dataset
from segfw.dataset.patients import read_groups


def find(raw, *paths):
    for path in paths:
        folder, _, name = path.rpartition("/")
        touch_files(raw, {folder: [name]})
    return find_dataset(raw)


def test_images_and_masks_of_a_derivative(tmp_path):
    found = find(
        tmp_path,
        *(f"sub-{number}/anat/sub-{number}_T1w" for number in ("01", "02")),
        *(f"derivatives/manual/sub-{number}/anat/sub-{number}_dseg" for number in ("01", "02")),
    )
    assert found.layout == "bids"
    assert names(found) == {"sub-01": ["sub-01_T1w", "sub-01_dseg"], "sub-02": ["sub-02_T1w", "sub-02_dseg"]}
    assert found.paired == "sub-01: sub-01/anat/sub-01_T1w.nii.gz -> derivatives/manual/sub-01/anat/sub-01_dseg.nii.gz"
    assert (found.channels, problems(found)) == (None, [])
    assert found.notes == ("masks: derivatives/manual/*_dseg; folds keep all sessions of a participant together",)


def test_sessions_are_cases_and_participants_are_patients(tmp_path):
    found = find(
        tmp_path,
        *(f"sub-A/ses-{ses}/anat/sub-A_ses-{ses}_{part}" for ses in "12" for part in ("T1w", "FLAIR")),
        *(f"derivatives/x/sub-A/ses-{ses}/anat/sub-A_ses-{ses}_label-lesion_mask" for ses in "12"),
        *(f"sub-B/anat/sub-B_{part}" for part in ("T1w", "FLAIR")),
        "derivatives/x/sub-B/anat/sub-B_label-lesion_mask",
    )
    assert list(names(found)) == ["sub-A_ses-1", "sub-A_ses-2", "sub-B"]
    assert channels(found) == ["FLAIR", "T1w"]
    ids = [case.id for case in found.cases]
    patients = {"sub-A_ses-1": "sub-A", "sub-A_ses-2": "sub-A", "sub-B": "sub-B"}
    assert read_groups(None, ids, found.patient_of) == patients


def test_a_mask_that_names_its_image(tmp_path):
    found = find(
        tmp_path,
        *(f"sub-{n}/anat/sub-{n}_{part}" for n in "12" for part in ("T1w", "T2w")),
        *(f"derivatives/labels/sub-{n}/anat/sub-{n}_T2w_seg-manual" for n in "12"),
    )
    assert names(found) == {f"sub-{n}": [f"sub-{n}_T2w", f"sub-{n}_T2w_seg-manual"] for n in "12"}


def test_runs_are_told_apart_by_the_mask_or_asked_about(tmp_path):
    runs = [f"sub-1/anat/sub-1_run-{run}_T1w" for run in "12"]
    both = find(tmp_path / "a", *runs, *(f"derivatives/d/sub-1/anat/sub-1_run-{run}_dseg" for run in "12"))
    assert names(both) == {f"sub-1_run-{run}": [f"sub-1_run-{run}_T1w", f"sub-1_run-{run}_dseg"] for run in "12"}
    unclear = find(tmp_path / "b", *runs, "derivatives/d/sub-1/anat/sub-1_dseg")
    assert unclear.cases == ()
    assert problems(unclear) == [
        "sub-1: sub-1_run-1_T1w.nii.gz and sub-1_run-2_T1w.nii.gz could each be the image of the mask; "
        "name in the mask which one it is (such as run-1), or move the others away"
    ]


def test_masks_beside_the_images(tmp_path):
    found = find(tmp_path, *(f"sub-{n}/anat/sub-{n}_{part}" for n in "12" for part in ("T1w", "label-lesion_mask")))
    assert names(found)["sub-2"] == ["sub-2_T1w", "sub-2_label-lesion_mask"]


def test_images_of_another_folder_are_no_channels(tmp_path):
    found = find(
        tmp_path,
        "sub-1/anat/sub-1_T1w",
        "sub-1/func/sub-1_task-rest_bold",
        "sub-2/anat/sub-2_T1w",
        "sub-2/func/sub-2_task-rest_bold",
        *(f"derivatives/d/sub-{n}/anat/sub-{n}_dseg" for n in "12"),
    )
    assert names(found)["sub-1"] == ["sub-1_T1w", "sub-1_dseg"]


def test_a_subject_without_mask_or_image_is_named(tmp_path):
    found = find(
        tmp_path,
        *(f"sub-{n}/anat/sub-{n}_T1w" for n in "123"),
        *(f"derivatives/d/sub-{n}/anat/sub-{n}_dseg" for n in "124"),
    )
    assert list(names(found)) == ["sub-1", "sub-2"]
    assert problems(found) == [
        "sub-3: anat/sub-3_T1w.nii.gz: has no mask; add the mask or move the image",
        "sub-4: anat/sub-4_dseg.nii.gz: has no image; add the image or move the mask",
    ]


def test_masks_of_several_kinds_are_asked_about(tmp_path):
    with pytest.raises(UserError) as caught:
        find(
            tmp_path,
            *(f"sub-{n}/anat/sub-{n}_T1w" for n in "12"),
            *(f"derivatives/fs/sub-{n}/anat/sub-{n}_desc-aseg_dseg" for n in "12"),
            "derivatives/manual/sub-1/anat/sub-1_label-lesion_mask",
        )
    assert str(caught.value) == (
        f"{tmp_path}: holds masks of 2 kinds: derivatives/fs/*_desc-aseg_dseg (2 files), "
        "derivatives/manual/*_label-lesion_mask (1 file); which of them to learn is not guessed: "
        "move all but one kind out of the data set"
    )


def test_names_that_are_the_same_in_bids():
    names = ["p_1", "p1", "case-7", "sub-02_T1w", "sub-03_acq-a_T1w", "x", "sub-04_T1w", "sub-04_T2w"]
    others = ["sub-p1", "sub-case7", "sub-02_desc-draft_dseg", "sub-03_T1w", "x_", "sub-04"]
    assert called_alike(names, others) == {"case-7": "sub-case7", "sub-02_T1w": "sub-02_desc-draft_dseg"}


def test_masks_of_a_tree_without_images(tmp_path):
    anat = {
        "sub-1/ses-1/anat": ["sub-1_ses-1_desc-draft_dseg"],
        "sub-2/anat": [f"sub-2_run-{run}_desc-draft_dseg" for run in "12"],
        "other": ["a_seg"],
    }
    touch_files(tmp_path, anat)
    assert list(masks_by_session(tmp_path)) == ["sub-1_ses-1", "sub-2_run-1", "sub-2_run-2"]
    touch_files(tmp_path, {"sub-1/ses-1/anat": ["sub-1_ses-1_desc-final_dseg"]})
    with pytest.raises(UserError, match=r"holds masks of 2 kinds: .*desc-draft.* \(3 files\), .*desc-final"):
        masks_by_session(tmp_path)
