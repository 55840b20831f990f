"""How far masks of two programs agree, counted by hand."""

import numpy as np
import pytest

from bench.against_nnunet.models import agreement
from builders.data import write_nifti
from segfw.dataset.labels import LabelSet


def write_masks(folder, **masks):
    for name, values in masks.items():
        write_nifti(folder / f"{name}.nii.gz", np.array(values, np.uint8).reshape(2, 3, 1))


def test_agreement_is_counted_by_label_and_case(tmp_path):
    write_masks(tmp_path / "ours", a=[0, 1, 1, 2, 2, 0], b=[0, 1, 1, 0, 0, 0])
    write_masks(tmp_path / "theirs", a=[0, 1, 2, 2, 2, 0], b=[0, 1, 1, 0, 0, 0])
    found = agreement(tmp_path / "ours", tmp_path / "theirs")
    assert found.cases == 2
    assert found.voxels == 1
    # Label 1 of case a: 1 voxel of 2 and 1; label 2: 2 of 2 and 3. In case b label 2 is in neither: it agrees.
    assert found.dice == [{1: 2 / 3, 2: 4 / 5}, {1: 1.0, 2: 1.0}]
    assert found.worst_dice == 2 / 3
    assert found.least_mean_dice == pytest.approx((2 / 3 + 1) / 2)


def test_values_of_masks_are_compared_as_the_classes_that_nnunet_writes(tmp_path):
    labels = LabelSet(names=("background", "large", "small"), values=(0, 40, 255))
    write_masks(tmp_path / "ours", a=[0, 40, 40, 255, 255, 0])
    write_masks(tmp_path / "theirs", a=[0, 1, 1, 2, 2, 0])
    assert agreement(tmp_path / "ours", tmp_path / "theirs", labels).voxels == 0
