"""Reading and writing volumes: NIfTI by nibabel, everything else by SimpleITK. One row per file ending."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError

from segfw.data.geometry import Geometry, Volume
from segfw.records import UserError, whole_file

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class UnreadableFile(UserError):
    """A file that cannot be opened, decoded or placed in space; the message is a sentence for the user."""


class Format(NamedTuple):
    """How one file ending is read and written."""

    read: Callable[[Path], tuple[np.ndarray, np.ndarray]]  # -> (C, Z, Y, X), affine 4x4 of (z, y, x)
    write: Callable[[Path, np.ndarray, np.ndarray], None]  # path, (Z, Y, X), affine


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import nibabel

    image = nibabel.load(path)
    array = np.asanyarray(image.dataobj)
    if array.ndim == 5 and array.shape[3] == 1:  # the vector form of NIfTI keeps channels on the fifth axis
        array = array[:, :, :, 0]
    if array.ndim not in (2, 3, 4):
        raise ValueError(f"has {array.ndim} dimensions {array.shape}, expected 2, 3 or 4 (the last one channels)")
    array = array.reshape(array.shape + (1,) * (4 - array.ndim))
    affine = image.affine[:, [2, 1, 0, 3]]
    return array.transpose(3, 2, 1, 0), affine


def _write_nifti(path: Path, array_zyx: np.ndarray, affine: np.ndarray) -> None:
    import nibabel

    image = nibabel.Nifti1Image(array_zyx.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]])
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    dimensions = image.GetDimension()
    if dimensions not in (2, 3, 4):
        raise ValueError(f"has {dimensions} dimensions, expected 2, 3 or 4")
    array = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif dimensions < 4:
        array = array[None]
    if dimensions == 2:
        array = array[:, None]
    if array.ndim != 4:
        raise ValueError("has several values per voxel and four dimensions; split it into one file per channel")
    space = min(dimensions, 3)
    direction = np.eye(3)
    direction[:space, :space] = np.reshape(image.GetDirection(), (dimensions, dimensions))[:space, :space]
    spacing, origin = np.ones(3), np.zeros(3)
    spacing[:space], origin[:space] = image.GetSpacing()[:space], image.GetOrigin()[:space]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * spacing, origin
    return array, (LPS_TO_RAS @ affine)[:, [2, 1, 0, 3]]


def _write_itk(path: Path, array_zyx: np.ndarray, affine: np.ndarray) -> None:
    import SimpleITK

    lps = LPS_TO_RAS @ affine[:, [2, 1, 0, 3]]
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(array_zyx)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=True)


NIFTI = Format(_read_nifti, _write_nifti)
ITK = Format(_read_itk, _write_itk)
FORMATS = {".nii.gz": NIFTI, ".nii": NIFTI, ".nrrd": ITK, ".mha": ITK, ".mhd": ITK}


def split_ending(path: Path) -> tuple[str, str]:
    """('case_0000', '.nii.gz') of '.../case_0000.nii.gz'; the ending is '' if no format of ours has it."""
    for ending in FORMATS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)], path.name[-len(ending) :].lower()
    return path.name, ""


def read_volume(path: Path) -> Volume:
    """Reads an image or a mask as stored; raises UnreadableFile with one sentence saying what is wrong.

    Integer files stay integers; files with a scale factor become float32.
    """
    path = Path(path)
    _, ending = split_ending(path)
    if not path.is_file():
        raise UnreadableFile(f"{path}: no such file; check the name")
    if not ending:
        raise UnreadableFile(f"{path}: unknown ending; segfw reads {', '.join(FORMATS)}")
    try:
        array, affine = FORMATS[ending].read(path)
        if array.dtype.kind not in "iufb":
            raise ValueError(f"has voxels of type {array.dtype} (complex or colour); store one number per voxel")
        geometry = Geometry.of(array.shape[1:], affine)
    except ValidationError as error:
        raise UnreadableFile(f"{path}: bad geometry: {error.errors()[0]['msg']}") from None
    except (OSError, EOFError, ValueError, RuntimeError, zlib.error) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UnreadableFile(f"{path}: cannot be read ({reason}); copy or export the file again") from None
    except Exception as error:  # nibabel has its own error types, and importing them here would load it for all
        raise UnreadableFile(f"{path}: cannot be read ({error}); is it really {ending}?") from None
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return Volume(array=array, geometry=geometry)


def write_labels(path: Path, labels_zyx: np.ndarray, geometry: Geometry) -> None:
    """Writes an integer mask on ``geometry``'s grid, atomically, in the smallest type that holds its values."""
    low, high = int(labels_zyx.min(initial=0)), int(labels_zyx.max(initial=0))
    kinds = (np.uint8, np.int16, np.int32) if low >= 0 else (np.int16, np.int32)
    kind = next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    with whole_file(path) as partial:
        FORMATS[split_ending(path)[1]].write(partial, labels_zyx.astype(kind), geometry.matrix)
