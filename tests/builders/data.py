"""Small images and masks, and folders of them as people keep them."""

from __future__ import annotations

import json
import locale
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segfw.dataset.cases import Case
from segfw.images.formats import UnreadableFile, read_mask, read_volume

CASES = [f"case_{number:02}" for number in range(6)]
LABEL_VALUES = {"background": 0, "bright": 3, "dark": 7}
SHAPES = ((20, 18, 10), (22, 17, 9), (18, 19, 11))  # (x, y, z)


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
    SimpleITK = pytest.importorskip("SimpleITK")
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


def write_raw(raw: Path, cases: int = 6, channel: str = "MR") -> Path:
    """Writes volumes of ``blocks_case`` in nnU-Net's raw layout: case_00, case_01 ..."""
    for number in range(cases):
        image, mask = blocks_case(number)
        write_nifti(raw / "imagesTr" / f"case_{number:02}_0000.nii.gz", image)
        write_nifti(raw / "labelsTr" / f"case_{number:02}.nii.gz", mask)
    description = {"channel_names": {"0": channel}, "labels": LABEL_VALUES, "numTraining": cases}
    (raw / "dataset.json").write_text(json.dumps(description | {"file_ending": ".nii.gz"}))
    return raw


def write_cases(
    folder: Path, ids: tuple[str, ...], change_mask: Callable[[np.ndarray], None] | None = None
) -> tuple[Case, ...]:
    """Writes a volume of ``blocks_case`` for each id: ID.nii.gz and ID_mask.nii.gz."""
    cases = []
    for number, case_id in enumerate(ids):
        image, mask = blocks_case(number)
        if change_mask is not None:
            change_mask(mask)
        image_path = folder / f"{case_id}.nii.gz"
        mask_path = folder / f"{case_id}_mask.nii.gz"
        write_nifti(image_path, image)
        write_nifti(mask_path, mask)
        cases.append(Case(id=case_id, images=(image_path,), label=mask_path))
    return tuple(cases)


def make_images(folder: Path, count: int) -> Path:
    """Images of three shapes: a.nii.gz, b.nii.gz ..."""
    for number in range(count):
        image, _ = blocks_case(number, SHAPES[number % len(SHAPES)])
        write_nifti(folder / f"{chr(ord('a') + number)}.nii.gz", image)
    return folder


def put_nan(raw: Path) -> None:
    """Makes one voxel of a data set's first image no number, which ``check --fix`` can repair."""
    path = min((raw / "imagesTr").iterdir())
    image = nibabel.load(path)
    array = image.get_fdata(dtype=np.float32)
    array[0, 0, 0] = np.nan
    nibabel.Nifti1Image(array, image.affine).to_filename(path)


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: read_mask(path).array for path in folder.glob("[!.]*.nii.gz")}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def mask_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*.nii.gz")}


def refusal_of(path: Path, read: Callable[[Path], object] = read_volume) -> str:
    """The one sentence by which a file is refused, without its name."""
    with pytest.raises(UnreadableFile) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")
