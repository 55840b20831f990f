"""Reference masks that lie in a folder for each patient."""

from pathlib import Path

import pytest

from builders.data import touch_files
from segfw.base.records import UserError
from segfw.evaluation.pairs import first_channel_files, pair_masks


def test_a_folder_a_patient_is_a_reference(tmp_path):
    touch_files(tmp_path / "masks", {".": ["P1", "P2"]})
    touch_files(tmp_path / "raw", {"P1": ["image", "mask"], "P2": ["image", "mask"]})
    pairs, notes = pair_masks(tmp_path / "masks", tmp_path / "raw")
    assert pairs == {
        patient: (tmp_path / "raw" / patient / "mask.nii.gz", tmp_path / "masks" / f"{patient}.nii.gz")
        for patient in ("P1", "P2")
    }
    assert notes == []
    images = first_channel_files(tmp_path / "raw")
    assert images == {patient: tmp_path / "raw" / patient / "image.nii.gz" for patient in ("P1", "P2")}


def test_a_folder_of_folders_without_masks(tmp_path):
    touch_files(tmp_path / "masks", {".": ["P1"]})
    touch_files(tmp_path / "raw", {"P1": ["image"]})
    with pytest.raises(UserError, match="raw: holds no mask segfw can read; give the folder that holds the masks"):
        pair_masks(tmp_path / "masks", Path(tmp_path / "raw"))
