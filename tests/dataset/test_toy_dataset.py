"""The toy data set must be reproducible, well formed, and too much like a scan to be solved by a threshold."""

import json

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from segfw.dataset import toy


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two training cases and one test case."""
    out = tmp_path_factory.mktemp("toy")
    toy.make_toy_dataset(out, cases=2, test_cases=1, seed=0)
    return out


@pytest.fixture(scope="module")
def cases(dataset):
    """(image, label) of every case as nibabel images."""
    paths = [path for suffix in ("Tr", "Ts") for path in sorted((dataset / f"labels{suffix}").iterdir())]
    pairs = [(str(path).replace("labels", "images").replace(".nii.gz", "_0000.nii.gz"), path) for path in paths]
    return [(nib.load(image), nib.load(label)) for image, label in pairs]


def values(image):
    return np.asarray(image.dataobj)


def voxels_mean_mm(mask, affine):
    return affine[:3, :3] @ np.argwhere(mask).mean(0) + affine[:3, 3]


def best_interval_dice(image, mask):
    """Dice of the best window low <= value < high, over all pairs of 60 quantiles."""
    edges = np.unique(np.quantile(image, np.linspace(0, 1, 60)))
    inside, chosen = (np.append(0, np.cumsum(np.histogram(part, edges)[0])) for part in (image[mask], image))
    low, high = np.triu_indices(len(edges), 1)
    return (2 * (inside[high] - inside[low]) / (chosen[high] - chosen[low] + mask.sum())).max()


def test_layout_is_nnunet_raw(dataset):
    files = {str(path.relative_to(dataset)) for path in dataset.rglob("*") if path.is_file()}
    assert files == {
        "dataset.json",
        "imagesTr/torso_000_0000.nii.gz",
        "imagesTr/torso_001_0000.nii.gz",
        "labelsTr/torso_000.nii.gz",
        "labelsTr/torso_001.nii.gz",
        "imagesTs/torsotest_000_0000.nii.gz",
        "labelsTs/torsotest_000.nii.gz",
    }
    description = json.loads((dataset / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "liver": 1, "kidneys": 2, "lesion": 5, "aorta": 7}
    assert description["channel_names"] == {"0": "MR"}
    assert (description["numTraining"], description["file_ending"]) == (2, ".nii.gz")


def test_same_seed_gives_same_bytes_however_many_cases(dataset, tmp_path):
    toy.make_toy_dataset(tmp_path / "again", cases=1, test_cases=0, seed=0)
    toy.make_toy_dataset(tmp_path / "other", cases=1, test_cases=0, seed=1)
    for name in ("imagesTr/torso_000_0000.nii.gz", "labelsTr/torso_000.nii.gz"):
        first = (dataset / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == first
        assert (tmp_path / "other" / name).read_bytes() != first


def test_cases_differ(cases):
    contents = {(*image.shape, values(image).tobytes()) for image, _ in cases}
    assert len(contents) == len(cases)


def test_a_used_folder_is_refused(dataset):
    with pytest.raises(ValueError, match="not empty"):
        toy.make_toy_dataset(dataset, cases=1)


def test_every_label_is_present_and_no_other(cases):
    for _, label in cases:
        found, counts = np.unique(values(label), return_counts=True)
        assert found.tolist() == [0, 1, 2, 5, 7]
        assert all(counts[found == value] >= smallest for value, smallest in toy.SMALLEST_VOXELS.items())


def test_lesion_touches_liver(cases):
    for _, label in cases:
        lesion, liver = values(label) == 5, values(label) == 1
        assert (binary_dilation(lesion) & liver).any()


def test_grids_are_anisotropic_and_shared_by_image_and_label(cases):
    for image, label in cases:
        x, y, z = image.header.get_zooms()
        assert x == y
        assert z > 1.9 * x
        assert image.shape == label.shape
        assert (values(image).dtype, values(label).dtype) == (np.int16, np.uint8)
        np.testing.assert_array_equal(image.affine, label.affine)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)


def test_orientations_and_tilts_vary_but_the_liver_is_on_the_right(cases):
    affines = [toy.draw_grid(np.random.default_rng(number))[0] for number in range(20)]
    assert len({nib.aff2axcodes(affine) for affine in affines}) == 3
    tilted = [np.abs(nib.affines.obliquity(affine)).max() > np.radians(1) for affine in affines]
    assert 0 < sum(tilted) < 20
    for _, label in cases:  # world coordinates are RAS, so a larger x is further to the patient's right
        liver, aorta = (voxels_mean_mm(values(label) == value, label.affine) for value in (1, 7))
        assert liver[0] > aorta[0] + 5


def test_best_interval_dice_finds_a_perfect_window():
    image = np.arange(60).reshape(3, 4, 5)
    assert best_interval_dice(image, (image >= 20) & (image < 30)) == 1


def test_intensity_alone_does_not_solve_it(cases):
    for image, label in cases:
        for value in toy.SMALLEST_VOXELS:
            assert best_interval_dice(values(image), values(label) == value) < 0.65, f"label {value}"
