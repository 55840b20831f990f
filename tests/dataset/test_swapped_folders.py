"""Images given as masks are known by their values, and the message names the folder."""

import numpy as np
import pytest

from builders.data import blocks_case, write_nifti
from segfw.planning.fingerprint import DataProblems
from segfw.verbs.check import check_dataset
from segfw.verbs.plan_and_preprocess import plan_and_preprocess


@pytest.mark.parametrize("dtype, kind", [(np.int16, "mask-is-image"), (np.float32, "mask-not-integer")])
def test_swapped_folders(tmp_path, dtype, kind):
    raw = tmp_path / "raw"
    for number in range(2):
        image, mask = blocks_case(number)
        noise = np.random.default_rng(number).normal(0, 400, image.shape)
        write_nifti(raw / "labels" / f"c{number}.nii.gz", (image + noise).astype(dtype))
        write_nifti(raw / "images" / f"c{number}.nii.gz", mask)
    errors = [finding for finding in check_dataset(raw, workers=1).findings if finding.severity == "error"]
    assert {finding.kind for finding in errors} == {kind}
    assert all(f"{raw / 'labels'} holds the images instead of the masks" in finding.remedy for finding in errors)
    with pytest.raises(DataProblems, match="holds the images instead of the masks"):
        plan_and_preprocess(raw, tmp_path / "work", device="cpu")
    assert not list((tmp_path / "work").glob("*.json"))


def test_swapped_files_of_patients(tmp_path):
    """One folder a patient: the folder is the same, the two files have each other's names."""
    for number in range(2):
        image, mask = blocks_case(number)
        noise = np.random.default_rng(number).normal(0, 400, image.shape)
        write_nifti(tmp_path / f"P{number}" / "mask.nii.gz", (image + noise).astype(np.int16))
        write_nifti(tmp_path / f"P{number}" / "image.nii.gz", mask)
    errors = check_dataset(tmp_path, workers=1).of_severity("error")
    assert [finding.kind for finding in errors] == ["mask-is-image"] * 2
    assert errors[0].remedy == (
        "see whether image.nii.gz and mask.nii.gz are exchanged; if they are labels, list them in dataset.json"
    )
