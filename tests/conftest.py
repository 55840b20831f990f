"""Data that many tests share: a small made-up data set, and the real ones where they are present."""

from __future__ import annotations

import json
import locale
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch

# Beside the checkout, never inside it: real, expert-labelled data for development.
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _two_threads_and_a_seed() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets; the test is skipped, with the reason, where there is none."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"real data sets are not present at {REAL_DATA}")
    return REAL_DATA


def write_nifti(path: Path, array_xyz: np.ndarray, spacing_xyz: tuple[float, ...] = (1.0, 1.5, 4.0)) -> None:
    """Saves an array in NIfTI's (x, y, z) order with an unequal spacing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*spacing_xyz, 1.0])
    nibabel.save(nibabel.Nifti1Image(array_xyz, affine), path)


def write_slices(
    folder: Path,
    array_zyx: np.ndarray,
    *,
    positions: np.ndarray,
    axes: np.ndarray | None,
    series: str = "1.2.3.4",
    start: str = "a",
    tags: dict[str, str] | None = None,
    ending: str = ".dcm",
) -> Path:
    """Writes a DICOM file per slice, named against their order; pixels are 2 mm along x and 0.5 along y.

    ``positions`` and ``axes`` (x, y) are LPS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = locale.setlocale(locale.LC_ALL)
    for number, (pixels, place) in enumerate(zip(array_zyx, positions)):
        image = SimpleITK.GetImageFromArray(pixels, isVector=pixels.ndim == 3)
        image.SetSpacing((2, 0.5))
        said = {"0008|0060": "MR", "0020|000e": series, "0020|0011": "7", "0008|103e": "T2 test"}
        said |= {"0020|000d": "1.2.3", "0008|0018": f"{series}.{number + 1}", "0018|0050": "4"}
        if axes is not None:
            said["0020|0032"] = "\\".join(f"{value:.6g}" for value in place)
            said["0020|0037"] = "\\".join(f"{value:.6g}" for value in axes.ravel())
        for key, value in (said | (tags or {})).items():
            image.SetMetaData(key, value)
        writer = SimpleITK.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{start}{9 - number}.dcm"))
        writer.Execute(image)
        if ending != ".dcm":
            (folder / f"{start}{9 - number}.dcm").rename(folder / f"{start}{9 - number}{ending}")
    locale.setlocale(locale.LC_ALL, before)  # writing DICOM, not reading it, leaves the process in the locale C
    return folder


def touch_files(raw: Path, folders: dict[str, list[str]], description: object = None) -> Path:
    """Makes empty files by folder; names without a dot get .nii.gz. ``description`` becomes dataset.json."""
    for folder, names in folders.items():
        (raw / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (raw / folder / (name if "." in name else f"{name}.nii.gz")).touch()
    if description is not None:
        (raw / "dataset.json").write_text(json.dumps(description))
    return raw


def blocks_case(seed: int, shape_xyz: tuple[int, int, int] = (20, 18, 10)) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of a noisy volume with a bright box (3) that touches a dark one (7), at a drawn place."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape_xyz, np.uint8)
    x, y, z = (int(rng.integers(2, size // 3)) for size in shape_xyz)
    mask[x : x + 6, y : y + 6, z : z + 4] = 3
    mask[x + 6 : x + 10, y : y + 6, z : z + 4] = 7
    image = 100 + 60.0 * (mask == 3) - 50.0 * (mask == 7) + rng.normal(0, 8, shape_xyz)
    return image.astype(np.int16), mask


@pytest.fixture
def make_raw(tmp_path: Path) -> Callable[..., Path]:
    """Writes a nnU-Net raw folder of ``blocks_case`` volumes: make_raw(cases=6) -> its path."""

    def make(cases: int = 6, name: str = "raw", channel: str = "MR") -> Path:
        raw = tmp_path / name
        for number in range(cases):
            image, mask = blocks_case(number)
            write_nifti(raw / "imagesTr" / f"case_{number:02}_0000.nii.gz", image)
            write_nifti(raw / "labelsTr" / f"case_{number:02}.nii.gz", mask)
        labels = {"background": 0, "bright": 3, "dark": 7}
        description = {"channel_names": {"0": channel}, "labels": labels, "numTraining": cases}
        (raw / "dataset.json").write_text(json.dumps(description | {"file_ending": ".nii.gz"}))
        return raw

    return make


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Preprocessed cases for ``small_training.run``."""
    from small_training import prepare  # not at the top: it imports this module

    return prepare(tmp_path_factory.mktemp("prepared"))
