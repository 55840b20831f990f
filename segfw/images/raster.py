"""PNG, TIFF, BMP, GIF and JPEG: pictures of one slice, TIFF stacks of many, grey or in colour.

TIFF is read in ``tiff``. SimpleITK decodes PNG of all number types; Pillow says what a picture holds, and decodes
palettes, bits and the other formats.
A picture has no place in space: it lies as SimpleITK puts it, rows to the back and columns to the left. Its spacing
comes from a side file, or from the tags of ImageJ, OME, SimpleITK or a microscope (see ``tiff_spacing``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segfw.base.errors import UserError
from segfw.base.written_by_people import read_json
from segfw.images.geometry import Spacing, as_spacing
from segfw.images.mask_colours import as_numbers, is_coloured
from segfw.images.pillow_pages import page_values
from segfw.images.stored_pixels import check_picture
from segfw.images.tiff import is_tiff, read_tiff, write_tiff
from segfw.images.voxels import LPS_TO_RAS, Refusal, Voxels, affine_of_lps

if TYPE_CHECKING:
    from PIL.Image import Image

EXIF_ORIENTATION = 274
ENDINGS_OF = {
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
}
BY_PILLOW = ("BMP", "GIF", "JPEG", "MPO")  # SimpleITK lacks GIF, and passes half a JPEG for a whole one


def read_picture(path: Path) -> Voxels:
    """Reads a picture as an image: colours are channels, and palettes are looked up."""
    return _read(path, is_mask=False)


def read_picture_mask(path: Path) -> Voxels:
    """Reads a picture as a mask: indices of a coloured palette, one channel where all is grey, else one number."""
    if path.suffix.lower() in ENDINGS_OF["JPEG"]:
        raise Refusal("is a JPEG, which blurs label values; export the mask as PNG, TIFF or NIfTI")
    voxels = _read(path, is_mask=True)
    first = voxels.array[:1]
    if (voxels.array == first).all():
        return voxels._replace(array=first)
    return voxels._replace(array=as_numbers(voxels.array)) if is_coloured(voxels.array) else voxels


def _read(path: Path, *, is_mask: bool) -> Voxels:
    notes: tuple[str, ...] = ()
    own_spacing_mm: Spacing | None
    if path.suffix.lower() in ENDINGS_OF["TIFF"] and is_tiff(path):
        tiff = read_tiff(path, is_mask=is_mask)
        own_spacing_mm = tiff.spacing_mm
        array = _by_channel(_without_alpha(tiff.array_zyxc), tiff.page_channels)
    else:
        with _opened(path) as picture:
            notes = _check(picture, path)
            array_zyxc, own_spacing_mm = _pixels(picture, path, is_mask=is_mask)
        array = np.moveaxis(_without_alpha(array_zyxc), -1, 0)
    side_file_mm = _side_file_spacing(path)
    spacing_mm = side_file_mm or own_spacing_mm
    if spacing_mm is None:
        what = "says no size of its pixels, so lengths and areas are in pixels"
        remedy = 'write {"spacing": [z, y, x]} in mm into a .json of the same name if it matters'
        notes = (*notes, f"{what}; {remedy}")
    affine = affine_of_lps(np.eye(3), np.array(spacing_mm or (1.0, 1.0, 1.0))[::-1], np.zeros(3))
    # Tags are not stated sizes: nnU-Net's reader of stacks looks at the side file alone.
    return Voxels(array, affine, notes, is_placed=spacing_mm is not None, stated_mm=side_file_mm)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """The picture as Pillow opens it."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(path)
    except UnidentifiedImageError:
        raise ValueError("is no picture that Pillow knows") from None
    except Image.DecompressionBombError:
        most_pixels = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise Refusal(f"has more than {most_pixels:,} pixels; cut it into tiles") from None
    with picture:
        yield picture


def _check(picture: Image, path: Path) -> tuple[str, ...]:
    """Refuses what is damaged or no plain picture, and notes what a viewer would show otherwise."""
    endings = ENDINGS_OF.get(picture.format or "", ())
    if path.suffix.lower() not in endings:
        name = f"rename it to {endings[0]}" if endings else "export it as PNG"
        raise Refusal(f"is a {picture.format} file under the ending {path.suffix}; {name}")
    columns, rows = picture.size
    bits = 8 * len(picture.getbands())
    check_picture(path, picture.format or "", columns=columns, rows=rows, bits_per_pixel=bits)
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format in ("GIF", "PNG"):
        raise Refusal(f"has {frames} frames (an animation); save the one to use as PNG")
    if picture.mode in ("CMYK", "LAB", "HSV"):
        raise Refusal(f"has colours in {picture.mode}; save it as RGB or grey")
    orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
    if orientation == 1:
        return ()
    what = f"asks viewers to turn it (EXIF orientation {orientation}), but is read as stored"
    return (f"{what}; check that the mask was drawn on the stored picture",)


def _pixels(picture: Image, path: Path, *, is_mask: bool) -> tuple[np.ndarray, Spacing | None]:
    """Pixels (1, Y, X, C), and the spacing that SimpleITK itself writes into PNG files."""
    if picture.mode in ("1", "P", "PA", "LA") or picture.format in BY_PILLOW:
        return page_values(picture, is_mask=is_mask)[None], None
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what it would warn of is handled here
    image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        array = array[..., None]
    columns_mm, rows_mm = image.GetSpacing()[:2]
    has_spacing = (columns_mm, rows_mm) != (1.0, 1.0)
    return array.reshape(-1, *array.shape[-3:]), (1.0, rows_mm, columns_mm) if has_spacing else None


def _by_channel(array_zyxc: np.ndarray, page_channels: int) -> np.ndarray:
    """(C, Z, Y, X); the pages of ImageJ's stacks run through the channels of a slice first."""
    if page_channels > 1 and array_zyxc.shape[-1] == 1 and array_zyxc.shape[0] % page_channels == 0:
        pages = array_zyxc[..., 0]
        return pages.reshape(-1, page_channels, *pages.shape[1:]).swapaxes(0, 1)
    return np.moveaxis(array_zyxc, -1, 0)


def _without_alpha(array_zyxc: np.ndarray) -> np.ndarray:
    """Grey or colour without the transparency that a second or fourth value per pixel is in pictures."""
    if array_zyxc.shape[-1] not in (2, 4):
        return array_zyxc
    alpha = array_zyxc[..., -1]
    if (alpha != alpha.flat[0]).any():
        raise Refusal("has a transparency (alpha) channel that varies; save it without transparency")
    return array_zyxc[..., :-1]


def side_file(path: Path) -> Path | None:
    """CASE.json beside CASE.tif or CASE_0000.tif, where nnU-Net keeps the spacing: {"spacing": [z, y, x]}."""
    stem = path.with_suffix("").name
    places = (path.with_name(f"{name}.json") for name in (stem, re.sub(r"_\d{4}$", "", stem)))
    return next((place for place in places if place.is_file()), None)


def _side_file_spacing(path: Path) -> Spacing | None:
    side = side_file(path)
    if side is None:
        return None
    try:
        lengths_mm = [float(value) for value in read_json(side)["spacing"]]
    except (ValueError, TypeError, KeyError, OSError, UserError):
        lengths_mm = []
    if len(lengths_mm) == 2:
        lengths_mm = [1.0, *lengths_mm]
    if len(lengths_mm) != 3 or not all(np.isfinite(length) and length > 0 for length in lengths_mm):
        raise Refusal(f'its side file {side.name} must hold {{"spacing": [z, y, x]}} in mm; correct it')
    return as_spacing(lengths_mm)


def write_picture(path: Path, array_zyx: np.ndarray, affine: np.ndarray) -> None:
    """Writes a mask as a picture, a stack of slices as TIFF; refuses what such a file cannot hold."""
    spacing = _picture_spacing(affine)
    ending = path.suffix.lower()
    if spacing is None:
        what = f"a {ending} file has no position or direction in space, which this image has"
        raise Refusal(f"{what}; write .nii.gz, .nrrd or .mha")
    if len(array_zyx) > 1 and ending not in ENDINGS_OF["TIFF"]:
        raise Refusal(f"a {ending} file holds one slice, not {len(array_zyx)}; write .nii.gz or .tif")
    array = _as_grey(array_zyx)
    limit = 65_535 if ending == ".png" else 255
    if ending not in ENDINGS_OF["TIFF"] and (array.min() < 0 or array.max() > limit):
        what = f"a {ending} file holds values from 0 to {limit}, not {array.min()} to {array.max()}"
        raise Refusal(f"{what}; write .nii.gz or .tif")
    if ending == ".png":
        import SimpleITK

        image = SimpleITK.GetImageFromArray(array[0])
        image.SetSpacing((spacing[2], spacing[1]))
        SimpleITK.WriteImage(image, str(path))
        return
    if ending in ENDINGS_OF["TIFF"]:
        write_tiff(path, array, spacing)
        return
    from PIL import Image

    Image.fromarray(array[0]).save(path)


def _picture_spacing(affine: np.ndarray) -> Spacing | None:
    """Spacing (z, y, x) of an affine as ``read_picture`` makes them; None if it says more than a spacing."""
    lps = LPS_TO_RAS @ affine[:, [2, 1, 0, 3]]
    spacing = np.diag(lps)[:3]
    if (spacing <= 0).any() or not np.allclose(lps, np.diag([*spacing, 1.0]), atol=1e-6 * spacing.min()):
        return None
    return as_spacing(spacing[::-1])


def _as_grey(array_zyx: np.ndarray) -> np.ndarray:
    """The array in a type that pictures have: uint8 as it is, uint16, or int32 for TIFF alone."""
    if array_zyx.dtype == np.uint8:
        return array_zyx
    fits = array_zyx.min() >= 0 and array_zyx.max() <= 65_535
    return array_zyx.astype(np.uint16 if fits else np.int32)
