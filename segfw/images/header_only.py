"""What a file says of its grid and channels, without its voxels; for formats whose header says it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from segfw.base.records import UserError
from segfw.base.words import first_line
from segfw.images.formats import split_ending
from segfw.images.geometry import Geometry
from segfw.images.nifti import unit_mm
from segfw.images.volume import Volume
from segfw.images.voxels import affine_of_lps


def volume_of_header(path: Path) -> Volume | None:
    """The volume with its grid and number of channels, but nothing in it and no memory taken; None if unknown.

    Formats whose headers are not read here, such as DICOM and pictures, are unknown. What a header announces is not
    compared with what is stored, as ``read_volume`` does. Raises UserError if there is no such file or no header.
    """
    read = READERS.get(split_ending(path)[1])
    if read is None or path.is_dir():
        return None
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the name")
    try:
        return read(path)
    except Exception as error:  # the libraries have errors of their own
        raise UserError(f"{path}: its header cannot be read ({first_line(error, 200)})") from None


def _empty(channels: int, shape_zyx: tuple[int, ...], affine_zyx: np.ndarray) -> Volume:
    geometry = Geometry.of(shape_zyx, affine_zyx)
    return Volume(array=np.broadcast_to(np.uint8(0), (channels, *geometry.shape)), geometry=geometry)


def _of_nifti(path: Path) -> Volume:
    import nibabel

    image = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Image):
        raise ValueError("it is no NIfTI")
    shape = tuple(int(size) for size in image.shape)
    if len(shape) == 5 and shape[3] == 1:  # vectors
        shape = (*shape[:3], shape[4])
    shape += (1,) * (4 - len(shape))
    affine = image.affine.copy()
    affine[:3] *= unit_mm(image.header)
    return _empty(shape[3], shape[2::-1], affine[:, [2, 1, 0, 3]])


def _of_itk(path: Path) -> Volume:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    dimensions = reader.GetDimension()
    size = [*reader.GetSize(), 1, 1][: max(3, dimensions)]
    space = min(3, dimensions)
    direction = np.eye(3)
    direction[:space, :space] = np.reshape(reader.GetDirection(), (dimensions, dimensions))[:space, :space]
    spacing = np.ones(3)
    spacing[:space] = reader.GetSpacing()[:space]
    origin = np.zeros(3)
    origin[:space] = reader.GetOrigin()[:space]
    channels = reader.GetNumberOfComponents() * (size[3] if dimensions == 4 else 1)
    return _empty(channels, (size[2], size[1], size[0]), affine_of_lps(direction, spacing, origin))


READERS: dict[str, Callable[[Path], Volume]] = {
    ".nii": _of_nifti,
    ".nii.gz": _of_nifti,
    ".nrrd": _of_itk,
    ".mha": _of_itk,
    ".mhd": _of_itk,
}
