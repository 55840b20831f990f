"""NRRD and MetaImage, read and written by SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segfw.images.text_header import check_stored
from segfw.images.voxels import LPS_TO_RAS, Voxels, affine_of_lps, stated_spacing

# A header of text ends before this; what it must name for the voxels to have a size.
HEADER_BYTES = 16_384
COMMENT = "Comment"
SPACING_FIELDS = {
    ".nrrd": (b"spacings:", b"space directions:"),
    ".mha": (b"ElementSpacing", b"ElementSize"),
    ".mhd": (b"ElementSpacing", b"ElementSize"),
}


def read_itk(path: Path) -> Voxels:
    """Reads image or mask of two or three dimensions; a fourth one, or several values per voxel, are channels."""
    import SimpleITK

    stored = check_stored(path)
    image = SimpleITK.ReadImage(str(path))
    dimensions = image.GetDimension()
    if dimensions not in (2, 3, 4):
        raise ValueError(f"has {dimensions} dimensions, expected 2, 3 or 4")
    array = SimpleITK.GetArrayFromImage(image)
    stored.check_same(array)
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
    spacing = np.ones(3)
    spacing[:space] = image.GetSpacing()[:space]
    origin = np.zeros(3)
    origin[:space] = image.GetOrigin()[:space]
    affine = affine_of_lps(direction, spacing, origin)
    stated_mm = stated_spacing(image.GetSpacing()[:space][::-1])
    return Voxels(array, affine, _missing_spacing(path), stated_mm=stated_mm)


def _missing_spacing(path: Path) -> tuple[str, ...]:
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    fields = SPACING_FIELDS.get(path.suffix.lower(), ())
    if not fields or any(field in header for field in fields):
        return ()
    return ("says no spacing, so 1 mm is taken; write the true spacing into its header",)


def write_itk(path: Path, array_zyx: np.ndarray, affine: np.ndarray, said: str = "") -> None:
    """Writes one volume; NRRD and MetaImage hold sheared axes as well. ``said`` is a text for the field 'Comment'."""
    import SimpleITK

    lps = LPS_TO_RAS @ affine[:, [2, 1, 0, 3]]
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(array_zyx)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    if said:
        image.SetMetaData(COMMENT, said)
    SimpleITK.WriteImage(image, str(path), useCompression=True)


def write_itk_like(path: Path, array_zyx: np.ndarray, affine: np.ndarray, like: Path, said: str = "") -> None:
    """Writes one volume on the grid of the file ``like``, with two dimensions if it has two."""
    import SimpleITK

    header = SimpleITK.ImageFileReader()
    header.SetFileName(str(like))
    header.ReadImageInformation()
    dimensions = header.GetDimension()
    array = array_zyx[0] if dimensions == 2 and len(array_zyx) == 1 else array_zyx
    if array.shape[::-1] != tuple(header.GetSize()):
        write_itk(path, array_zyx, affine, said)
        return
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(header.GetSpacing())
    image.SetOrigin(header.GetOrigin())
    image.SetDirection(header.GetDirection())
    if said:
        image.SetMetaData(COMMENT, said)
    SimpleITK.WriteImage(image, str(path), useCompression=True)


def write_mhd(path: Path, array_zyx: np.ndarray, affine: np.ndarray, said: str = "") -> None:
    """Header and voxels in one file, as in .mha, so that the pair cannot come apart."""
    whole = path.with_suffix(".mha")
    write_itk(whole, array_zyx, affine, said)
    whole.replace(path)
