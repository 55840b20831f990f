"""PNG, TIFF, BMP, GIF and JPEG: pictures of one slice, TIFF stacks of many, grey or in colour.

SimpleITK decodes TIFF and PNG of all number types; Pillow says what a picture holds, and decodes palettes, bits and
the other formats.
A picture has no place in space: it lies as SimpleITK puts it, rows to the back and columns to the left. Its spacing
comes from a side file, or from the tags of ImageJ, OME, SimpleITK or a microscope (see ``tiff_spacing``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segfw.images.geometry import Spacing
from segfw.images.tiff_tags import (
    BITS_PER_SAMPLE,
    DESCRIPTION,
    IMAGE_DEPTH,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    Y_RESOLUTION,
    imagej_fields,
    ome_fields,
    tiff_spacing,
)
from segfw.images.voxels import LPS_TO_RAS, Refusal, Voxels, affine_of_lps

if TYPE_CHECKING:
    from PIL.Image import Image

EXIF_ORIENTATION = 274
ENDINGS_OF = {"PNG": (".png",), "TIFF": (".tif", ".tiff"), "BMP": (".bmp",), "GIF": (".gif",)}
BY_PILLOW = ("BMP", "GIF", "JPEG", "MPO")  # SimpleITK lacks GIF, and passes half a JPEG for a whole one
ENDINGS_OF |= {"JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg")}


def read_picture(path: Path) -> Voxels:
    """Reads a picture as an image: colours are channels, and palettes are looked up."""
    return _read(path, is_mask=False)


def read_picture_mask(path: Path) -> Voxels:
    """Reads a picture as a mask: indices of a coloured palette, and one channel where all colours are equal."""
    if path.suffix.lower() in ENDINGS_OF["JPEG"]:
        raise Refusal("is a JPEG, which blurs label values; export the mask as PNG, TIFF or NIfTI")
    voxels = _read(path, is_mask=True)
    first = voxels.array[:1]
    return voxels._replace(array=first) if (voxels.array == first).all() else voxels


def _read(path: Path, *, is_mask: bool) -> Voxels:
    with _opened(path) as picture:
        is_tiff = picture is not None and picture.format == "TIFF"
        notes = () if picture is None else _check(picture, path)
        if picture is not None and (picture.mode in ("1", "P", "PA", "LA") or picture.format in BY_PILLOW):
            array, own_spacing = _by_pillow(picture, is_mask=is_mask), None
        else:
            array, own_spacing = _by_itk(path)
            if path.suffix.lower() in ENDINGS_OF["TIFF"] and _is_reduced(array, picture):
                array = _whole_by_pillow(picture)
        array = _by_channel(_without_alpha(array), {} if picture is None else imagej_fields(picture))
        said_beside = _side_file_spacing(path)
        spacing = said_beside or (tiff_spacing(picture) if is_tiff else own_spacing)
    if spacing is None:
        what = "says no spacing, so 1 mm is taken"
        remedy = 'write {"spacing": [z, y, x]} into a .json of the same name if it matters'
        notes = (*notes, f"{what}; {remedy}")
    affine = affine_of_lps(np.eye(3), np.array(spacing or (1.0, 1.0, 1.0))[::-1], np.zeros(3))
    # Tags are not stated sizes: nnU-Net's reader of stacks looks at the side file alone.
    return Voxels(array, affine, notes, is_placed=spacing is not None, stated_mm=said_beside)


@contextmanager
def _opened(path: Path) -> Iterator[Image | None]:
    """The picture as Pillow opens it, None if it is a TIFF of numbers that Pillow does not know."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(path)
    except UnidentifiedImageError:
        if path.suffix.lower() not in ENDINGS_OF["TIFF"]:
            raise ValueError("is no picture that Pillow knows") from None
        picture = None
    except Image.DecompressionBombError:
        raise Refusal(f"has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels; cut it into tiles") from None
    if picture is None:
        yield None
    else:
        with picture:
            yield picture


def _check(picture: Image, path: Path) -> tuple[str, ...]:
    """Refuses what is no plain picture, and notes what a viewer would show otherwise."""
    endings = ENDINGS_OF.get(picture.format, ())
    if path.suffix.lower() not in endings:
        name = f"rename it to {endings[0]}" if endings else "export it as PNG"
        raise Refusal(f"is a {picture.format} file under the ending {path.suffix}; {name}")
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format in ("GIF", "PNG"):
        raise Refusal(f"has {frames} frames (an animation); save the one to use as PNG")
    if picture.mode in ("CMYK", "LAB", "HSV"):
        raise Refusal(f"has colours in {picture.mode}; save it as RGB or grey")
    imagej = imagej_fields(picture)
    if int(imagej.get("frames", 1)) > 1:
        raise Refusal(f"is a time series of {imagej['frames']} frames; save one of them as a stack")
    if int(imagej.get("images", frames)) != frames:
        what = f"announces {imagej['images']} pages but has {frames} (ImageJ stores large stacks like that)"
        raise Refusal(f"{what}; save it as NIfTI or NRRD")
    if picture.format == "TIFF" and int(picture.tag_v2.get(IMAGE_DEPTH, 1)) > 1:
        raise Refusal("keeps several slices in one page; save it with a page for each slice, or as NIfTI")
    ome = ome_fields(picture)
    sizes = {name: int(ome.get(f"Size{name}", 1)) for name in "CT"}
    if sizes["T"] > 1 or sizes["C"] not in (1, len(picture.getbands())):
        what = f"is an OME-TIFF of {sizes['C']} channels and {sizes['T']} time points"
        raise Refusal(f"{what}; save each channel of one time point as a stack")
    turned = picture.getexif().get(EXIF_ORIENTATION, 1)
    if turned == 1 or picture.format == "TIFF":
        return ()
    what = f"asks viewers to turn it (EXIF orientation {turned}), but is read as stored"
    return (f"{what}; check that the mask was drawn on the stored picture",)


def _by_itk(path: Path) -> tuple[np.ndarray, Spacing | None]:
    """Pixels (Z, Y, X, C), and the spacing that SimpleITK itself writes into PNG files."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what it would warn of is handled here
    image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        array = array[..., None]
    is_told = path.suffix.lower() == ".png" and image.GetSpacing()[:2] != (1.0, 1.0)
    spacing = (1.0, *image.GetSpacing()[1::-1]) if is_told else None
    return array.reshape(-1, *array.shape[-3:]), spacing


def _is_reduced(array_zyxc: np.ndarray, picture: Image | None) -> bool:
    """Whether SimpleITK turned a TIFF into colours of 8 bits, as it does with tiles and other rare kinds."""
    is_rgba = array_zyxc.shape[-1] == 4 and array_zyxc.dtype == np.uint8
    return is_rgba and (picture is None or picture.mode not in ("RGBA", "RGBX", "RGBa"))


def _whole_by_pillow(picture: Image | None) -> np.ndarray:
    """Pixels (Z, Y, X, C) by Pillow; refuses kinds of which Pillow too would drop bits or pages."""
    bits = () if picture is None else picture.tag_v2.get(BITS_PER_SAMPLE, (1,))
    is_colour = picture is not None and picture.mode == "RGB" and max(bits) <= 8
    if picture is None or not (is_colour or picture.mode in ("L", "I;16", "I", "F")):
        raise Refusal("is a TIFF that cannot be read without loss; save it without tiles and compression, or as PNG")
    return _by_pillow(picture, is_mask=False)


def _by_pillow(picture: Image, *, is_mask: bool) -> np.ndarray:
    """Pixels (Z, Y, X, C) of palettes, bits and everything that SimpleITK gets wrong or does not know."""
    pages = []
    for page in range(picture.n_frames if picture.format == "TIFF" else 1):
        picture.seek(page)
        pages.append(_page(picture, is_mask=is_mask))
    if len({page.shape for page in pages}) > 1:
        raise Refusal("has pages of different sizes; save those of one size as a stack")
    return np.stack(pages)


def _page(picture: Image, *, is_mask: bool) -> np.ndarray:
    if picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)[..., None] * (1 if is_mask else 255)
    if picture.mode not in ("P", "PA"):
        array = np.asarray(picture)
        return array.reshape(*array.shape[:2], -1)
    # By the whole palette, not by the colours used: all masks of a data set must be read in one way.
    palette = np.reshape(picture.getpalette("RGB"), (-1, 3))
    is_grey = (palette == palette[:, :1]).all()
    if is_mask and not is_grey:
        return np.asarray(picture if picture.mode == "P" else picture.getchannel(0))[..., None]
    colours = np.asarray(picture.convert("RGBA"))
    if not is_grey:
        return colours
    return colours[..., :1] if is_mask else colours[..., [0, 3]]


def _by_channel(array_zyxc: np.ndarray, imagej: dict[str, str]) -> np.ndarray:
    """(C, Z, Y, X); the pages of ImageJ's stacks run through the channels of a slice first."""
    channels = int(imagej.get("channels", 1))
    if channels > 1 and array_zyxc.shape[-1] == 1 and array_zyxc.shape[0] % channels == 0:
        pages = array_zyxc[..., 0]
        return pages.reshape(-1, channels, *pages.shape[1:]).swapaxes(0, 1)
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
        spacing = tuple(float(value) for value in json.loads(side.read_text(encoding="utf-8"))["spacing"])
    except (ValueError, TypeError, KeyError, OSError):
        spacing = ()
    if len(spacing) == 2:
        spacing = (1.0, *spacing)
    if len(spacing) != 3 or not all(np.isfinite(value) and value > 0 for value in spacing):
        raise Refusal(f'its side file {side.name} must hold {{"spacing": [z, y, x]}} in mm; correct it')
    return spacing


def write_picture(path: Path, array_zyx: np.ndarray, affine: np.ndarray) -> None:
    """Writes a mask as a picture, a stack of slices as TIFF; refuses what such a file cannot hold."""
    spacing = _picture_spacing(affine)
    ending = path.suffix.lower()
    if spacing is None:
        what = f"a {ending} file has no position or direction in space, which this image has"
        raise Refusal(f"{what}; write .nii.gz, .nrrd or .mha")
    if len(array_zyx) > 1 and ending not in ENDINGS_OF["TIFF"]:
        raise Refusal(f"a {ending} file holds one slice, not {len(array_zyx)}; write .nii.gz or .tif")
    array, limit = _as_grey(array_zyx), 65_535 if ending == ".png" else 255
    if ending not in ENDINGS_OF["TIFF"] and (array.min() < 0 or array.max() > limit):
        what = f"a {ending} file holds values from 0 to {limit}, not {array.min()} to {array.max()}"
        raise Refusal(f"{what}; write .nii.gz or .tif")
    if ending == ".png":
        import SimpleITK

        image = SimpleITK.GetImageFromArray(array[0])
        image.SetSpacing(spacing[:0:-1])
        SimpleITK.WriteImage(image, str(path))
        return
    from PIL import Image
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    pages = [Image.fromarray(page) for page in array]
    if ending not in ENDINGS_OF["TIFF"]:
        pages[0].save(path)
        return
    tags = ImageFileDirectory_v2()
    tags[DESCRIPTION] = f"ImageJ=1.53t\nimages={len(pages)}\nslices={len(pages)}\nunit=mm\nspacing={spacing[0]!r}\n"
    tags[X_RESOLUTION], tags[Y_RESOLUTION], tags[RESOLUTION_UNIT] = 1 / spacing[2], 1 / spacing[1], 1
    pages[0].save(path, save_all=True, append_images=pages[1:], tiffinfo=tags, compression="tiff_adobe_deflate")


def _picture_spacing(affine: np.ndarray) -> Spacing | None:
    """Spacing (z, y, x) of an affine as ``read_picture`` makes them; None if it says more than a spacing."""
    lps = LPS_TO_RAS @ affine[:, [2, 1, 0, 3]]
    spacing = np.diag(lps)[:3]
    if (spacing <= 0).any() or not np.allclose(lps, np.diag([*spacing, 1.0]), atol=1e-6 * spacing.min()):
        return None
    return tuple(float(value) for value in spacing[::-1])


def _as_grey(array_zyx: np.ndarray) -> np.ndarray:
    """The array in a type that pictures have: uint8 as it is, uint16, or int32 for TIFF alone."""
    if array_zyx.dtype == np.uint8:
        return array_zyx
    fits = array_zyx.min() >= 0 and array_zyx.max() <= 65_535
    return array_zyx.astype(np.uint16 if fits else np.int32)
