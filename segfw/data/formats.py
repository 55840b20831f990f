"""Reading and writing volumes: NIfTI by nibabel, everything else by SimpleITK. One row per file ending."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import ValidationError

from segfw.data.geometry import Geometry, Volume
from segfw.records import UserError, whole_file

if TYPE_CHECKING:
    import nibabel

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
NIFTI_UNIT_MM = {1: 1000.0, 3: 0.001}  # NIfTI's codes for metres and micrometres; all others count as millimetres


class UnreadableFile(UserError):
    """A file that cannot be opened, decoded or placed in space; the message is a sentence for the user."""


class Format(NamedTuple):
    """How one file ending is read and written."""

    read: Callable[[Path], tuple[np.ndarray, np.ndarray]]  # -> (C, Z, Y, X), affine 4x4 of (z, y, x)
    write: Callable[[Path, np.ndarray, np.ndarray], None]  # path, (Z, Y, X), affine


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = _open_nifti(path)
    array = np.asanyarray(image.dataobj)
    if array.ndim == 5 and array.shape[3] == 1:  # the vector form of NIfTI keeps channels on the fifth axis
        array = array[:, :, :, 0]
    if array.ndim not in (2, 3, 4):
        raise ValueError(f"has {array.ndim} dimensions {array.shape}, expected 2, 3 or 4 (the last one channels)")
    array = array.reshape(array.shape + (1,) * (4 - array.ndim))
    affine = image.affine[:, [2, 1, 0, 3]]
    affine[:3] *= NIFTI_UNIT_MM.get(int(image.header["xyzt_units"]) & 7, 1.0)
    return array.transpose(3, 2, 1, 0), affine


def _open_nifti(path: Path) -> nibabel.Nifti1Image:
    import nibabel

    if path.suffix.lower() != ".gz":
        return nibabel.load(path)
    # Decompressed here because nibabel stops before the checksum: a damaged file would give wrong voxels in silence.
    content = gzip.decompress(path.read_bytes())
    header_sizes = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    kind = nibabel.Nifti2Image if 540 in header_sizes else nibabel.Nifti1Image
    return kind.from_bytes(content)


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


def _write_mhd(path: Path, array_zyx: np.ndarray, affine: np.ndarray) -> None:
    """Header and voxels in one file, as in .mha, so that the pair cannot come apart."""
    whole = path.with_suffix(".mha")
    _write_itk(whole, array_zyx, affine)
    whole.replace(path)


NIFTI = Format(_read_nifti, _write_nifti)
ITK = Format(_read_itk, _write_itk)
FORMATS = {".nii.gz": NIFTI, ".nii": NIFTI, ".nrrd": ITK, ".mha": ITK, ".mhd": Format(_read_itk, _write_mhd)}


def split_ending(path: Path) -> tuple[str, str]:
    """('case_0000', '.nii.gz') of '.../case_0000.nii.gz'; the ending is '' if no format of ours has it."""
    for ending in FORMATS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)], path.name[-len(ending) :].lower()
    return path.name, ""


def read_volume(path: Path) -> Volume:
    """Reads an image or a mask as stored; raises UnreadableFile with one sentence saying what is wrong.

    Integer files stay integers; files with a scale factor become float32; the byte order is the machine's own.
    """
    path = Path(path)
    _, ending = split_ending(path)
    if not path.is_file():
        raise UnreadableFile(f"{path}: no such file; check the name")
    if not ending:
        raise UnreadableFile(f"{path}: unknown ending; segfw reads {', '.join(FORMATS)}")
    try:
        array, affine = FORMATS[ending].read(path)
        if not array.size:
            raise ValueError(f"has no voxels, its shape is {array.shape}")
        if array.dtype.kind not in "iufb":
            raise ValueError(f"has voxels of type {array.dtype} (complex or colour); store one number per voxel")
        geometry = Geometry.of(array.shape[1:], affine)
    except ValidationError as error:
        raise UnreadableFile(f"{path}: bad geometry: {error.errors()[0]['msg']}") from None
    except (OSError, EOFError, ValueError, RuntimeError, zlib.error) as error:
        raise UnreadableFile(f"{path}: cannot be read ({_reason(error)}); copy or export the file again") from None
    except Exception as error:  # nibabel has its own error types, and importing them here would load it for all
        raise UnreadableFile(f"{path}: cannot be read ({error}); is it really {ending}?") from None
    is_long = array.dtype.kind == "f" and array.dtype.itemsize > 4
    kind = np.float32 if is_long else array.dtype.newbyteorder("=")
    return Volume(array=array.astype(kind, copy=False), geometry=geometry)


def _reason(error: Exception) -> str:
    """The line of a library's message that says most: the last one that is not its guess at a cause."""
    guesses = ("Reason:", "- could the file be damaged?")
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(guesses)]
    return re.sub(r"^(sitk::ERROR: |ITK ERROR: \w+\(\w+\): )", "", lines[-1]) if lines else type(error).__name__


def write_labels(path: Path, labels_zyx: np.ndarray, geometry: Geometry) -> None:
    """Writes an integer mask on ``geometry``'s grid, atomically, in the smallest type that holds its values."""
    low, high = int(labels_zyx.min(initial=0)), int(labels_zyx.max(initial=0))
    kinds = (np.uint8, np.int16, np.int32) if low >= 0 else (np.int16, np.int32)
    kind = next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    with whole_file(path) as partial:
        FORMATS[split_ending(path)[1]].write(partial, labels_zyx.astype(kind), geometry.matrix)
