"""What can be predicted: files, volumes, images of other libraries, arrays; and a mask of the same kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segfw.base.records import UserError
from segfw.dataset.cases import Case
from segfw.dataset.verify import check_case
from segfw.grid.preprocess import stack_channels
from segfw.images.formats import read_volume
from segfw.images.geometry import Geometry
from segfw.images.nifti import unit_mm
from segfw.images.volume import Volume
from segfw.images.voxels import affine_of_lps, stated_spacing

# Of label values (Z, Y, X) on the volume's grid, the mask in the kind of the image.
MakeMask = Callable[[np.ndarray], Any]


def open_image(image: Any, affine: np.ndarray | None = None) -> tuple[Volume, MakeMask]:
    """The image as a volume, and what gives the caller a mask of its kind, on the very grid of the image.

    | image | mask |
    |---|---|
    | a path, or one per channel | ``Volume`` (1, Z, Y, X) in the file's order |
    | ``Volume`` | ``Volume`` |
    | SimpleITK image; several values per voxel are channels | SimpleITK image |
    | nibabel image; a fourth axis is channels | ``nibabel.Nifti1Image`` |
    | array (X, Y, Z) or (X, Y, Z, C), and ``affine`` (4, 4) to RAS mm, as nibabel has them | array (X, Y, Z) |

    Raises UserError for anything else, for channels on different grids, and for values that are no numbers.
    """
    if affine is not None and not isinstance(image, np.ndarray):
        raise UserError(f"an affine belongs to an array, and the image is {type(image).__name__}; give one of them")
    if isinstance(image, str | Path):
        image = [image]
    files: tuple[Path, ...] = (Path("image"),)
    mask_of: MakeMask | None = None
    if isinstance(image, Sequence):
        files = tuple(Path(path) for path in image)
        volumes = [read_volume(path) for path in files]
    else:
        volume, mask_of = volume_and_kind(image, affine)
        volumes = [volume]
    case = Case(id=files[0].name, images=files)
    # An image of one value is no reason to stop: nothing is found in it.
    found = check_case(case, volumes, None, channel_count=None, labels=None)
    problems = [problem for problem in found if problem.kind != "constant-image"]
    if problems:
        raise UserError("; ".join(str(problem) for problem in problems))
    whole = stack_channels(volumes)

    def as_volume(mask_zyx: np.ndarray) -> Volume:
        return replace(whole, array=mask_zyx[None], notes=())

    return whole, mask_of or as_volume


def volume_and_kind(image: Any, affine: np.ndarray | None = None) -> tuple[Volume, MakeMask | None]:
    """What is no file as a volume, and what gives a mask of its kind, None for a ``Volume``; UserError for others."""
    if isinstance(image, Volume):
        return image, None
    if isinstance(image, np.ndarray):
        if affine is None:
            raise UserError("an array says nothing of its place; give affine=, the 4x4 matrix from (x, y, z) to RAS mm")
        return _of_xyz(image, affine), lambda mask_zyx: np.ascontiguousarray(_as_xyz(mask_zyx, image.ndim))
    library = _library_of(image)
    if library == "SimpleITK":
        return _of_itk(image), lambda mask_zyx: _as_itk(mask_zyx, image)
    if library == "nibabel":
        return _of_nibabel(image), lambda mask_zyx: _as_nibabel(mask_zyx, image)
    raise UserError(
        f"{type(image).__name__} is no image that is known here; give a path, a list of paths, a Volume, a SimpleITK "
        "or nibabel image, or an array with its affine"
    )


def mask_volume(mask: Any) -> Volume:
    """A mask that is no file as a volume; UserError for all that does not say itself where it lies, such as arrays."""
    if not isinstance(mask, Volume) and _library_of(mask) is None:
        kind = "an array" if isinstance(mask, np.ndarray) else f"a {type(mask).__name__}"
        raise UserError(f"the mask is {kind}; give one file, a Volume, or an image of SimpleITK or nibabel")
    return volume_and_kind(mask)[0]


def _library_of(image: Any) -> Literal["SimpleITK", "nibabel"] | None:
    """Whose image it is; what has a ``dataobj`` is one of nibabel, whoever made its class."""
    if type(image).__module__.split(".")[0] == "SimpleITK":
        return "SimpleITK"
    if type(image).__module__.split(".")[0] == "nibabel" or hasattr(image, "dataobj"):
        return "nibabel"
    return None


def _of_nibabel(image: Any) -> Volume:
    import nibabel

    header = getattr(image, "header", None)
    unit = unit_mm(header) if isinstance(header, nibabel.Nifti1Header) else 1.0
    volume = _of_xyz(np.asanyarray(image.dataobj), np.diag([unit, unit, unit, 1.0]) @ image.affine)
    stated = header and stated_spacing([unit * float(edge) for edge in header.get_zooms()[:3][::-1]])
    return replace(volume, stated_mm=stated)


def _of_xyz(array: np.ndarray, affine: np.ndarray) -> Volume:
    if array.ndim not in (2, 3, 4) or np.shape(affine) != (4, 4):
        shape = f"shape {array.shape} and an affine of {np.shape(affine)}"
        raise UserError(f"the image has {shape}; expected (X, Y, Z) or (X, Y, Z, C) and (4, 4)")
    array = array.reshape(array.shape + (1,) * (4 - array.ndim)).transpose(3, 2, 1, 0)
    return Volume(array=_plain(array), geometry=Geometry.of(array.shape[1:], np.asarray(affine)[:, [2, 1, 0, 3]]))


def _plain(array: np.ndarray) -> np.ndarray:
    """As files are read: no long floats, and the machine's own order of bytes."""
    is_long = array.dtype.kind == "f" and array.dtype.itemsize > 4
    return array.astype(np.float32 if is_long else array.dtype.newbyteorder("="), copy=False)


def _of_itk(image: Any) -> Volume:
    import SimpleITK

    dimensions = image.GetDimension()
    if dimensions not in (2, 3):
        raise UserError(f"the SimpleITK image has {dimensions} dimensions; give 2 or 3, channels as vectors")
    array = SimpleITK.GetArrayFromImage(image)
    array = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    direction = np.eye(3)
    direction[:dimensions, :dimensions] = np.reshape(image.GetDirection(), (dimensions, dimensions))
    spacing = np.ones(3)
    spacing[:dimensions] = image.GetSpacing()
    origin = np.zeros(3)
    origin[:dimensions] = image.GetOrigin()
    array = array if dimensions == 3 else array[:, None]
    geometry = Geometry.of(array.shape[1:], affine_of_lps(direction, spacing, origin))
    return Volume(array=_plain(array), geometry=geometry, stated_mm=stated_spacing(image.GetSpacing()[::-1]))


def _as_itk(mask_zyx: np.ndarray, image: Any) -> Any:
    import SimpleITK

    mask = SimpleITK.GetImageFromArray(mask_zyx if image.GetDimension() == 3 else mask_zyx[0])
    mask.CopyInformation(image)
    return mask


def _as_nibabel(mask_zyx: np.ndarray, image: Any) -> Any:
    import nibabel

    header = image.header.copy() if isinstance(image, nibabel.Nifti1Image) else None
    if header is not None:  # units and codes of the place are kept, how values were stored is not
        header.set_data_dtype(mask_zyx.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
    return nibabel.Nifti1Image(_as_xyz(mask_zyx, image.ndim), image.affine, header)


def _as_xyz(mask_zyx: np.ndarray, dimensions: int) -> np.ndarray:
    """(X, Y, Z), or (X, Y) of an image of two dimensions."""
    return mask_zyx[0].T if dimensions == 2 else mask_zyx.transpose(2, 1, 0)
