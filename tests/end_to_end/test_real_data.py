"""The whole chain on real images: too short to learn much, long enough to go through every step."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from segfw.dataset.layouts import find_dataset
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import Preprocessing, preprocess_classes, preprocess_image
from segfw.grid.restore import restore
from segfw.images.formats import read_mask, read_volume, write_labels
from segfw.images.volume import to_canonical
from segfw.planning.plan import Plan
from segfw.verbs.check import check_dataset
from segfw.verbs.evaluate import evaluate
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.predict import predict
from segfw.verbs.run import run

pytestmark = pytest.mark.real_data


def part_of(source: Path, target: Path, images: str, labels: str, cases: int) -> Path:
    """A copy of the first cases of a data set."""
    for folder in (images, labels):
        (target / folder).mkdir(parents=True)
        for path in sorted((source / folder).iterdir())[:cases]:
            shutil.copy(path, target / folder)
    if (source / "dataset.json").is_file():
        shutil.copy(source / "dataset.json", target)
    return target


def test_hippocampus_from_folder_to_masks(real_data, tmp_path):
    raw = part_of(real_data / "hippocampus", tmp_path / "raw", "imagesTr", "labelsTr", 8)
    options = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "device": "cpu"}
    scores = run(raw, tmp_path / "work", configurations=("3d_fullres",), folds=("0",), **options)
    assert set(scores["3d_fullres"]["0"].labels) == {"Anterior", "Posterior"}
    predict(tmp_path / "work", raw / "imagesTr", tmp_path / "masks", device="cpu")
    for path in (raw / "labelsTr").iterdir():
        expert, mask = nibabel.load(path), nibabel.load(tmp_path / "masks" / path.name)
        assert mask.shape == expert.shape
        np.testing.assert_allclose(mask.affine, expert.affine, atol=1e-4)
        assert set(np.unique(mask.dataobj)) <= {0, 1, 2}


def test_brain_slices_with_69_labels_in_2d(real_data, tmp_path):
    raw = part_of(real_data / "brain_slices_2d_many_labels", tmp_path / "raw", "images", "labels", 6)
    work = tmp_path / "work"
    options = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "device": "cpu"}
    run(raw, work, folds=("0",), **options)
    plan = Plan.load(work / "plan.json")
    assert list(plan.configurations) == ["2d"]
    assert max(plan.labels.values) > 2000
    image = next((raw / "images").iterdir())
    predict(work, image, tmp_path / "masks", device="cpu")
    mask = nibabel.load(next((tmp_path / "masks").glob("*.nii.gz")))
    assert set(np.unique(mask.dataobj)) <= set(plan.labels.values)


@pytest.mark.parametrize(
    "name, unit, other",
    [("retina_2d", "px", "mm2"), ("brain_slices_2d_many_labels", "mm2", "px")],
)
def test_photographs_are_in_pixels_and_slices_in_square_millimetres(real_data, tmp_path, name, unit, other):
    """From the check to the scores; one pixel of the slices takes 1 mm2, so that both are counts."""
    raw = part_of(real_data / name, tmp_path / "raw", "images", "labels", 2)
    report = check_dataset(raw)
    assert {label.unit for label in report.labels} == {unit}
    assert not report.of_severity("error")

    plan = plan_and_preprocess(raw, tmp_path / "work", plan_only=True, device="cpu")
    assert list(plan.configurations) == ["2d"]
    assert plan.configurations["2d"].preprocessing.spacing_mm[1:] == (1.0, 1.0)

    # The experts' masks as predict writes them: NIfTI on the grid of the image, which claims millimetres
    for case in find_dataset(raw).cases:
        mask = read_mask(case.label)
        write_labels(tmp_path / "masks" / f"{case.id}.nii.gz", mask.array[0], read_volume(case.images[0]).geometry)
        drawn = int((mask.array > 0).sum())
    scores = evaluate(tmp_path / "masks", raw / "labels", images=raw / "images", surface=False)
    assert scores.foreground_mean.dice == 1.0
    found = list(scores.cases.values())[-1]
    assert sum(getattr(label, f"reference_{unit}") for label in found.values()) == drawn
    assert {getattr(label, f"reference_{other}") for label in found.values()} == {None}


def test_images_that_are_zero_around_the_body_are_cropped_and_normalised_inside(real_data, tmp_path):
    raw = part_of(real_data / "head_neck_ct", tmp_path / "raw", "images", "labels", 3)
    plan = plan_and_preprocess(raw, tmp_path / "work", plan_only=True)
    assert plan.configurations["3d_fullres"].preprocessing.normalization[0].inside_mask


@pytest.mark.parametrize(
    "image, mask",
    [
        ("spleen_ct_one_case/images/sub-spleen2_ct", "spleen_ct_one_case/labels/sub-spleen2_ct_seg-manual"),
        ("cardiac_cine/images/patient002_frame01", "cardiac_cine/labels/patient002_frame01"),
    ],
)
def test_expert_masks_survive_the_network_grid_and_back(real_data, image, mask):
    """Anisotropic images at a finer in-plane spacing: Dice of the restored mask with the expert's is nearly 1."""
    volume, expert = (read_volume(real_data / f"{name}.nii.gz") for name in (image, mask))
    _, y, x = to_canonical(volume).geometry.spacing_mm
    how = Preprocessing(
        axis_order=(0, 1, 2), spacing_mm=(None, 0.8 * y, 0.8 * x), normalization=(Normalization(kind="zscore"),)
    )
    _, record = preprocess_image(volume, how)
    classes = preprocess_classes(type(expert)(array=expert.array.astype(np.uint8), geometry=volume.geometry), record)
    logits = torch.nn.functional.one_hot(classes.long(), 4).movedim(-1, 0).float()
    restored = restore(logits, record)
    for value in np.unique(expert.array)[1:]:
        reference, found = expert.array[0] == value, restored == value
        assert 2 * (reference & found).sum() / (reference.sum() + found.sum()) > 0.97
