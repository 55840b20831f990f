"""A fault that is planted: a model that knows no mirror images, fed with images that files store mirrored."""

import numpy as np
import pytest

import segfw
from builders.data import write_nifti
from builders.models import plan_of
from builders.networks import spec
from builders.training import IDS, LABELS, ZSCORE, configuration, run
from segfw.dataset.cases import Case
from segfw.grid.store import preprocess_dataset
from segfw.model.source import fold_folder
from segfw.planning.plan import PLAN_FILE

SHAPE = (20, 18, 10)  # x, y, z
NEW = ("new_0", "new_1")


def lump(seed):
    """One bright lump whose left half is one structure and whose right half another; intensities do not tell them."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, np.uint8)
    x, y, z = (int(rng.integers(2, size // 3)) for size in SHAPE)
    mask[x : x + 5, y : y + 8, z : z + 5] = 3
    mask[x + 5 : x + 10, y : y + 8, z : z + 5] = 7
    image = 100 + 60.0 * (mask > 0) + rng.normal(0, 8, SHAPE)
    return image.astype(np.int16), mask


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights that were trained without mirroring, and two new images with an expert's masks."""
    home = tmp_path_factory.mktemp("planted")
    cases = []
    for number, name in enumerate(IDS):
        image, mask = lump(number)
        write_nifti(home / "raw" / f"{name}.nii.gz", image)
        write_nifti(home / "raw" / f"{name}_mask.nii.gz", mask)
        cases.append(
            Case(id=name, images=(home / "raw" / f"{name}.nii.gz",), label=home / "raw" / f"{name}_mask.nii.gz")
        )
    assert not preprocess_dataset(cases, LABELS, {"3d": ZSCORE}, home, case_bytes=dict.fromkeys(IDS, 20_000))
    network = spec(features=(8, 16))
    folder = fold_folder(home / "weights", "3d_fullres", "0")
    run((home / "3d", ZSCORE), folder, network=network, epochs=6, steps_per_epoch=25, mirroring=False)
    for number, name in enumerate(NEW):
        image, mask = lump(50 + number)
        write_nifti(home / "images" / f"{name}.nii.gz", image)
        write_nifti(home / "masks" / f"{name}.nii.gz", mask)
    return home, network


@pytest.mark.parametrize("orientation", ["as stored", "canonical"])
def test_mirrored_anatomy_is_found_where_the_model_sees_it(trained, tmp_path, orientation):
    home, network = trained
    how = ZSCORE.model_copy(update={"orientation": orientation})
    model = tmp_path / "model"
    (model / "runs").parent.mkdir()
    (home / "weights" / "runs").rename(model / "runs")
    try:
        plan_of(configuration(how, network)).save(model / PLAN_FILE)
        report = segfw.stress(
            model,
            home / "images",
            tmp_path / "out",
            reference=home / "masks",
            quick=True,
            device="cpu",
            precision="fp32",
        )
    finally:
        (model / "runs").rename(home / "weights" / "runs")
    again = next(change for change in report.changes if change.perturbation.name == "same again")
    assert min(each.dice_before for each in again.structures) > 0.6  # it has learned something
    broken = [change.perturbation.name for change in report.broken]
    if orientation == "canonical":
        assert not broken
        return
    assert broken == ["axis order 1"]
    (change,) = report.broken
    assert len(change.changed_cases) == 2
    assert min(each.change_of_dice for each in change.structures) < -0.2
